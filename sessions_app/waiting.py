"""Room for so many at once in this process, and a line for those who find none.

The line is a convenience in memory: everybody in it has a due time in the database as well.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Line:
    """``enter`` or wait in line; whoever leaves asks ``next`` whom to go on with."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._inside = 0
        #: An ordered set: nobody stands in it twice.
        self._waiting: dict[str, None] = {}

    def enter(self, name: str) -> bool:
        """``False``: there is no room, and ``name`` now stands in the line."""
        with self._lock:
            if self._inside >= self._most:
                self._waiting[name] = None
                return False
            self._inside += 1
            self._waiting.pop(name, None)
            return True

    def queue(self, names: Iterable[str]) -> None:
        """To the end of the line, without asking for room."""
        with self._lock:
            self._waiting.update(dict.fromkeys(names))

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1

    def next(self) -> str | None:
        """Out of the line goes its first, if there is room and a line. It has no place yet: it enters like others."""
        with self._lock:
            if self._inside >= self._most or not self._waiting:
                return None
            first = next(iter(self._waiting))
            del self._waiting[first]
            return first
