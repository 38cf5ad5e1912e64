"""Two things at one moment: each of these once leaked a machine, hung a session, billed for nothing or locked up.

Those marked ``postgresql`` are about row locks, which SQLite has not.
"""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import paramiko
import pytest

from billing.models import MeterSegment
from gpubroker.common import clock, sshkeys
from offers import services as offers
from offers.models import Offer
from providers.base import Created, OfferListing, Phase
from providers.errors import OutcomeUnknown
from providers.vastai import VastAI
from sessions_app import drive, launch, meter, reap, transitions, verify
from sessions_app.ending import close_rental, end_session
from sessions_app.models import Rental, Session
from sessions_app.states import Debt, EndReason
from tests.harness import (
    Api,
    BackgroundDriver,
    Driver,
    MovableClock,
    cheapest_offer,
    describe,
    offers_on_different_machines,
)
from tests.interleave import Answer, Elsewhere, before_sql, on_the_wire
from tests.sandbox import SandboxProcess

TOO_MANY: Answer = (429, {}, json.dumps({"detail": "API requests too frequent endpoint threshold=0.1"}))
NO_SUCH: Answer = (404, {}, json.dumps({"success": False, "error": "no_such_instance", "msg": "Instance not found."}))
UNKNOWN_INSTANCE: Answer = (200, {}, json.dumps({"instances": None}))
FORBIDDEN: Answer = (403, {}, json.dumps({"success": False, "error": "auth_error", "msg": "This key may not."}))


def test_no_create_leaves_us_after_delete(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]

    def deleted_meanwhile(request: Any, call: int) -> Answer:
        api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
        return TOO_MANY

    with on_the_wire(market, ("PUT", r"/api/v0/asks/\d+/", deleted_meanwhile)) as calls:
        driver.until(lambda: Session.objects.get(id=session_id).status == "stopped")
    assert calls == [1]
    assert market.ledger() == []


