"""How many calls to one provider may be under way in this process, so that a slow or deaf one cannot take every thread.

A worker has 32 threads: one provider's ordinary calls get half of them, and its destroys and proofs a few of their own.
"""

from __future__ import annotations

import threading
from collections import Counter

from providers.base import GateHeld

MOST_CALLS = 16
MOST_URGENT = 6
#: Seconds until somebody who found no room asks again.
AGAIN = 2.0


class Lanes:
    """Counts calls under way by provider and urgency. A thread has at most one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Counter[tuple[str, bool]] = Counter()
        self._mine = threading.local()

    def enter(self, provider: str, *, urgent: bool) -> None:
        """Take a place or raise ``GateHeld``. Whoever has one keeps it: the pages of a listing are one call."""
        if getattr(self._mine, "place", None) is not None:
            return
        place = (provider, urgent)
        with self._lock:
            if self._under_way[place] >= (MOST_URGENT if urgent else MOST_CALLS):
                raise GateHeld(AGAIN, "held back: too many calls to this provider are under way", by="lanes")
            self._under_way[place] += 1
        self._mine.place = place

    def leave(self) -> None:
        """Give the place back, where this thread has one."""
        place = getattr(self._mine, "place", None)
        if place is not None:
            self._mine.place = None
            with self._lock:
                self._under_way[place] -= 1


lanes = Lanes()
