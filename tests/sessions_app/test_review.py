"""What a hostile reading of the lifecycle found: each of these left a machine paid for, ended a session wrongly, forgot
a row or miscounted, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.models import MeterSegment
from gpubroker.common import breaker, clock
from gpubroker.common import providers as configured
from gpubroker.common.deployment import deployment_id
from gpubroker.common.gate import MOST_SLACK, DatabaseGate
from gpubroker.common.models import ProviderBreaker
from offers import snapshot
from offers.models import Offer, OfferFailure
from providers.base import GateHeld
from providers.labels import make_label
from sessions_app import drive, hard_maximum, reap, warning
from sessions_app.models import Event, ProviderWatch, Rental, Session
from sessions_app.states import Debt, Status
from tests.harness import Api, Driver, MovableClock, refresh_offers
from tests.interleave import Answer, on_the_wire
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_rental, make_session

pytestmark = pytest.mark.django_db(transaction=True)

LISTING = ("GET", r"/api/v1/instances/.*")
ONE = ("GET", r"/api/v0/instances/\d+/")
#: As much as the clock is set back by whoever finds it in the wrong time zone.
SET_BACK = timedelta(hours=-2)


def changed(market: SandboxProcess, change: Callable[[dict[str, Any]], None]) -> Any:
    """The marketplace's own listing, with ``change`` made to each machine."""

    def answer(request: Any, call: int) -> Answer:
        status, _, text = market.raw("GET", request.path_url, None, dict(request.headers))
        body = json.loads(text)
        for machine in body["instances"]:
            change(machine)
        return status, {}, json.dumps(body)

    return answer


def empty(request: Any, call: int) -> Answer:
    return 200, {}, json.dumps({"success": True, "instances": [], "instances_found": 0, "total_instances": 0})


def unknown(request: Any, call: int) -> Answer:
    return 404, {}, json.dumps({"success": False, "error": "no_such_instance", "msg": "Instance not found"})


def running(api: Api, driver: Driver, **more: Any) -> str:
    session_id: str = api.create(**more)["session"]["id"]
    driver.until_status(session_id, "running")
    return session_id


# -- sessions that were ended wrongly -----------------------------------------------------------------------------


def test_the_price_that_the_inventory_shows_is_not_above_itself(
    market: SandboxProcess, api: Api, driver: Driver
) -> None:
    """Vendors quote more digits than we show: whoever copies the price shown into max_price may have the machine."""
    offer = Offer.objects.filter(withdrawn_at__isnull=True, disk_gb__gte=100).order_by("price_per_hour")[0]
    more_digits = offer.price_per_hour + Decimal("0.00000049")
    exact = changed(market, lambda machine: machine.update(dph_base=float(more_digits)))
    with on_the_wire(market, (*LISTING, exact)):
        running(api, driver, offer_id=offer.id, max_price=float(offer.price_per_hour))
        driver.sweep_now()
    assert Rental.objects.get().price_actual == more_digits
    assert Session.objects.get().status == "running"


def test_prices_of_a_whole_listing_end_nothing_before_a_person_has_looked(
    market: SandboxProcess, driver: Driver, time: MovableClock
) -> None:
    """A vendor's fault in one column looks like five machines that have become dear at once."""
    for number in range(5):
        session = make_session(Status.RUNNING, max_price="9", offer_id=f"vastai-{number}", running_at=clock.now())
        label = make_label(deployment_id(), session.id, 1)
        make_rental(session, Debt.LIVE, label=label, instance_id=str(market.foreign(label)), price_asked="0.4")
    with on_the_wire(market, (*LISTING, changed(market, lambda machine: machine.update(dph_base=999.0)))):
        swept = driver.sweep_now()
    assert swept is not None
    assert swept.held is True
    assert set(Session.objects.values_list("status", flat=True)) == {"running"}
    held = "5 of 5 machines are lost or (5 of them) too dear by the listing"
    assert ProviderWatch.objects.get().held_reason == held
    driver.sweep_now()
    assert ProviderWatch.objects.get().held_reason == ""
    assert len(market.alive()) == 5


