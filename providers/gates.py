"""The plain implementations of what the HTTP wrapper leans on: gates, an observer, the clock.

The broker's own gate is a database row that every process shares; these are for scripts, tests and
benchmarks, where one process is all there is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from providers.base import GateHeld


class Clock(Protocol):
    """Both kinds of time: ``now`` for stamps (aware, UTC), ``monotonic`` for durations."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class NullGate:
    """Lets every call through at once."""

    def acquire(self, key: str, interval: float, *, wait: float = 0.0) -> None:
        return None

    def push_out(self, key: str, seconds: float) -> None:
        return None


class NullObserver:
    """Notes nothing."""

    def observe(self, provider: str, operation: str, seconds: float, error: str) -> None:
        return None


class LocalGate:
    """A gate for the threads of one process. Slots are handed out in the order of asking."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at: dict[str, float] = {}

    def acquire(self, key: str, interval: float, *, wait: float = 0.0) -> None:
        with self._lock:
            now = self._monotonic()
            free_at = self._free_at.get(key, now)
            pause = free_at - now
            if pause > wait:
                raise GateHeld(pause)
            self._free_at[key] = max(now, free_at) + interval
        if pause > 0:
            self._sleep(pause)

    def push_out(self, key: str, seconds: float) -> None:
        with self._lock:
            self._free_at[key] = max(self._free_at.get(key, 0.0), self._monotonic() + seconds)
