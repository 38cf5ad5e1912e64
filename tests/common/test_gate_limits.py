"""Two processes that call as often as the gate lets them never meet a vendor's limit: held against the sandbox's own
rules, in no time, with calls that are on their way for very unequal times."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from gpubroker.common import clock
from gpubroker.common.gate import MOST_SLACK, DatabaseGate
from gpubroker.common.lanes import lanes
from providers.base import GateHeld
from providers.sandbox.limits import Limits, Quota
from providers.sandbox.tensordock.gateway import CALLS_PER_MINUTE
from providers.tensordock.wire import LANES
from providers.vastai.transport import ROUTES
from tests.harness import MovableClock
from tests.providers.test_published_limits import PUBLISHED

pytestmark = pytest.mark.django_db
#: The longest that a call is on its way to the vendor, compared with the quickest.
ON_THE_WAY = MOST_SLACK * 0.96


def arrivals(keys: dict[str, float], seconds: float, time: MovableClock) -> list[float]:
    """When the calls of two greedy processes arrive, over so many seconds; ``keys``: gate and interval."""
    processes = (DatabaseGate(), DatabaseGate())  # all that they share is the database
    chance, began, found = Random(7), clock.now(), []
    due = {(gate, key): 0.0 for gate in processes for key in keys}
    while (now := (clock.now() - began).total_seconds()) < seconds:
        for gate, key in [each for each, at in due.items() if at <= now]:
            pause = _try(gate, key, keys[key])
            found += [now + chance.uniform(0, ON_THE_WAY)] if pause == 0.0 else []
            due[gate, key] = now + pause
        time.advance(seconds=max(min(due.values()) - now, 0.001))
    return sorted(found)


def _try(gate: DatabaseGate, key: str, interval: float) -> float:
    """Seconds until the next try; 0: it went through."""
    try:
        gate.acquire(key, interval)
    except GateHeld as held:
        return held.retry_after
    lanes.leave()
    return 0.0


class Wall:
    """The vendor's clock, which stands where the call that it looks at arrives."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def refused(calls: list[float], wall: Wall, check: Callable[[], bool]) -> list[float]:
    found = []
    for at in calls:
        wall.at = at
        found += [at] if check() else []
    return found


@pytest.mark.parametrize("operations", PUBLISHED, ids="-".join)
def test_vastais_intervals(operations: tuple[str, ...], time: MovableClock) -> None:
    wall, published = Wall(), PUBLISHED[operations]
    limits = Limits(wall)
    interval = min(ROUTES[operation].interval for operation in operations)
    calls = arrivals({f"vastai:{operations[0]}": interval}, published * 12, time)
    assert len(calls) >= 9
    assert refused(calls, wall, lambda: limits.check("x", "account", published, 1.0) is not None) == []


def test_tensordocks_minute(time: MovableClock) -> None:
    """Every lane is used to the full."""
    wall = Wall()
    quota = Quota(CALLS_PER_MINUTE, 60.0, wall)
    calls = arrivals({f"tensordock:{lane}": interval for lane, interval in LANES.items()}, 70, time)
    assert len(calls) >= 85

    def is_held() -> bool:
        standing = quota.spend("organisation", 1.0)
        return standing is not None and standing.held

    assert refused(calls, wall, is_held) == []
