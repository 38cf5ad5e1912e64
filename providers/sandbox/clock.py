"""The one clock of a sandbox: every phase, bill and delay is derived from ``now()``, never from sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """What the sandbox asks about time, in epoch seconds of sandbox time."""

    speed: float

    def now(self) -> float: ...

    def advance(self, seconds: float) -> None: ...


@dataclass(slots=True)
class ScaledClock:
    """Wall time, ``speed`` times as fast since the anchor, plus what was skipped by hand.

    The anchor is kept in the ledger: a restarted sandbox goes on from where the old one would be by
    now, so an outage of the sandbox is billed like any other time.
    """

    speed: float = 1.0
    anchor_wall: float = 0.0
    anchor_now: float = 0.0
    wall: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not self.anchor_wall:
            self.anchor_wall = self.anchor_now = self.wall()

    def now(self) -> float:
        return self.anchor_now + (self.wall() - self.anchor_wall) * self.speed

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("sandbox time does not run backwards")
        self.anchor_now += seconds

    def restart(self) -> None:
        """Back to the wall's time."""
        self.anchor_wall = self.anchor_now = self.wall()

    def change_speed(self, speed: float) -> None:
        """Run at another speed from now on, without a jump."""
        self.anchor_now, self.anchor_wall = self.now(), self.wall()
        self.speed = speed
