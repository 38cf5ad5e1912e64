"""What other tools of this kind are known to do wrong, each by its name (issue 4)."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from gpubroker.common import clock
from sessions_app import drive
from sessions_app.models import Event, Rental, SeenOrphan, Session
from sessions_app.states import Debt
from tests.harness import Api, Driver, MovableClock, describe
from tests.interleave import Answer, on_the_wire
from tests.sandbox import SandboxProcess

EMPTY: Answer = (200, {}, json.dumps({"instances": [], "total_instances": 0, "success": True}))


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error_5xx", "operation": "list"},
        {"kind": "auth_error", "operation": "list"},
        {"kind": "rate_limited", "operation": "list"},
        {"kind": "malformed", "operation": "list"},
        {"kind": "truncated_json", "operation": "list"},
        {"kind": "partial_listing"},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_listing_error_read_as_empty(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, fault: dict[str, Any]
) -> None:
    """The listing fails for ten minutes: no machine counts as missing, and nobody's session ends."""
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    market.foreign("somebody else's")  # so that a partial listing leaves something out
    market.fault(**fault, times=-1)
    before = Event.objects.count()
    for _ in range(10):
        time.advance(minutes=1)
        assert driver.sweep_now() is None
    assert Rental.objects.get().missing_listings == 0
    assert Event.objects.count() == before
    assert Session.objects.get().status == "running"
    assert len(market.alive()) == 2


def test_a_listing_that_says_empty_and_lies(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """Complete-looking and empty, again and again: the direct look finds the machine, and that counts."""
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    with on_the_wire(market, ("GET", r"/api/v1/instances/.*", lambda request, number: EMPTY)) as listings:
        for _ in range(6):
            time.advance(minutes=1)
            assert driver.sweep_now() is not None
    assert len(listings) == 6
    assert (Session.objects.get().status, Rental.objects.get().state) == ("running", Debt.LIVE)
    assert len(market.alive()) == 1


def test_the_stuck_timer_counted_from_creation(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, settings: Any
) -> None:
    """The provider holds the create off for minutes: that time is not the machine's, which has all of its own."""
    session_id = api.create()["session"]["id"]
    market.settings(boot_seconds=3600)
    market.fault("rate_limited", operation="create", times=1)
    driver.round()
    assert Session.objects.get().status == "pending"
    time.advance(seconds=280)
    driver.until_status(session_id, "provisioning")
    time.advance(seconds=settings.SSH_VERIFY_SECONDS - 200)
    driver.round()
    assert clock.now() - Session.objects.get().created_at > timedelta(seconds=settings.SSH_VERIFY_SECONDS)
    assert Session.objects.get().status == "provisioning", describe()
    time.advance(seconds=201)
    driver.until_status(session_id, "failed")
    assert Session.objects.get().end_reason == "boot_timeout"
    assert market.alive() == []


@pytest.mark.parametrize("mode", ["error", "silent"])
def test_cleanup_that_forgets_an_id_although_destroy_failed(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, mode: str
) -> None:
    """An hour of failing destroys: the debt stays open, with its id, and is paid as soon as that is possible."""
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    machine = str(market.alive()[0]["id"])
    market.fault("refuse_destroy", mode=mode, times=-1)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    for _ in range(12):
        driver.round()
        time.advance(minutes=5)
    rental = Rental.objects.get()
    assert (rental.state, rental.instance_id, rental.proof) == (Debt.DESTROYING, machine, None)
    assert rental.next_check_at is not None
    assert rental.next_check_at - clock.now() < timedelta(minutes=5)
    assert api.get(f"/sessions/{session_id}")["status"] == "stopping"
    market.clear_faults()
    for _ in range(3):
        time.advance(minutes=5)
        driver.round()
    assert api.get(f"/sessions/{session_id}")["status"] == "stopped", describe()
    assert market.alive() == []


def test_a_sweep_that_kills_a_machine_between_create_and_save(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, settings: Any
) -> None:
    """The create took effect and its answer is on the way, for longer than an orphan's grace: the sweep sees a machine
    with our label and without an id in our books, and leaves it alone."""
    settings.ORPHAN_GRACE_SECONDS = 1
    session_id = api.create()["session"]["id"]

    def swept_meanwhile(request: Any, number: int) -> Answer:
        answer = market.raw("PUT", request.path_url, request.body.decode(), dict(request.headers))
        for _ in range(3):
            time.advance(seconds=30)
            swept = driver.sweep_now()
            assert swept is not None
            assert (swept.ours, swept.orphans, swept.orphans_destroyed) == (1, 0, 0)
        return answer

    with on_the_wire(market, ("PUT", r"/api/v0/asks/\d+/", swept_meanwhile)) as creates:
        drive.drive_rental(Rental.objects.get().id)
    assert creates == [1]
    assert not SeenOrphan.objects.exists()
    driver.until_status(session_id, "running")
    assert [contract["label"] for contract in market.alive()] == [Rental.objects.get().label]


def test_extend_that_promises_beyond_the_hard_maximum(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """Refused, naming the latest end; what is promised is what is kept, and ends to the minute."""
    session_id = api.create(reservation_hours=10)["session"]["id"]
    driver.until_status(session_id, "running")
    before = Session.objects.get()
    refusal = api.post(f"/sessions/{session_id}/extend", {"additional_hours": 3}, 400)
    assert refusal["latest_expires_at"] == clock.iso(before.hard_max_at)
    assert Session.objects.get().expires_at == before.expires_at
    promised = api.post(f"/sessions/{session_id}/extend", {"additional_hours": 2})["new_expires_at"]
    assert promised == clock.iso(before.hard_max_at)
    assert api.get(f"/sessions/{session_id}")["expires_at"] == promised
    time.advance(hours=11, minutes=58)
    driver.round()
    assert Session.objects.get().status == "running"
    time.advance(minutes=2)
    driver.until_status(session_id, "stopped")
    assert Session.objects.get().end_reason == "expired"
    assert market.alive() == []
