"""Answers kept as they were printed: the few questions that most callers ask are printed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sized
from typing import Generic, TypeVar

T = TypeVar("T", bound=Sized)

MAX_ENTRIES = 256
MAX_BYTES = 32 * 1024 * 1024


class Rendered(Generic[T]):
    """Least recently used entries go first when there are too many, or their lengths are too much together."""

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.size = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def kept(self, key: Hashable) -> T | None:
        """The entry when there is one."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The entry, or ``make()``, outside the lock: two threads may both make it, and make the same."""
        found = self.kept(key)
        if found is not None:
            return found
        made = make()
        if len(made) <= self.max_bytes // 4:
            with self._lock:
                self._keep(key, made)
        return made

    def _keep(self, key: Hashable, made: T) -> None:
        before = self._entries.pop(key, None)
        self.size += len(made) - (0 if before is None else len(before))
        self._entries[key] = made
        while len(self._entries) > self.max_entries or self.size > self.max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.size -= len(dropped)
