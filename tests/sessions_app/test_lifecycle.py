"""A session's life against the sandbox: real HTTP, real SSH, and the marketplace's own ledger as the judge."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from offers import services
from offers.models import Offer
from sessions_app import sweep
from sessions_app.models import Event, Rental, Session
from sessions_app.states import Debt
from tests.harness import Api, Driver, MovableClock, cheapest_offer
from tests.sandbox import SandboxProcess


def moves(session_id: str, kind: str) -> list[tuple[str, str]]:
    rows = Event.objects.filter(session_id=session_id, kind=kind).order_by("id")
    return [(row.from_state, row.to_state) for row in rows]


def test_rented_verified_given_back(market: SandboxProcess, api: Api, driver: Driver) -> None:
    created = api.create()
    session_id = created["session"]["id"]
    assert created["ssh_private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert created["session"]["status"] == "pending"
    assert market.alive() == []  # I1: it is in our books before the vendor hears of it
    rental = Rental.objects.get(session_id=session_id)
    assert rental.state == Debt.INTENDED
    assert rental.label == f"gpb-testdep-{session_id.removeprefix('sess-')}-1"

    session = driver.until_status(session_id, "running")
    machine = market.alive()[0]
    assert machine["label"] == rental.label
    assert str(machine["id"]) == Rental.objects.get(session_id=session_id).instance_id
    assert len(machine["keys"]) == 2
    assert (session.ssh_host, session.ssh_user) == ("127.0.0.1", "root")
    assert session.ssh_port in machine["ssh_ports"]

    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    session = driver.until_status(session_id, "stopped")
    assert session.end_reason == "deleted"
    assert market.alive() == []
    assert api.delete(f"/sessions/{session_id}") == {"message": "session destroyed", "session_id": session_id}
    assert moves(session_id, "session") == [
        ("", "pending"),
        ("pending", "provisioning"),
        ("provisioning", "running"),
        ("running", "stopping"),
        ("stopping", "stopped"),
    ]
    assert moves(session_id, "rental") == [("creating", "live"), ("live", "destroying"), ("destroying", "closed")]


def test_closed_only_with_a_proof_and_without_our_key(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    assert Rental.objects.get(session_id=session_id).broker_key_sealed != ""
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    rental = Rental.objects.get(session_id=session_id)
    assert rental.proof is not None
    assert rental.proof["call"] == f"get instance {rental.instance_id}"
    assert rental.proof["answer"] == "the provider has no such machine"
    assert rental.broker_key_sealed == ""
    assert Session.objects.get(id=session_id).end_reason == "done"


def test_done_twice_while_stopping_and_409_when_over(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    expected = {"message": "session shutdown initiated", "session_id": session_id}
    assert api.post(f"/sessions/{session_id}/done") == expected
    assert api.post(f"/sessions/{session_id}/done") == expected
    driver.until_status(session_id, "stopped")
    before = Event.objects.count()
    assert api.post(f"/sessions/{session_id}/done", status=409)["error"] == f"session {session_id} is already stopped"
    assert Event.objects.count() == before


def test_expiry_ends_it(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock) -> None:
    session_id = api.create(reservation_hours=1)["session"]["id"]
    driver.until_status(session_id, "running")
    time.advance(minutes=59)
    driver.round()
    assert Session.objects.get(id=session_id).status == "running"
    time.advance(minutes=1)
    session = driver.until_status(session_id, "stopped")
    assert session.end_reason == "expired"
    assert market.alive() == []


def test_pending_ended_before_anything_was_asked(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    assert api.delete(f"/sessions/{session_id}")["message"] == "session destroyed"
    driver.round()
    assert market.ledger() == []
    rental = Rental.objects.get(session_id=session_id)
    assert rental.proof is not None
    assert (rental.state, rental.proof["answer"]) == (Debt.CLOSED, "the provider was never asked")


def test_ended_while_booting(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("boot_never")
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "provisioning")
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    assert driver.until_status(session_id, "stopped").end_reason == "deleted"
    assert market.alive() == []


def test_second_session_on_the_same_offer_is_refused(market: SandboxProcess, api: Api) -> None:
    offer = cheapest_offer()
    first = api.create(offer_id=offer)["session"]["id"]
    answer = api.create(409, offer_id=offer)
    assert answer["session_id"] == first
    assert Session.objects.count() == 1
    assert Rental.objects.count() == 1


@pytest.mark.parametrize("shape", ["400", "404", "410"])
def test_offer_gone_in_every_shape(market: SandboxProcess, api: Api, driver: Driver, shape: str) -> None:
    offer = cheapest_offer()
    market.fault("offer_gone", shape=shape)
    session_id = api.create(offer_id=offer)["session"]["id"]
    session = driver.until_status(session_id, "failed")
    assert session.end_reason == "offer_gone"
    assert Offer.objects.get(id=offer).withdrawn_reason == "gone at create"
    assert api.get(f"/inventory/{offer}", 404)["offer_id"] == offer
    assert market.ledger() == []


def test_no_credit_fails_at_once(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("insufficient_credit")
    session_id = api.create()["session"]["id"]
    assert driver.until_status(session_id, "failed").end_reason == "no_credit"
    assert market.ledger() == []


@pytest.mark.parametrize("fault", ["lost_answer", "error_after", "truncated_json"])
def test_lost_answer_is_found_by_its_label(market: SandboxProcess, api: Api, driver: Driver, fault: str) -> None:
    """I2: the machine exists although the create failed; it is found, not rented twice."""
    market.fault(fault, operation="create")
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    assert len(market.ledger()) == 1
    assert moves(session_id, "rental")[:2] == [("creating", "unknown"), ("unknown", "live")]
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    assert market.alive() == []


def test_lost_answer_that_listings_show_late(market: SandboxProcess, api: Api, driver: Driver, settings: Any) -> None:
    market.fault("listing_lag", operation="create", seconds=3)
    market.fault("lost_answer", operation="create")
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running", 25)
    assert len(market.ledger()) == 1
    assert Rental.objects.get(session_id=session_id).lookups >= 1


def test_create_that_never_happened_is_given_up_only_after_the_lag(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    market.fault("error_5xx", operation="create")
    session_id = api.create()["session"]["id"]
    driver.until(lambda: Rental.objects.get(session_id=session_id).lookups >= 2)
    time.advance(seconds=30)
    driver.until(lambda: Rental.objects.get(session_id=session_id).lookups >= 3)
    assert Rental.objects.get(session_id=session_id).state == Debt.UNKNOWN
    time.advance(seconds=60)
    for _ in range(3):
        driver.round()
        time.advance(seconds=10)
    session = driver.until_status(session_id, "failed")
    assert session.end_reason == "create_lost"
    assert market.ledger() == []


def test_ended_while_the_answer_is_lost(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("listing_lag", operation="create", seconds=2)
    market.fault("lost_answer", operation="create")
    session_id = api.create()["session"]["id"]
    driver.until(lambda: Rental.objects.get(session_id=session_id).state == Debt.UNKNOWN)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    assert Session.objects.get(id=session_id).status == "stopping"
    assert driver.until_status(session_id, "stopped").end_reason == "deleted"
    assert len(market.ledger()) == 1
    assert market.alive() == []


def test_low_bid_leftover_is_destroyed(market: SandboxProcess, api: Api, driver: Driver) -> None:
    """``success: false`` with a contract: it bills for its disk until destroyed."""
    market.fault("success_false", operation="create", contract=True)
    session_id = api.create()["session"]["id"]
    assert driver.until_status(session_id, "failed").end_reason == "refused"
    assert len(market.ledger()) == 1
    assert market.alive() == []


@pytest.mark.parametrize(
    ("fault", "params", "reason"),
    [
        ("boot_error", {"mode": "oci"}, "boot_failed"),
        ("boot_error", {"mode": "pull"}, "boot_failed"),
        ("boot_exited", {}, "boot_failed"),
        ("wrong_gpu", {}, "wrong_machine"),
    ],
)
def test_bad_machines_are_given_back(
    market: SandboxProcess, api: Api, driver: Driver, fault: str, params: dict[str, Any], reason: str
) -> None:
    market.fault(fault, **params)
    session_id = api.create()["session"]["id"]
    session = driver.until_status(session_id, "failed")
    assert session.end_reason == reason
    assert session.end_message != ""
    assert market.alive() == []


@pytest.mark.parametrize(("fault", "phase"), [("boot_never", "booting"), ("no_ssh", "running")])
def test_boot_deadline(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, settings: Any, fault: str, phase: str
) -> None:
    market.fault(fault)
    session_id = api.create()["session"]["id"]
    driver.until(lambda: Rental.objects.get().phase == phase)
    time.advance(seconds=settings.SSH_VERIFY_SECONDS - 30)
    driver.round()
    assert Session.objects.get(id=session_id).status == "provisioning"
    time.advance(seconds=31)
    assert driver.until_status(session_id, "failed").end_reason == "boot_timeout"
    assert market.alive() == []


def test_late_ssh_is_waited_for(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("ssh_delay", seconds=1.5)
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    assert Rental.objects.get(session_id=session_id).verify_failures >= 1


@pytest.mark.parametrize("mode", ["silent", "error"])
def test_refused_destroys_never_give_up(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, mode: str
) -> None:
    """I6: no exit from ``destroying`` but a proof, and the books keep counting."""
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    market.fault("refuse_destroy", mode=mode, times=-1)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    for _ in range(6):
        time.advance(minutes=10)
        driver.round()
    rental = Rental.objects.get(session_id=session_id)
    assert rental.state == Debt.DESTROYING
    assert rental.destroy_attempts + rental.destroy_failures >= 4
    assert Session.objects.get(id=session_id).status == "stopping"
    market.clear_faults()
    for _ in range(3):
        time.advance(minutes=30)
        driver.round()
    driver.until_status(session_id, "stopped")
    assert market.alive() == []


def test_machine_that_dies_while_running(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    machine = market.alive()[0]["id"]
    market.machine_dies(machine)
    driver.sweep_now()
    session = driver.until_status(session_id, "failed")
    assert session.end_reason == "provider_lost"
    assert market.alive() == []


def test_ghost_needs_two_complete_listings_and_a_direct_look(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """I5: lists that lack a machine prove nothing alone; the direct look finds it alive."""
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    time.advance(minutes=1)
    market.fault("empty_listing", times=3)
    for expected in (1, 2, 3):
        driver.sweep_now()
        assert Rental.objects.get(session_id=session_id).missing_listings == expected
        assert Session.objects.get(id=session_id).status == "running"
    driver.sweep_now()
    assert Rental.objects.get(session_id=session_id).missing_listings == 0
    destroyed_behind_our_back(market)
    driver.sweep_now()
    assert Session.objects.get(id=session_id).status == "running"
    driver.sweep_now()
    session = Session.objects.get(id=session_id)
    assert (session.status, session.end_reason) == ("failed", "provider_lost")


def destroyed_behind_our_back(market: SandboxProcess) -> None:
    for machine in market.alive():
        assert market.api("DELETE", f"/api/v0/instances/{machine['id']}/", {})[0] == 200


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error_5xx", "operation": "list"},
        {"kind": "malformed", "operation": "list"},
        {"kind": "truncated_json", "operation": "list"},
        {"kind": "auth_error", "operation": "list"},
        {"kind": "rate_limited", "operation": "list"},
    ],
)
def test_failed_listings_prove_nothing(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, fault: dict[str, Any]
) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    time.advance(minutes=1)
    rental = Rental.objects.get(session_id=session_id)
    kind = fault["kind"]
    market.fault(kind, operation="list", times=-1)
    for _ in range(3):
        assert driver.sweep_now() is None
    market.clear_faults()
    after = Rental.objects.get(session_id=session_id)
    assert (after.state, after.missing_listings, after.last_seen_at) == (rental.state, 0, rental.last_seen_at)
    assert Session.objects.get(id=session_id).status == "running"


def test_orphan_is_destroyed_after_its_grace(
    market: SandboxProcess, driver: Driver, time: MovableClock, settings: Any
) -> None:
    label = "gpb-testdep-aaaaaaaaaaaaaaaa-1"
    market.foreign(label)
    result = driver.sweep_now()
    assert isinstance(result, sweep.Sweep)
    assert (result.orphans, result.orphans_destroyed) == (1, 0)
    time.advance(seconds=settings.ORPHAN_GRACE_SECONDS - 5)
    driver.sweep_now()
    assert len(market.alive()) == 1
    time.advance(seconds=10)
    driver.sweep_now()
    driver.until(lambda: market.alive() == [])
    driver.until(lambda: not Rental.objects.exclude(state=Debt.CLOSED).exists())
    orphan = Rental.objects.get(label=label)
    assert (orphan.origin, orphan.session_id) == ("orphan", None)


def test_machines_of_others_are_never_touched(market: SandboxProcess, driver: Driver, time: MovableClock) -> None:
    """I4: another deployment's label, a label like ours, and none at all."""
    labels = ["gpb-testdep2-aaaaaaaaaaaaaaaa-1", "gpb-testdep-aaaaaaaaaaaaaaaa-1 ", "testdep", None, ""]
    for label in labels:
        market.foreign(label)
    for _ in range(3):
        time.advance(days=1)
        result = driver.sweep_now()
        assert isinstance(result, sweep.Sweep)
        assert (result.machines, result.ours, result.orphans) == (5, 0, 0)
        driver.round()
    assert len(market.alive()) == 5
    assert Rental.objects.count() == 0


