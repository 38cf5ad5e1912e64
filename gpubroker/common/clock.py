"""The one clock. Rules ask :func:`now`; tests put another clock in with :func:`use`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def _system() -> datetime:
    return datetime.now(UTC)


_clock: Clock = _system


def now() -> datetime:
    """Aware UTC."""
    return _clock()


@contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Let ``clock`` tell the time inside the block, in all threads of this process."""
    global _clock
    before = _clock
    _clock = clock
    try:
        yield
    finally:
        _clock = before


class BrokerClock:
    """This clock as providers take it: stamps from :func:`now`, durations from the machine."""

    def now(self) -> datetime:
        return now()

    def monotonic(self) -> float:
        return time.monotonic()


def pause(seconds: float) -> None:
    """Let real time pass while a request waits for a worker's verdict. Never for logic, never in a rule."""
    threading.Event().wait(seconds)


def iso(moment: datetime | None) -> str | None:
    """``2026-01-29T12:00:00Z``: whole seconds, as the API prints times."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
