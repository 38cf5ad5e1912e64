"""An attempt fails, and the session goes on with another machine: never with two, and never after its end."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.models import Counter
from offers import failures
from offers import services as offers
from offers.models import Offer, OfferFailure, OfferSuccess
from providers.base import Instance, OfferListing, Phase, SSHEndpoint
from sessions_app import attempts, drive, launch, proved, sightings
from sessions_app.ending import end_session
from sessions_app.models import Event, Rental, Session
from sessions_app.states import OPEN, Debt, EndReason
from tests.harness import Api, BackgroundDriver, Driver, MovableClock, describe
from tests.interleave import Answer, Elsewhere, before_sql, on_the_wire
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess


def first_choice() -> str:
    """The cheapest single RTX 4090 whose machine takes direct connections: the market has several of them."""
    found = Offer.objects.filter(withdrawn_at__isnull=True, gpu_key="rtx4090", gpu_count=1, disk_gb__gte=100)
    return next(offer.id for offer in found.order_by("price_per_hour") if offer.raw.get("direct_port_count"))


def begin(api: Api, **changes: Any) -> str:
    fields = {"offer_id": first_choice(), "auto_retry": True, **changes}
    return str(api.create(**fields)["session"]["id"])


def rentals(session_id: str) -> list[Rental]:
    return list(Rental.objects.filter(session_id=session_id).order_by("attempt"))


def attempts_seen(session_id: str) -> list[tuple[int, str, str]]:
    return [(rental.attempt, rental.state, rental.failure) for rental in rentals(session_id)]


def never_two_at_once(market: SandboxProcess) -> bool:
    """By the marketplace's ledger: each machine was gone before the next one was made (I3)."""
    made = sorted(market.ledger(), key=lambda contract: float(contract["created_at"]))
    return all(a["destroyed_at"] <= b["created_at"] for a, b in itertools.pairwise(made))


def moves(session_id: str) -> list[str]:
    return list(Event.objects.filter(session_id=session_id, kind="session").order_by("id").values_list(
        "to_state", flat=True
    ))  # fmt: skip


def counted(name: str) -> int:
    return sum(int(value) for value in Counter.objects.filter(name=name).values_list("value", flat=True))


def over(api: Api, driver: Driver, market: SandboxProcess, session_id: str) -> None:
    """Given back, and nothing left anywhere."""
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    assert market.alive() == []
    assert never_two_at_once(market)
    assert not Rental.objects.filter(state__in=OPEN).exists()


@pytest.mark.parametrize(
    ("fault", "params", "reason"),
    [
        ("boot_error", {"mode": "oci"}, "boot_failed"),
        ("wrong_gpu", {}, "wrong_machine"),
        ("success_false", {"operation": "create", "contract": True}, "refused"),
    ],
)
def test_goes_on_with_another_machine(
    market: SandboxProcess, api: Api, driver: Driver, fault: str, params: dict[str, Any], reason: str
) -> None:
    market.fault(fault, **params)
    session_id = begin(api)
    before = Session.objects.get(id=session_id)
    session = driver.until_status(session_id, "running")
    first, second = rentals(session_id)
    assert (first.state, first.failure, second.state, second.failure) == (Debt.CLOSED, reason, Debt.LIVE, "")
    assert first.machine_id != second.machine_id
    assert session.offer_id == f"vastai-{second.offer_provider_id}" != before.offer_id
    assert (session.gpu_type, session.gpu_count) == (before.gpu_type, before.gpu_count)
    assert (session.expires_at, session.ssh_public_key) == (before.expires_at, before.ssh_public_key)
    assert session.price_per_hour == second.price_asked
    assert first.broker_public_key != second.broker_public_key
    assert session.agent_token_hash != before.agent_token_hash
    assert [contract["label"] for contract in market.ledger()] == [first.label, second.label]
    assert second.label == f"{first.label[:-1]}2"
    assert session.ssh_public_key.split()[1] in str(market.alive()[0]["keys"])
    remembered = OfferFailure.objects.get()
    assert (remembered.offer_id, remembered.machine_id, remembered.reason) == (
        before.offer_id, first.machine_id, reason,
    )  # fmt: skip
    assert OfferSuccess.objects.get().offer_id == session.offer_id
    over(api, driver, market, session_id)


