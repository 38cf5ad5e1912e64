"""Answers kept as bytes: the few questions that most callers ask are printed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

MAX_ENTRIES = 256
MAX_BYTES = 32 * 1024 * 1024


class Rendered:
    """Least recently used entries go first when there are too many or they weigh too much."""

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.size = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The kept bytes, or ``make()``, outside the lock: two threads may both make them, and make the same."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                return found
        made = make()
        if len(made) <= self.max_bytes // 4:
            with self._lock:
                self._keep(key, made)
        return made

    def _keep(self, key: Hashable, made: bytes) -> None:
        self.size += len(made) - len(self._entries.pop(key, b""))
        self._entries[key] = made
        while len(self._entries) > self.max_entries or self.size > self.max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.size -= len(dropped)
