"""What the state machine of test_invariants found, each as short as it can be told."""

from __future__ import annotations

import pytest

from sessions_app.models import Rental
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import SandboxProcess


@pytest.mark.parametrize("faults", [[], ["lost_answer"]])
def test_what_a_machine_cost_while_nothing_of_ours_was_up(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, faults: list[str]
) -> None:
    """Given back while it boots, then hours without a broker: its GPU ran all the while, and no listing had shown it.
    The destroy would be the first call, and after it nobody could tell what it had cost."""
    market.settings(boot_seconds=20)
    for fault in faults:
        market.fault(fault, operation="create")
    session_id = api.create()["session"]["id"]
    driver.until(lambda: Rental.objects.get().state == "live")
    assert Rental.objects.get().gpu_from is None
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    time.advance(hours=14)
    market.advance(14 * 3600)
    driver.until_status(session_id, "stopped")
    ours, theirs = api.get("/costs", session_id=session_id), market.ledger()[0]
    assert ours["gpu_cost"] == pytest.approx(theirs["gpu_dollars"], rel=0.01)
    assert ours["storage_cost"] == pytest.approx(theirs["disk_dollars"], rel=0.01)


def test_what_a_machine_cost_since_it_was_last_listed(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """Listed while it boots, given back less than a minute later: by then its GPU ran, and no listing had shown it."""
    market.settings(boot_seconds=20)
    session_id = api.create()["session"]["id"]
    driver.until(lambda: Rental.objects.get().last_seen_at is not None)
    assert Rental.objects.get().gpu_from is None
    time.advance(seconds=50)
    market.advance(50)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    ours, theirs = api.get("/costs", session_id=session_id), market.ledger()[0]
    assert theirs["gpu_dollars"] > 0
    assert ours["gpu_cost"] == pytest.approx(theirs["gpu_dollars"], rel=0.15)