def test_the_timeline_tells_every_attempt(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("boot_exited")
    session_id = begin(api)
    driver.until_status(session_id, "running")
    assert moves(session_id) == ["pending", "provisioning", "pending", "provisioning", "running"]
    events = api.get(f"/sessions/{session_id}/events")["events"]
    told = [event for event in events if event["kind"] in ("attempt_failed", "attempt")]
    assert [event["kind"] for event in told] == ["attempt_failed", "attempt"]
    assert told[0]["details"]["goes_on"] is True
    assert told[0]["details"]["attempt"] == 1
    assert told[1]["details"]["attempt"] == 2
    assert told[1]["details"]["offer_id"] == Session.objects.get(id=session_id).offer_id
    over(api, driver, market, session_id)


@pytest.mark.django_db(transaction=True)
def test_the_create_waits_for_the_second_offer(market_with_threads: SandboxProcess, api: Api) -> None:
    """Somebody takes the offer between search and create: 201 all the same, with the next one."""
    market = market_with_threads
    offer = first_choice()
    assert market.take_offer(offer.removeprefix("vastai-"))
    with BackgroundDriver():
        created = api.create(201, wait=20, offer_id=offer, auto_retry=True)
        session = created["session"]
        assert session["status"] in ("provisioning", "running")
        assert session["offer_id"] != offer
        assert session["price_per_hour"] == float(Offer.objects.get(id=session["offer_id"]).price_per_hour)
        assert created["ssh_private_key"] != ""
        api.delete(f"/sessions/{session['id']}", 200, Prefer="wait=20")
    assert [seen[2] for seen in attempts_seen(session["id"])] == ["offer_gone", ""]
    assert len(market.ledger()) == 1
    assert market.alive() == []


def test_a_boot_that_never_ends_is_left_for_another(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    market.fault("boot_never")
    session_id = begin(api)
    driver.until_status(session_id, "provisioning")
    time.advance(minutes=61)
    driver.until(lambda: len(rentals(session_id)) == 2)
    driver.until_status(session_id, "running")
    assert attempts_seen(session_id) == [(1, "closed", "boot_timeout"), (2, "live", "")]
    over(api, driver, market, session_id)


def test_a_lost_create_is_looked_for_before_another_is_made(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    market.fault("error_5xx", operation="create")
    session_id = begin(api)
    for looks in range(1, launch.LOOKUPS):
        driver.until(lambda looks=looks: Rental.objects.get(session_id=session_id).lookups >= looks)  # type: ignore[misc]
        time.advance(seconds=20)
    driver.until_status(session_id, "running")
    assert attempts_seen(session_id) == [(1, "closed", "create_lost"), (2, "live", "")]
    over(api, driver, market, session_id)


def test_a_machine_that_vanishes_while_it_boots(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("boot_never")
    session_id = begin(api)
    driver.until_status(session_id, "provisioning")
    Rental.objects.update(accepted_at=clock.now() - timedelta(seconds=60))
    assert market.api("DELETE", f"/api/v0/instances/{market.alive()[0]['id']}/", {})[0] == 200
    for _ in range(2):
        driver.sweep_now()
    assert attempts_seen(session_id) == [(1, "closed", "provider_lost")]
    driver.until_status(session_id, "running")
    over(api, driver, market, session_id)


def test_a_machine_that_is_stopped_while_it_boots(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    market.fault("boot_never")
    session_id = begin(api)
    driver.until_status(session_id, "provisioning")
    assert market.api("PUT", f"/api/v0/instances/{market.alive()[0]['id']}/", {"state": "stopped"})[0] == 200
    driver.sweep_now()
    drive.drive_session(session_id)
    assert Session.objects.get(id=session_id).status == "provisioning"
    time.advance(seconds=61)
    driver.until_status(session_id, "running")
    assert attempts_seen(session_id) == [(1, "closed", "boot_failed"), (2, "live", "")]
    over(api, driver, market, session_id)


def test_retries_run_out(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("boot_error", mode="oci", times=-1)
    session_id = begin(api, max_retries=1)
    session = driver.until_status(session_id, "failed")
    assert session.end_reason == "boot_failed"
    assert session.end_message.endswith("(2 attempts made)")
    assert attempts_seen(session_id) == [(1, "closed", "boot_failed"), (2, "closed", "boot_failed")]
    assert never_two_at_once(market)
    assert market.alive() == []
    assert counted("gpu_attempts_failed_total") == 2
    assert counted("gpu_sessions_ended_total") == 1


def test_no_other_offer_fits(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("boot_error", mode="oci")
    offer = Offer.objects.get(id=first_choice())
    session_id = begin(api, offer_id=offer.id, max_price=float(offer.price_per_hour))
    Offer.objects.exclude(id=offer.id).update(price_per_hour=offer.price_per_hour + 1)
    session = driver.until_status(session_id, "failed")
    assert session.end_reason == "boot_failed"
    assert session.end_message.endswith("(1 attempt made; no other offer fits)")
    assert session.next_check_at is None
    assert len(market.ledger()) == 1
    assert market.alive() == []


def test_no_credit_is_not_tried_again(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("insufficient_credit")
    session_id = begin(api)
    assert driver.until_status(session_id, "failed").end_reason == "no_credit"
    assert len(rentals(session_id)) == 1
    assert not OfferFailure.objects.exists()


def test_no_credit_at_one_provider_may_be_tried_at_another(
    sandbox: SandboxProcess, db: None, api: Api, time: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply([row("1", machine_id="1"), row("2", machine_id="2")])
    elsewhere = OfferListing((row("9", provider="tensordock", price_per_hour=Decimal("0.6")),), clock.now())
    offers.ensure_inventories(["tensordock"])
    offers.apply_listing("tensordock", elsewhere, clock.now())
    monkeypatch.setitem(configured.configured(), "tensordock", configured.get("vastai"))
    session_id = api.create(offer_id="vastai-1", auto_retry=True)["session"]["id"]
    launch.fail_create(Rental.objects.get(), EndReason.NO_CREDIT, "no credit")
    drive.drive_session(session_id)
    assert Session.objects.get().offer_id == "tensordock-9"
    launch.fail_create(rentals(session_id)[1], EndReason.PROVIDER_AUTH, "key refused")
    drive.drive_session(session_id)
    session = Session.objects.get()
    assert (session.status, session.end_reason) == ("failed", "provider_auth")
    assert session.end_message == "key refused (2 attempts made; no other offer fits)"


def test_a_running_machine_that_is_lost_ends_the_session(market: SandboxProcess, api: Api, driver: Driver) -> None:
    """Its work is gone: another machine would not be the same session."""
    session_id = begin(api)
    driver.until_status(session_id, "running")
    market.machine_dies(market.alive()[0]["id"])
    driver.sweep_now()
    assert driver.until_status(session_id, "failed").end_reason == "provider_lost"
    assert attempts_seen(session_id) == [(1, "closed", "provider_lost")]
    assert OfferFailure.objects.get().reason == "provider_lost"


# -- ends while an attempt gives way to the next ---------------------------------------------------------


def waiting_for_the_next(market: SandboxProcess, api: Api, driver: Driver) -> str:
    """The first machine has failed and refuses to go, so that the session waits."""
    market.fault("boot_error", mode="oci")
    session_id = begin(api)
    driver.until_status(session_id, "provisioning")
    market.fault("refuse_destroy", mode="error", times=-1)
    driver.until(lambda: Rental.objects.get(session_id=session_id).destroy_failures >= 1)
    assert Session.objects.get(id=session_id).status == "pending"
    assert len(rentals(session_id)) == 1
    return session_id


@pytest.mark.parametrize("end", ["done", "deleted", "expired"])
def test_an_end_meanwhile_ends_it_at_once(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, end: str
) -> None:
    session_id = waiting_for_the_next(market, api, driver)
    ends: dict[str, Callable[[], object]] = {
        "done": lambda: api.post(f"/sessions/{session_id}/done"),
        "deleted": lambda: api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0"),
        "expired": lambda: time.advance(hours=2),
    }
    ends[end]()
    driver.round()
    assert Session.objects.get(id=session_id).status == "stopping"
    market.clear_faults()
    time.advance(minutes=2)
    assert driver.until_status(session_id, "stopped").end_reason == end
    assert len(market.ledger()) == 1
    assert market.alive() == []


def test_it_waits_for_the_proof_and_an_extension_does_not_put_it_off(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = waiting_for_the_next(market, api, driver)
    drive.drive_session(session_id)
    assert len(rentals(session_id)) == 1
    market.clear_faults()
    time.advance(minutes=2)
    driver.until(lambda: rentals(session_id)[0].state == Debt.CLOSED)
    api.post(f"/sessions/{session_id}/extend", {"additional_hours": 1})
    driver.until_status(session_id, "running")
    over(api, driver, market, session_id)


# -- two things at one moment ------------------------------------------------------------------------------


@pytest.fixture
def between(sandbox: SandboxProcess, db: None, api: Api, time: MovableClock) -> str:
    """A session whose first attempt is closed and whose next one has not begun; three more offers are there."""
    apply([row(str(number), machine_id=str(number)) for number in range(1, 5)])
    session_id: str = api.create(offer_id="vastai-1", auto_retry=True)["session"]["id"]
    launch.fail_create(Rental.objects.get(), EndReason.OFFER_GONE, "gone")
    assert Session.objects.get().status == "pending"
    return session_id


CHOICE = r"FROM .offers_offer. "


@pytest.mark.parametrize("end", ["done", "delete", "expiry"])
def test_an_end_just_before_the_next_attempt_is_written(api: Api, between: str, time: MovableClock, end: str) -> None:
    def expires() -> None:
        time.advance(hours=2)
        drive.end_due([between])

    ends: dict[str, Callable[[], None]] = {
        "done": lambda: api.post(f"/sessions/{between}/done"),
        "delete": lambda: api.delete(f"/sessions/{between}", Prefer="wait=0"),
        "expiry": expires,
    }
    with before_sql(CHOICE, lambda: ends[end]()) as happened:
        drive.drive_session(between)
    assert happened
    assert Session.objects.get().status == "stopped"
    assert [seen[1] for seen in attempts_seen(between)] == ["closed"]


def test_two_drivers_begin_one_attempt(between: str) -> None:
    with before_sql(CHOICE, lambda: attempts.next_attempt(between)) as happened:
        attempts.next_attempt(between)
    assert happened
    assert attempts_seen(between) == [(1, "closed", "offer_gone"), (2, "intended", "")]
    assert Event.objects.filter(kind="attempt").count() == 1


def test_closed_while_the_driver_looks(sandbox: SandboxProcess, db: None, api: Api, time: MovableClock) -> None:
    """The driver saw the old machine, then it was proved gone: the session stays due."""
    apply([row(str(number), machine_id=str(number)) for number in range(1, 3)])
    session_id = api.create(offer_id="vastai-1", auto_retry=True)["session"]["id"]
    rental = Rental.objects.get()
    with before_sql("^SAVEPOINT", lambda: launch.fail_create(rental, EndReason.OFFER_GONE, "gone")) as happened:
        attempts.next_attempt(session_id)
    assert happened
    assert len(rentals(session_id)) == 1
    due = Session.objects.get().next_check_at
    assert due is not None
    assert due <= clock.now()
    drive.drive_session(session_id)
    assert [seen[1] for seen in attempts_seen(session_id)] == ["closed", "intended"]


def test_the_consumers_own_new_session_takes_the_chosen_offer(api: Api, between: str) -> None:
    def taken_meanwhile() -> None:
        api.create(offer_id="vastai-2")

    with before_sql("^SAVEPOINT", taken_meanwhile) as happened:
        attempts.next_attempt(between)
    assert happened
    assert Session.objects.get(id=between).offer_id == "vastai-3"
    assert [seen[1] for seen in attempts_seen(between)] == ["closed", "intended"]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_no_deadlock_between_delete_and_a_failed_boot(
    market_with_threads: SandboxProcess, api: Api, driver: Driver
) -> None:
    session_id = begin(api)
    driver.until(lambda: Session.objects.get(id=session_id).status == "provisioning")
    rental = rentals(session_id)[0]
    delete = Elsewhere(lambda: end_session(session_id, EndReason.DELETED))
    with before_sql(r"INSERT INTO .offers_offerfailure", delete.start) as happened:
        assert attempts.fail(rental, EndReason.BOOT_FAILED, "no")
    delete.finish()
    assert happened
    assert driver.until_status(session_id, "stopped").end_reason == "deleted"
    assert [seen[1] for seen in attempts_seen(session_id)] == ["closed"]
    assert market_with_threads.alive() == []


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_two_drivers_in_two_threads_begin_one_attempt(sandbox: SandboxProcess, api: Api) -> None:
    apply([row(str(number), machine_id=str(number)) for number in range(1, 4)])
    session_id = api.create(offer_id="vastai-1", auto_retry=True)["session"]["id"]
    launch.fail_create(Rental.objects.get(), EndReason.OFFER_GONE, "gone")
    other = Elsewhere(lambda: attempts.next_attempt(session_id))
    with before_sql(r"INSERT INTO .sessions_app_rental", other.start) as happened:
        attempts.next_attempt(session_id)
    other.finish()
    assert happened
    assert attempts_seen(session_id) == [(1, "closed", "offer_gone"), (2, "intended", "")]


def test_a_slow_login_to_the_old_machine_proves_nothing_of_the_new_one(
    market: SandboxProcess, api: Api, driver: Driver
) -> None:
    market.fault("boot_error", mode="oci")
    market.fault("boot_never", skip=1)
    session_id = begin(api)
    driver.until(lambda: [seen[1] for seen in attempts_seen(session_id)] == ["closed", "live"])
    session = driver.until_status(session_id, "provisioning")
    old = rentals(session_id)[0]
    proved.believe(session, old, proved.Proof("SSH verified", {}, {"ssh_host": "203.0.113.9", "ssh_port": 22}))
    there = (SSHEndpoint("203.0.113.9", 22, "root", "direct"),)
    old.state = Debt.LIVE  # as a listing that began before its end has it in hand
    sightings.note_all([(old, Instance(old.instance_id, old.label, Phase.RUNNING, "running", "", there))], clock.now())
    assert not attempts.fail(old, EndReason.WRONG_MACHINE, "late")
    session.refresh_from_db()
    assert (session.status, session.ssh_host == "203.0.113.9") == ("provisioning", False)
    over(api, driver, market, session_id)


def test_the_failed_machines_token_is_worth_nothing(between: str, api: Api) -> None:
    def token() -> str:
        return launch.order_for(Session.objects.get(), rentals(between)[-1]).env["GPUBROKER_AGENT_TOKEN"]

    old = token()
    drive.drive_session(between)
    beat = {"gpu_utilization": 1.0, "memory_used_mb": 1, "ssh_connections": 0}
    api.post(f"/sessions/{between}/heartbeat", {"agent_token": old, **beat}, 401)
    assert api.post(f"/sessions/{between}/heartbeat", {"agent_token": token(), **beat})["status"] == "pending"


# -- which offer ---------------------------------------------------------------------------------------------

MARKET = [
    row("1", machine_id="1"),
    row("2", machine_id="1"),  # the same machine
    row("3", machine_id="3", price_per_hour=Decimal("0.70")),  # over 1.5 times the first price
    row("4", machine_id="4", gpu_count=2, price_per_hour=Decimal("0.30")),
    row("5", machine_id="5", price_per_hour=Decimal("0.60")),
    row("6", machine_id="6", price_per_hour=Decimal("0.50"), disk_gb=40.0),  # too little disk
    row("7", machine_id="7", gpu_name_raw="RTX A6000", vram_mb=49140, price_per_hour=Decimal("0.58")),
    row("8", machine_id="8", gpu_name_raw="RTX 3060", vram_mb=12288, price_per_hour=Decimal("0.10")),
    row("9", machine_id="9", price_per_hour=Decimal("0.46"), max_duration_hours=1.0),  # gone before the end
    row("10", machine_id="10", price_per_hour=Decimal("0.65"), interruptible=True),  # bids are taken: no matter
]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ({}, "vastai-5"),
        ({"retry_scope": "same_vram"}, "vastai-7"),
        ({"retry_scope": "any"}, "vastai-8"),
        ({"max_price": 0.75, "disk_gb": 30}, "vastai-6"),
        ({"max_price": 0.5}, None),
    ],
)
def test_the_choice(
    sandbox: SandboxProcess, db: None, api: Api, time: MovableClock, asked: dict[str, Any], chosen: str | None
) -> None:
    apply(MARKET)
    session_id = api.create(offer_id="vastai-1", auto_retry=True, **asked)["session"]["id"]
    launch.fail_create(Rental.objects.get(), EndReason.BOOT_FAILED, "no")
    drive.drive_session(session_id)
    ids = [rental.offer_provider_id for rental in rentals(session_id)]
    assert ids == ["1"] + ([chosen.removeprefix("vastai-")] if chosen else [])


def test_machines_that_failed_others_come_last_and_suppressed_ones_never(
    sandbox: SandboxProcess, db: None, api: Api, time: MovableClock
) -> None:
    apply([row("1", machine_id="1"), row("2", machine_id="2", price_per_hour=Decimal("0.40")),
           row("3", machine_id="3"), row("4", machine_id="4", price_per_hour=Decimal("0.20"))])  # fmt: skip
    for machine, times in (("2", 1), ("4", 3)):
        for _ in range(times):
            failures.record_failure(
                provider="vastai", offer_id=f"vastai-{machine}", machine_id=machine, gpu_type="RTX 4090",
                reason="boot_failed",
            )  # fmt: skip
    session_id = api.create(offer_id="vastai-1", auto_retry=True, max_retries=5)["session"]["id"]
    for _ in range(3):
        launch.fail_create(rentals(session_id)[-1], EndReason.REFUSED, "no")
        drive.drive_session(session_id)
    assert [rental.offer_provider_id for rental in rentals(session_id)] == ["1", "3", "2"]
    assert Session.objects.get().end_message == "no (3 attempts made; no other offer fits)"


def test_arguments_follow_the_offers_gpus(sandbox: SandboxProcess, db: None, api: Api, time: MovableClock) -> None:
    ports = {"direct_port_count": 10}
    apply([row("1", machine_id="1", raw=ports), row("2", machine_id="2", gpu_count=2, raw=ports)])
    session_id = api.create(
        offer_id="vastai-1", auto_retry=True, retry_scope="any", launch_mode="entrypoint", workload_type="llm_vllm",
        model_id="Qwen/Qwen2.5-7B-Instruct",
    )["session"]["id"]  # fmt: skip
    launch.fail_create(Rental.objects.get(), EndReason.OFFER_GONE, "gone")
    drive.drive_session(session_id)
    order = launch.order_for(Session.objects.get(), rentals(session_id)[1])
    assert order.args[-2:] == ("--tensor-parallel-size", "2")
    assert (order.ports, order.offer_id) == ((8000,), "2")


# -- the price --------------------------------------------------------------------------------------------------


def billed(dearer: float, only_first: bool = False) -> Any:
    """The marketplace's listings with every machine's GPU rate times ``dearer``."""
    dear: list[int] = []

    def reply(market: SandboxProcess) -> Any:
        def answer(request: Any, call: int) -> Answer:
            headers = {"Accept": "application/json", "Authorization": "Bearer sandbox-key"}
            status, _, text = market.raw("GET", request.path_url, None, headers)
            body = json.loads(text)
            dear.extend(one["id"] for one in body["instances"][:1] if not dear)
            for one in body["instances"]:
                if one["id"] in dear or not only_first:
                    one["dph_base"] *= dearer
            return status, {}, json.dumps(body)

        return answer

    return reply


def test_a_dearer_machine_is_told_once_per_rate(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = begin(api)
    with on_the_wire(market, ("GET", r"/api/v1/instances/.*", billed(1.04)(market))):
        driver.until_status(session_id, "running")
    assert not Event.objects.filter(kind="price_drift").exists()
    for factor in (1.2, 1.2, 1.5):
        with on_the_wire(market, ("GET", r"/api/v1/instances/.*", billed(factor)(market))):
            driver.sweep_now()
    rental = rentals(session_id)[0]
    assert rental.price_asked is not None
    drifts = list(Event.objects.filter(kind="price_drift").order_by("id"))
    assert [Decimal(event.details["price"]) for event in drifts] == [
        pytest.approx(rental.price_asked * factor) for factor in (Decimal("1.2"), Decimal("1.5"))
    ]
    assert counted("gpu_price_drift_total") == 2
    shown = api.get(f"/sessions/{session_id}/attempts")["attempts"][0]
    assert shown["price_asked"] == float(rental.price_asked)
    assert shown["price_actual"] == pytest.approx(float(rental.price_asked) * 1.5)
    assert Session.objects.get().price_per_hour == rental.price_asked
    assert Session.objects.get().status == "running", describe()


def test_above_max_price_before_it_runs_another_is_tried(market: SandboxProcess, api: Api, driver: Driver) -> None:
    dearest = float(Offer.objects.get(id=first_choice()).price_per_hour) * 1.45
    session_id = begin(api, max_price=round(dearest, 4))
    with on_the_wire(market, ("GET", r"/api/v1/instances/.*", billed(3, only_first=True)(market))):
        driver.until_status(session_id, "running")
    assert attempts_seen(session_id) == [(1, "closed", "price"), (2, "live", "")]
    assert not OfferFailure.objects.exists()
    over(api, driver, market, session_id)


def test_above_max_price_while_it_runs_ends_it(market: SandboxProcess, api: Api, driver: Driver) -> None:
    price = float(Offer.objects.get(id=first_choice()).price_per_hour)
    session_id = begin(api, auto_retry=False, max_price=round(price * 1.1, 4))
    driver.until_status(session_id, "running")
    with on_the_wire(market, ("GET", r"/api/v1/instances/.*", billed(1.2)(market))):
        driver.sweep_now()
    session = driver.until_status(session_id, "failed")
    assert session.end_reason == "price"
    assert session.end_message.startswith("the provider asks $")
    assert market.alive() == []
