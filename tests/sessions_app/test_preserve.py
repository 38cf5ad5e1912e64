"""``storage_policy: preserve``: stopped with its disk kept, to its own deadline, with cost and receipt."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from gpubroker.common import clock
from sessions_app import preserve
from sessions_app.models import Event, Rental, Session
from sessions_app.states import Debt
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db(transaction=True)


def running(api: Api, driver: Driver, **more: Any) -> str:
    session_id: str = api.create(storage_policy="preserve", **more)["session"]["id"]
    driver.until_status(session_id, "running")
    return session_id


def rental_of(session_id: str) -> Rental:
    return Rental.objects.get(session_id=session_id)


def test_done_stops_the_machine_and_keeps_its_disk(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = running(api, driver, preserve_hours=5, disk_gb=100)
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    rental = rental_of(session_id)
    assert rental.state == Debt.PRESERVED
    assert rental.preserved_at is not None
    assert rental.preserve_until == rental.preserved_at + timedelta(hours=5)
    assert (rental.closed_at, rental.broker_key_sealed, rental.gpu_rate) == (None, "", None)
    assert [contract["intended"] for contract in market.alive()] == ["stopped"]
    session = Session.objects.get(id=session_id)
    assert (session.end_reason, session.agent_token_hash) == ("done", "")
    # The receipt.
    receipt = api.get(f"/sessions/{session_id}/events")["events"]
    kept = [event for event in receipt if event["to"] == "preserved"]
    assert len(kept) == 1
    assert kept[0]["details"]["preserve_until"] == clock.iso(rental.preserve_until)
    assert kept[0]["details"]["proof"]["call"] == f"get instance {rental.instance_id}"
    # Only the disk costs from here on.
    before = api.get("/costs", session_id=session_id)
    time.advance(hours=4)
    after = api.get("/costs", session_id=session_id)
    assert after["gpu_cost"] == before["gpu_cost"]
    per_hour = float(rental.disk_rate or 0)
    assert after["storage_cost"] - before["storage_cost"] == pytest.approx(4 * per_hour, rel=0.01)
    assert len(market.alive()) == 1


def test_the_disk_goes_at_its_own_deadline(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = running(api, driver, preserve_hours=5)
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    time.advance(hours=4, minutes=59)
    driver.round()
    assert rental_of(session_id).state == Debt.PRESERVED
    time.advance(minutes=2)
    driver.until(lambda: rental_of(session_id).state == Debt.CLOSED)
    assert market.alive() == []
    assert Session.objects.get(id=session_id).status == "stopped"
    assert (rental_of(session_id).proof or {})["answer"] == "the provider has no such machine"


@pytest.mark.parametrize("hours", [(1, 60), (12, 13 * 60)])
def test_expiry_keeps_the_disk_too(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, hours: tuple[int, int]
) -> None:
    reserved, minutes = hours
    session_id = running(api, driver, reservation_hours=reserved)
    time.advance(minutes=minutes, seconds=1)
    driver.until_status(session_id, "stopped")
    rental = rental_of(session_id)
    assert rental.state == Debt.PRESERVED
    assert rental.preserved_at is not None
    assert rental.preserve_until == rental.preserved_at + timedelta(hours=preserve.DEFAULT_HOURS)
    assert Session.objects.get(id=session_id).end_reason == "expired"


def test_delete_takes_the_disk_with_it(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = running(api, driver)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    assert rental_of(session_id).state == Debt.CLOSED
    assert market.alive() == []


def test_delete_after_the_end_drops_the_kept_disk(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = running(api, driver)
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    answer = api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    assert answer["message"] == "session destruction in progress"
    driver.until(lambda: rental_of(session_id).state == Debt.CLOSED)
    assert market.alive() == []
    assert api.delete(f"/sessions/{session_id}")["message"] == "session destroyed"


def test_delete_while_stopping_destroys(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = running(api, driver)
    api.post(f"/sessions/{session_id}/done")
    assert rental_of(session_id).state == Debt.PARKING
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    assert rental_of(session_id).state == Debt.DESTROYING
    driver.until_status(session_id, "stopped")
    assert market.alive() == []


def test_a_refused_stop_is_sent_again(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock) -> None:
    session_id = running(api, driver)
    market.fault("error_5xx", operation="update", times=3)
    api.post(f"/sessions/{session_id}/done")
    driver.until(lambda: Event.objects.filter(kind="stop_refused").exists())
    assert Session.objects.get(id=session_id).status == "stopping"
    market.clear_faults()
    time.advance(minutes=1)
    driver.until_status(session_id, "stopped")
    assert rental_of(session_id).state == Debt.PRESERVED


def test_a_stop_that_never_comes_true_gives_way_to_the_destroy(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """I8: the GPU costs, so the promise to keep the disk ends before the money does."""
    session_id = running(api, driver)
    market.fault("error_5xx", operation="update", times=-1)
    api.post(f"/sessions/{session_id}/done")
    driver.until(lambda: Event.objects.filter(kind="stop_refused").exists())
    time.advance(seconds=preserve.STOP_PATIENCE.total_seconds() + 1)
    driver.until_status(session_id, "stopped")
    assert rental_of(session_id).state == Debt.CLOSED
    assert market.alive() == []
    owed = Event.objects.get(rental__session_id=session_id, to_state=Debt.DESTROYING)
    assert owed.reason == "the provider did not stop the machine in time; its disk goes with it"


def test_a_kept_machine_that_runs_again_is_stopped_again(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = running(api, driver)
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    until = rental_of(session_id).preserve_until
    instance = rental_of(session_id).instance_id
    market.api("PUT", f"/api/v0/instances/{instance}/", {"state": "running"})
    driver.until(lambda: driver.sweep_now() is not None and rental_of(session_id).state == Debt.PARKING)
    driver.until(lambda: rental_of(session_id).state == Debt.PRESERVED)
    assert rental_of(session_id).preserve_until == until
    assert [contract["intended"] for contract in market.alive()] == ["stopped"]


def test_a_kept_disk_that_the_provider_loses_is_closed_as_a_ghost(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = running(api, driver)
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    market.api("DELETE", f"/api/v0/instances/{rental_of(session_id).instance_id}/", {})
    for _ in range(3):
        time.advance(seconds=31)
        driver.sweep_now()
    assert rental_of(session_id).state == Debt.CLOSED
    assert Session.objects.get(id=session_id).status == "stopped"


def test_a_session_that_never_ran_keeps_nothing(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("boot_error", mode="oci")
    session_id = api.create(storage_policy="preserve")["session"]["id"]
    driver.until_status(session_id, "failed")
    assert market.alive() == []


def test_preserve_hours_needs_preserve(market: SandboxProcess, api: Api) -> None:
    refusal = api.create(400, preserve_hours=5)
    assert (refusal["error"], refusal["field"]) == (
        "preserve_hours: only with storage_policy preserve", "preserve_hours",
    )  # fmt: skip
    assert api.create(400, storage_policy="preserve", preserve_hours=0)["field"] == "preserve_hours"
    assert api.create(400, storage_policy="preserve", preserve_hours=721)["field"] == "preserve_hours"
    assert Session.objects.count() == 0
