"""How many webhooks one process sends at a time, so that slow receivers hold up neither the worker's other work nor
each other's messages."""

from __future__ import annotations

import threading
from collections import Counter

#: Of a worker's 32 threads.
MOST = 6
#: Of those, for receivers whose last attempt failed or took long.
MOST_TROUBLED = 3
MOST_PER_ENDPOINT = 2


class Slots:
    """Whoever chooses a delivery holds ``choosing``, so that what was free when it looked still is."""

    def __init__(self) -> None:
        self.choosing = threading.Lock()
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._troubled = 0

    def full(self) -> bool:
        with self._lock:
            return self._under_way.total() >= MOST

    def full_for_troubled(self) -> bool:
        with self._lock:
            return self._troubled >= MOST_TROUBLED

    def full_endpoints(self) -> list[str]:
        with self._lock:
            return [endpoint for endpoint, count in self._under_way.items() if count >= MOST_PER_ENDPOINT]

    def enter(self, endpoint: str, *, troubled: bool) -> None:
        with self._lock:
            self._under_way[endpoint] += 1
            self._troubled += troubled

    def leave(self, endpoint: str, *, troubled: bool) -> None:
        with self._lock:
            self._under_way[endpoint] -= 1
            self._troubled -= troubled
            if not self._under_way[endpoint]:
                del self._under_way[endpoint]


slots = Slots()