def test_rate_limited_create_is_sent_again_later(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    market.fault("rate_limited", operation="create", threshold=4.5)
    session_id = api.create()["session"]["id"]
    driver.until(lambda: Rental.objects.get(session_id=session_id).last_error != "")
    rental = Rental.objects.get(session_id=session_id)
    assert (rental.state, market.ledger()) == (Debt.INTENDED, [])
    time.advance(seconds=5)
    driver.until_status(session_id, "running")
    assert len(market.ledger()) == 1


def test_cost_agrees_with_the_marketplace(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock) -> None:
    """I11 over two hours, on both clocks moved together: GPU and disk apart, within 1 %."""
    session_id = api.create(reservation_hours=3, disk_gb=100)["session"]["id"]
    driver.until_metered(session_id)
    time.advance(hours=2)
    market.advance(7200)
    running = api.get("/costs", session_id=session_id)
    assert running["hours_used"] == pytest.approx(2, rel=0.01)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    ours = api.get("/costs", session_id=session_id)
    theirs = market.ledger()[0]
    assert ours["gpu_cost"] == pytest.approx(theirs["gpu_dollars"], rel=0.01)
    assert ours["storage_cost"] == pytest.approx(theirs["disk_dollars"], rel=0.01)
    assert ours["total_cost"] == pytest.approx(theirs["total_dollars"], rel=0.01)
    time.advance(hours=5)
    assert api.get("/costs", session_id=session_id) == ours
    offer = Offer.objects.get(id=Session.objects.get(id=session_id).offer_id)
    assert Decimal(str(ours["gpu_cost"])) == pytest.approx(offer.price_per_hour * 2, rel=Decimal("0.01"))


def test_a_rented_offer_leaves_the_inventory_and_is_fetched_anew(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """A newcomer who rents the cheapest offer twice within a minute must not meet a stale one."""
    offer = cheapest_offer()
    session_id = api.create(offer_id=offer)["session"]["id"]
    driver.until_status(session_id, "running")
    assert Offer.objects.get(id=offer).withdrawn_reason == "rented"
    time.advance(seconds=11)
    assert services.claim_due_fetches() == ["vastai"]


def test_a_fetch_under_way_is_not_doubled(market: SandboxProcess, time: MovableClock) -> None:
    time.advance(seconds=61)
    assert services.claim_due_fetches() == ["vastai"]
    services.refresh_soon("vastai")
    time.advance(seconds=11)
    assert services.claim_due_fetches() == []