def test_a_machine_that_no_listing_shows_yet_is_no_ghost(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """As long as a listing may lag, two listings and a look without a fresh machine prove nothing."""
    session_id = api.create()["session"]["id"]
    drive.drive_rental(Rental.objects.get().id)
    assert Session.objects.get().status == "provisioning"
    with on_the_wire(market, (*LISTING, empty), (*ONE, unknown)):
        for _ in range(4):
            time.advance(seconds=6)
            driver.sweep_now()
    assert Rental.objects.get().state == Debt.LIVE
    driver.until_status(session_id, "running")
    assert len(market.ledger()) == 1


def test_an_image_that_is_nowhere_to_be_had_is_not_held_against_the_machine(
    market: SandboxProcess, api: Api, driver: Driver
) -> None:
    """Or three requests with a wrong name would take a machine from all other consumers."""
    market.fault("boot_error", mode="pull")
    session_id = api.create(docker_image="nobody/nothing:1")["session"]["id"]
    driver.until_status(session_id, "failed")
    assert Rental.objects.get().failure == "boot_failed"
    assert "manifest unknown" in Rental.objects.get().failure_message
    assert not OfferFailure.objects.exists()


# -- rows that nobody would have looked at ------------------------------------------------------------------------


def test_another_hard_maximum_does_not_put_off_the_next_attempt() -> None:
    due = clock.now()
    session = make_session(Status.PENDING, auto_retry=True, next_check_at=due)
    hard_maximum.override(session.id, session.created_at + timedelta(hours=20), "longer")
    assert Session.objects.get().next_check_at == due


def test_an_earlier_hard_maximum_is_seen_while_waiting_for_the_next_attempt() -> None:
    session = make_session(Status.PENDING, auto_retry=True)
    Session.objects.update(next_check_at=session.expires_at)
    sooner = session.created_at + timedelta(minutes=20)
    hard_maximum.override(session.id, sooner, "shorter")
    assert Session.objects.get().next_check_at == sooner


def test_a_warning_does_not_put_off_the_next_attempt() -> None:
    """The session was booting when its driver looked, and its attempt has failed since."""
    due = clock.now()
    session = make_session(Status.PENDING, auto_retry=True, next_check_at=due)
    warning.tend(session.id)
    assert Session.objects.get().next_check_at == due


def test_a_gate_from_a_clock_that_was_ahead_opens(time: MovableClock) -> None:
    gate = DatabaseGate()
    gate.acquire("vastai:destroy", 3.0)
    gate.push_out("vastai:create", 500.0)
    time.offset += SET_BACK
    gate.acquire("vastai:destroy", 3.0)
    gate.acquire("vastai:create", 0.0)
    gate.push_out("vastai:create", 30.0)
    for key, interval in (("vastai:destroy", 3.0), ("vastai:create", 30.0)):
        with pytest.raises(GateHeld) as held:
            gate.acquire(key, 3.0)
        assert interval / 2 < held.value.retry_after <= interval + MOST_SLACK


def test_a_breaker_from_a_clock_that_was_ahead_closes(time: MovableClock) -> None:
    for _ in range(breaker.FAILURES):
        breaker.note("vastai", "list_offers", "unavailable")
    time.offset += SET_BACK
    breaker.check("vastai")
    breaker.enter("vastai")
    assert ProviderBreaker.objects.get().trying is True
    breaker.note("vastai", "list_offers", "")
    assert ProviderBreaker.objects.get().open_until is None


def test_leases_from_a_clock_that_was_ahead_are_nobodys(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """What was claimed or put off by a clock that has been set back is due at the next tick, not hours later."""
    time.offset -= SET_BACK
    session_id = running(api, driver)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    booting = make_session(Status.PROVISIONING, offer_id="vastai-7")
    drive.tick()
    Session.objects.filter(id=booting.id).update(next_check_at=clock.now() + timedelta(seconds=30))
    time.offset += SET_BACK
    late = {"next_check_at__gt": clock.now() + timedelta(hours=1)}
    assert Rental.objects.filter(state=Debt.DESTROYING, **late).count() == 1
    drive.tick()
    soon = {"next_check_at__lt": clock.now() + timedelta(minutes=2)}
    assert Rental.objects.filter(state=Debt.DESTROYING, **soon).count() == 1
    assert Session.objects.filter(id=booting.id, **soon).exists()
    assert ProviderWatch.objects.get(provider="vastai").next_sweep_at < soon["next_check_at__lt"]


# -- machines and disks --------------------------------------------------------------------------------------------


def test_a_disk_is_not_given_up_before_its_machine_was_asked_to_stop(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """Nothing of ours was up for a while after the end: that is no fault of the machine's."""
    session_id = running(api, driver, storage_policy="preserve")
    api.post(f"/sessions/{session_id}/done")
    time.advance(minutes=20)
    driver.until_status(session_id, "stopped")
    assert Rental.objects.get().state == Debt.PRESERVED
    assert len(market.alive()) == 1


def test_a_listing_from_before_the_stop_wakes_no_kept_machine(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = running(api, driver, storage_policy="preserve")
    api.post(f"/sessions/{session_id}/done")

    def stopped_meanwhile(request: Any, call: int) -> Answer:
        before = market.raw("GET", request.path_url, None, dict(request.headers))
        drive.drive_rental(Rental.objects.get().id)
        assert Rental.objects.get().state == Debt.PRESERVED
        return before

    with on_the_wire(market, (*LISTING, stopped_meanwhile)):
        driver.sweep_now()
    assert (Rental.objects.get().state, Rental.objects.get().gpu_rate) == (Debt.PRESERVED, None)
    assert not Event.objects.filter(reason="it was seen running again").exists()


def test_nothing_is_asked_for_after_the_end(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """The broker was down from before the create until after the session's end."""
    session_id = api.create(reservation_hours=1)["session"]["id"]
    time.advance(hours=2)
    drive.drive_rental(Rental.objects.get().id)
    assert market.ledger() == []
    driver.until_status(session_id, "stopped")
    assert Rental.objects.get().state == Debt.CLOSED
    assert market.ledger() == []


@pytest.mark.parametrize("column", ["dph_base", "storage_total_cost"])
def test_an_absurd_rate_keeps_no_orphan_alive(
    market: SandboxProcess, driver: Driver, time: MovableClock, settings: Any, column: str
) -> None:
    settings.ORPHAN_GRACE_SECONDS = 1
    market.foreign(make_label(deployment_id(), "sess-aaaaaaaaaaaaaaaa", 1))
    with on_the_wire(market, (*LISTING, changed(market, lambda machine: machine.update({column: 5e13})))):
        driver.sweep_now()
        time.advance(seconds=5)
        driver.sweep_now()
    driver.until(lambda: market.alive() == [])
    assert ProviderWatch.objects.get().failures_in_a_row == 0


def test_destroys_do_not_wait_behind_looks_that_fail(
    market: SandboxProcess, driver: Driver, time: MovableClock
) -> None:
    """What machines have cost is asked before their end, but not of a provider that does not answer."""
    long_ago = clock.now() - timedelta(hours=1)
    rentals = []
    for number in range(3):
        session = make_session(Status.STOPPING, end_reason="done", offer_id=f"vastai-{number}")
        label = make_label(deployment_id(), session.id, 1)
        machine = str(market.foreign(label))
        times = dict.fromkeys(("created_at", "accepted_at", "destroy_requested_at", "next_check_at"), long_ago)
        rentals.append(make_rental(session, Debt.DESTROYING, label=label, instance_id=machine, **times).id)
    with on_the_wire(market, (*ONE, lambda request, call: (500, {}, "<html>oops</html>"))) as looks:
        reap.pay_all("vastai", rentals)
        assert looks == [1]
    assert market.alive() == []
    assert Rental.objects.filter(destroy_answered_at__isnull=False).count() == 3


def test_a_rekey_that_is_refused_leaves_no_key_behind(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = running(api, driver)
    before = market.alive()[0]["keys"]
    Session.objects.update(ssh_port=1)
    answer = api.post(f"/sessions/{session_id}/rekey", {"ssh_key_type": "ed25519"}, 503, Prefer="wait=1")
    assert answer["error"].endswith("its key was not changed")
    assert market.alive()[0]["keys"] == before


# -- money ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tensordock(market: SandboxProcess, settings: Any) -> SandboxProcess:
    settings.TENSORDOCK_API_TOKEN = "sandbox-tensordock-token"
    settings.TENSORDOCK_BASE_URL = market.tensordock_url
    configured.configured.cache_clear()
    refresh_offers("tensordock")
    snapshot.forget()
    return market


def tensordock_offer() -> str:
    return str(Offer.objects.filter(provider="tensordock", withdrawn_at__isnull=True).order_by("price_per_hour")[0].id)


def test_a_machine_found_late_is_billed_from_its_order(
    tensordock: SandboxProcess, api: Api, time: MovableClock
) -> None:
    """The create's answer was lost with everything of ours; TensorDock bills from the order."""
    driver = Driver("tensordock")
    tensordock.fault("lost_answer")
    api.create(offer_id=tensordock_offer())
    drive.drive_rental(Rental.objects.get().id)
    assert Rental.objects.get().state == Debt.UNKNOWN
    time.advance(minutes=50)
    driver.until(lambda: MeterSegment.objects.filter(kind="gpu").exists())
    sent = Rental.objects.get().create_sent_at
    assert sent is not None
    for segment in MeterSegment.objects.order_by("kind"):
        assert abs(segment.started_at - sent) < timedelta(seconds=5), segment.kind


def test_a_machine_that_no_listing_saw_is_billed_from_its_order(
    tensordock: SandboxProcess, api: Api, time: MovableClock
) -> None:
    """Accepted, and given back before the first listing."""
    session_id = api.create(offer_id=tensordock_offer())["session"]["id"]
    drive.drive_rental(Rental.objects.get().id)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    time.advance(seconds=40)
    for _ in range(3):
        drive.drive_rental(Rental.objects.get().id)
    rental = Rental.objects.get()
    assert rental.state == Debt.CLOSED
    segment = MeterSegment.objects.get(kind="gpu")
    assert segment.ended_at is not None
    assert segment.ended_at - segment.started_at >= timedelta(seconds=39)
    assert segment.rate_per_hour == Session.objects.get().price_per_hour
