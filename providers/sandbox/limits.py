"""Rate limits as the vendors have them: a shortest time between two calls, per operation and caller."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """A call that came too early: ``interval`` as published, ``wait`` until the next would pass."""

    interval: float
    pace: float
    wait: float


class Limits:
    """Remembers the last call that passed. ``wall``: mostly wall time, as a client's patience is not sandbox time."""

    def __init__(self, wall: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._last: dict[tuple[str, str], float] = {}

    def check(self, operation: str, identity: str, interval: float, pace: float) -> Held | None:
        """Let the call pass, or say how long it has to wait. A call that is held does not extend the wait."""
        if not interval or pace <= 0:
            return None
        now, key = self._wall(), (operation, identity)
        wait = self._last.get(key, float("-inf")) + interval * pace - now
        if wait > 0:
            return Held(interval, pace, wait)
        self._last[key] = now
        return None

    def forget(self) -> None:
        self._last.clear()


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left of a quota: ``remaining`` calls for ``reset`` more seconds; ``held``: this call was one too many."""

    limit: int
    remaining: int
    reset: float
    held: bool


class Quota:
    """So many calls per caller in a stretch of time, which begins with the first of them. Wall time, as above."""

    def __init__(self, calls: int, seconds: float, wall: Callable[[], float] = time.monotonic) -> None:
        self.calls = calls
        self._seconds = seconds
        self._wall = wall
        self._spent: dict[str, tuple[float, int]] = {}

    def spend(self, identity: str, pace: float) -> Standing | None:
        """Count a call; None: there is no limit. A call that is held counts nothing."""
        if pace <= 0:
            return None
        now = self._wall()
        began, spent = self._spent.get(identity, (float("-inf"), 0))
        if now >= began + self._seconds * pace:
            began, spent = now, 0
        held = spent >= self.calls
        self._spent[identity] = (began, spent if held else spent + 1)
        left = 0 if held else self.calls - spent - 1
        return Standing(self.calls, left, began + self._seconds * pace - now, held)

    def forget(self) -> None:
        self._spent.clear()