def test_address_that_arrives_during_attach_is_not_forgotten(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("ssh_delay", seconds=2)
    session_id = api.create()["session"]["id"]
    drive.drive_rental(Rental.objects.get(session_id=session_id).id)
    assert Rental.objects.get(session_id=session_id).ssh_endpoints == []

    def address_comes_meanwhile(request: Any, call: int) -> None:
        if call == 1:
            while not Rental.objects.get(session_id=session_id).ssh_endpoints:
                clock.pause(0.1)
                driver.sweep_now()

    with on_the_wire(market, ("POST", r"/api/v0/instances/\d+/ssh/", address_comes_meanwhile)):
        drive.drive_session(session_id)
    session = Session.objects.get(id=session_id)
    assert session.next_check_at is not None
    assert session.next_check_at - clock.now() < timedelta(seconds=11)


def test_no_meter_runs_on_after_the_rental_closed(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = api.create()["session"]["id"]
    driver.round()
    while market.alive()[0]["state"] != "running":
        clock.pause(0.05)

    def ended_meanwhile() -> None:
        api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
        while Rental.objects.get(session_id=session_id).state != Debt.CLOSED:
            reap.pay(Rental.objects.get(session_id=session_id))

    with before_sql(
        r"SELECT .+ AS .id. FROM .sessions_app_rental. WHERE .+.id. IN .+ AND .+state. IN", ended_meanwhile
    ) as happened:
        driver.sweep_now()
    assert happened
    assert Session.objects.get(id=session_id).status == "stopped"
    before = api.get("/costs", session_id=session_id)
    time.advance(days=10)
    assert not MeterSegment.objects.filter(session_id=session_id, ended_at__isnull=True).exists()
    assert api.get("/costs", session_id=session_id) == before


@pytest.mark.parametrize("end", ["offline", "stopped"])
def test_dead_or_stopped_machine_ends_the_session_although_its_change_was_missed(
    market: SandboxProcess, api: Api, driver: Driver, end: str
) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    machine = market.alive()[0]["id"]
    if end == "stopped":
        assert market.api("PUT", f"/api/v0/instances/{machine}/", {"state": "stopped"})[0] == 200
    else:
        market.machine_dies(machine)
    listed = Phase.STOPPED if end == "stopped" else Phase.FAILED
    Rental.objects.update(phase=listed)  # noted while the session was still provisioning
    driver.sweep_now()
    assert driver.until_status(session_id, "failed").end_reason == "provider_lost"
    assert market.alive() == []


def test_verified_but_dead_does_not_run(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until(lambda: bool(Rental.objects.get(session_id=session_id).ssh_endpoints))

    def dies_meanwhile() -> None:
        market.machine_dies(market.alive()[0]["id"])
        Rental.objects.filter(session_id=session_id).update(phase=Phase.FAILED)

    with before_sql(r"SELECT .+ AS .id. FROM .sessions_app_rental. .+phase", dies_meanwhile) as happened:
        driver.until_status(session_id, "failed")
    assert happened
    assert Session.objects.get(id=session_id).end_reason == "boot_failed"
    assert market.alive() == []


def test_gone_machine_is_proved_although_destroys_are_refused(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    machine = market.alive()[0]["id"]
    with on_the_wire(market, ("DELETE", r"/api/v0/instances/\d+/", lambda request, call: FORBIDDEN)):
        api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
        driver.round()
        assert Session.objects.get(id=session_id).status == "stopping"
        # a person deletes it in the vendor's console
        assert market.api("DELETE", f"/api/v0/instances/{machine}/", {})[0] == 200
        time.advance(minutes=10)
        driver.round()
    assert Session.objects.get(id=session_id).status == "stopped", describe()


def test_fresh_machine_that_the_provider_does_not_know_yet_is_not_proved_gone(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = api.create()["session"]["id"]
    drive.drive_rental(Rental.objects.get(session_id=session_id).id)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")

    def not_yet(answer: Answer) -> Any:
        return lambda request, call: answer if call == 1 else None

    one = r"/api/v0/instances/\d+/"
    routes = ("DELETE", one, not_yet(NO_SUCH)), ("GET", one, not_yet(UNKNOWN_INSTANCE))
    with on_the_wire(market, *routes) as destroys:
        drive.drive_rental(Rental.objects.get(session_id=session_id).id)
        assert Rental.objects.get(session_id=session_id).state == Debt.DESTROYING
        time.advance(seconds=20)
        driver.until_status(session_id, "stopped")
    assert len(destroys) >= 2
    assert market.alive() == []


def test_adopted_machine_costs_from_its_contract(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """The answer is lost, nothing of the broker runs for half an hour, then the machine is found."""
    market.fault("lost_answer", operation="create")
    session_id = api.create()["session"]["id"]
    drive.drive_rental(Rental.objects.get(session_id=session_id).id)
    assert Rental.objects.get(session_id=session_id).state == Debt.UNKNOWN
    clock.pause(1)
    time.advance(minutes=30)
    market.advance(1800)
    driver.until_status(session_id, "running")
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    ours, theirs = api.get("/costs", session_id=session_id), market.ledger()[0]
    assert ours["gpu_cost"] == pytest.approx(theirs["gpu_dollars"], rel=0.01)
    assert ours["storage_cost"] == pytest.approx(theirs["disk_dollars"], rel=0.01)


def test_machine_that_began_to_run_while_we_were_down(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    market.settings(boot_seconds=1.0)
    session_id = api.create(reservation_hours=1)["session"]["id"]
    driver.round()
    assert Session.objects.get(id=session_id).status == "provisioning"
    clock.pause(1.5)
    time.advance(minutes=5)
    market.advance(300)
    driver.until_status(session_id, "running")
    time.advance(minutes=50)
    market.advance(3000)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    ours, theirs = api.get("/costs", session_id=session_id), market.ledger()[0]
    assert ours["gpu_cost"] == pytest.approx(theirs["gpu_dollars"], rel=0.01)


def test_unknown_is_not_given_up_by_a_faster_clock(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    market.fault("listing_lag", operation="create", seconds=10)
    market.fault("lost_answer", operation="create")
    session_id = api.create()["session"]["id"]
    driver.until(lambda: Rental.objects.get(session_id=session_id).lookups >= 1)
    time.advance(seconds=90)  # the next look-ups fall to a host whose clock is ahead
    for _ in range(2):
        drive.drive_rental(Rental.objects.get(session_id=session_id).id)
    assert Rental.objects.get(session_id=session_id).state == Debt.UNKNOWN


@pytest.mark.django_db(transaction=True)
def test_refused_launch_is_not_answered_201(market_with_threads: SandboxProcess, api: Api) -> None:
    market_with_threads.fault("success_false", operation="create", contract=True)
    with BackgroundDriver():
        answer = api.create(400, wait=20, offer_id=cheapest_offer())
    assert answer["error_type"] == "refused"
    assert "ssh_private_key" not in answer


def test_late_answer_for_a_closed_rental_leaves_its_machine_to_the_sweep(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, settings: Any
) -> None:
    """The lease ran out, the label was nowhere, the session failed; then the answer arrives after all."""
    session_id = api.create()["session"]["id"]
    rental = Rental.objects.get(session_id=session_id)
    launch.fail_create(rental, EndReason.CREATE_LOST, "not found")
    machine = market.foreign(rental.label)
    launch.apply_created(rental, Created(str(machine)))
    rental.refresh_from_db()
    assert (rental.state, rental.instance_id) == (Debt.CLOSED, "")
    driver.sweep_now()
    time.advance(seconds=settings.ORPHAN_GRACE_SECONDS + 1)
    driver.sweep_now()
    driver.until(lambda: market.alive() == [])


# -- SSH servers that hold on to whoever asks them ------------------------------------------------------


class HoldingServer(paramiko.ServerInterface):
    """Lets everybody in and then either never answers an exec, or answers a byte now and then for ever."""

    def __init__(self, drips: bool) -> None:
        self.drips = drips

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if not self.drips:
            threading.Event().wait(60)
            return False
        threading.Thread(target=self._drip, args=(channel,), daemon=True).start()
        return True

    def _drip(self, channel: paramiko.Channel) -> None:
        while not channel.closed:
            threading.Event().wait(0.2)
            try:
                channel.send(b"x")
            except (OSError, EOFError, paramiko.SSHException):
                return


@pytest.mark.parametrize("drips", [False, True])
def test_verification_ends_whatever_the_server_does(drips: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TOTAL_SECONDS", 1.5)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        transport = paramiko.Transport(listener.accept()[0])
        transport.daemon = True
        transport.add_server_key(paramiko.RSAKey.generate(2048))
        transport.start_server(event=threading.Event(), server=HoldingServer(drips))

    threading.Thread(target=serve, daemon=True).start()
    key = sshkeys.generate("ed25519", "x").private
    endpoint = verify.Endpoint("127.0.0.1", listener.getsockname()[1], "root")
    outcome: list[str] = []

    def ask() -> None:
        try:
            verify.verify([endpoint], key, verify.Promise(1, 1))
        except verify.NotYet as error:
            outcome.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(15)
    assert len(outcome) == 1
    listener.close()


# -- locks and numbers on PostgreSQL -------------------------------------------------------------------


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_no_deadlock_between_delete_and_a_lost_answer(market_with_threads: SandboxProcess, api: Api) -> None:
    session_id = api.create()["session"]["id"]
    rental = Rental.objects.select_related("session").get(session_id=session_id)
    transitions.move_rental(rental, {Debt.INTENDED}, Debt.CREATING, quiet=True, create_sent_at=clock.now())
    assert rental.session is not None
    delete = Elsewhere(lambda: end_session(session_id, EndReason.DELETED))
    with before_sql(r"INSERT INTO .sessions_app_event", delete.start) as happened:
        launch._not_created(rental, OutcomeUnknown("lost", provider="vastai", operation="create"))
    delete.finish()
    assert happened
    assert Session.objects.get(id=session_id).status == "stopping"
    assert Rental.objects.get(id=rental.id).state == Debt.UNKNOWN


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_no_deadlock_between_withdraw_and_refresh(market_with_threads: SandboxProcess) -> None:
    offer = Offer.objects.filter(withdrawn_at__isnull=True).order_by("id").first()
    assert offer is not None
    listing = VastAI.list_offers(provider())
    withdrawing = Elsewhere(lambda: offers.withdraw(offer.id, "gone at create"))
    with before_sql(r"UPDATE .offers_offer", withdrawing.start) as happened:
        assert offers.apply_listing("vastai", listing, clock.now()).outcome == "applied"
    withdrawing.finish()
    assert happened
    assert Offer.objects.get(id=offer.id).available is False


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_no_deadlock_between_meter_and_close(market_with_threads: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    rental = Rental.objects.select_related("session").get(session_id=session_id)
    end_session(session_id, EndReason.DELETED)
    closing = Elsewhere(lambda: close_rental(rental, {Debt.DESTROYING}, {"call": "get", "answer": "gone"}))
    with before_sql(r"INSERT INTO .billing_metersegment", closing.start) as happened:
        meter.run(rental, "gpu", Decimal("0.77"), clock.now())
    closing.finish()
    assert happened
    assert not MeterSegment.objects.filter(ended_at__isnull=True).exists()


@pytest.mark.postgresql
def test_one_absurd_rate_does_not_stop_the_sweep(market: SandboxProcess, api: Api, driver: Driver) -> None:
    ids = [api.create(offer_id=offer)["session"]["id"] for offer in offers_on_different_machines(2)]
    for session_id in ids:
        driver.until_status(session_id, "running")

    def absurd(request: Any, call: int) -> Answer:
        headers = {"Accept": "application/json", "Authorization": "Bearer sandbox-key"}
        status, _, text = market.raw("GET", request.path_url, None, headers)
        body = json.loads(text)
        body["instances"][0] |= {"dph_base": 1e7, "dph_total": 1e7}
        return status, {}, json.dumps(body)

    with on_the_wire(market, ("GET", r"/api/v1/instances/.*", absurd)):
        assert driver.sweep_now() is not None
    assert {session.status for session in Session.objects.filter(id__in=ids)} == {"running"}


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "change",
    [
        {"price_per_hour": Decimal(5_000_000)}, {"gpu_count": 40_000}, {"vram_mb": 2**31}, {"cuda_version": 12345.0},
        {"cpu_cores": 1e7}, {"ram_gb": 1e9}, {"max_duration_hours": 1e12}, {"location": "x" * 200},
        {"compute_capability": "1" * 20}, {"gpu_name_raw": "RTX " + "9" * 300}, {"machine_id": "7" * 90},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_one_absurd_offer_does_not_stop_the_inventory(market: SandboxProcess, change: dict[str, Any]) -> None:
    listing = VastAI.list_offers(provider())
    listing = OfferListing((replace(listing.offers[0], **change), *listing.offers[1:]), listing.listed_at)
    result = offers.apply_listing("vastai", listing, clock.now())
    assert result.outcome == "applied"
    assert Offer.objects.filter(withdrawn_at__isnull=True).count() >= len(listing.offers) - 1


@pytest.mark.postgresql
@pytest.mark.parametrize("path", ["/sessions/%00", "/inventory/vastai-%00", "/templates/%00"])
def test_nul_in_a_path_is_404(market: SandboxProcess, api: Api, path: str) -> None:
    assert api.client.get(f"/api/v1{path}").status_code == 404


def provider() -> VastAI:
    from gpubroker.common import providers as configured

    found = configured.get("vastai")
    assert isinstance(found, VastAI)
    return found


def test_a_vendor_whose_clock_is_wrong_does_not_make_the_machine_free(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    market.advance(86_400)
    session_id = api.create()["session"]["id"]
    driver.until_metered(session_id)
    time.advance(hours=1)
    costs = api.get("/costs", session_id=session_id)
    assert costs["hours_used"] == pytest.approx(1, rel=0.01)
    price = Session.objects.get(id=session_id).price_per_hour
    assert costs["gpu_cost"] == pytest.approx(float(price), rel=0.01)
