"""Outbid, paused and resumed, against the marketplace: events, addresses, looks, ends, and what it all costs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import selectors as billing
from billing.webhook_models import WebhookMessage
from gpubroker.common import clock
from gpubroker.common import providers as configured
from offers.models import Offer
from sessions_app import heartbeat, paused, samples, watch
from sessions_app.models import Session
from sessions_app.states import Debt
from tests import invariants
from tests.harness import Api, Driver, MovableClock, offers_on_different_machines, refresh_offers
from tests.sandbox import SandboxProcess
from tests.sessions_app.bidders import DEAR, kinds, last, others, rental_of, resume, run


@pytest.fixture
def offer(market: SandboxProcess) -> Offer:
    return Offer.objects.get(id=offers_on_different_machines(1)[0])


@pytest.fixture
def running(market: SandboxProcess, offer: Offer, time: MovableClock, api: Api, driver: Driver) -> str:
    return run(api, driver, offer_id=offer.id)


@pytest.fixture
def outbid(market: SandboxProcess, driver: Driver, running: str) -> str:
    """Paused, and its start asked for."""
    others(market, running, "outbid")
    driver.sweep_now()
    driver.round()
    return running


# -- paused and resumed ----------------------------------------------------------------------------------------


def test_outbid_and_resumed(market: SandboxProcess, api: Api, driver: Driver, running: str) -> None:
    api.post("/webhooks", {"url": "https://hooks.example.com/gpu", "consumer_id": "my-application"}, 201)
    before = api.get(f"/sessions/{running}")
    others(market, running, "outbid", price=25)
    driver.sweep_now()
    shown = api.get(f"/sessions/{running}")
    assert (shown["status"], shown["paused"], shown["end_reason"]) == ("running", True, "")
    assert shown["paused_at"] is not None
    pause = last(running, "paused")
    assert pause.reason == "outbid: the least bid is now 25 an hour, ours is 20"
    assert (pause.details["bid_price"], pause.details["while"]) == ("20.000000", "running")
    assert rental_of(running).gpu_rate is None
    assert rental_of(running).disk_rate is not None
    diagnosed = api.get(f"/sessions/{running}/diagnostics")
    assert (diagnosed["ssh_available"], diagnosed["note"].split(":")[0]) == (False, "Paused")
    driver.round()
    assert market.alive()[0]["intended"] == "running"
    after = resume(market, api, driver, running, move=True)
    assert (after["status"], after["paused"], after["paused_at"]) == ("running", False, None)
    assert (after["ssh_port"] == before["ssh_port"], after["expires_at"] == before["expires_at"]) == (False, True)
    told = last(running, "resumed")
    assert (told.reason, told.details["address_changed"]) == ("the machine runs again: SSH verified", True)
    assert told.details["ssh"] == f"root@{after['ssh_host']}:{after['ssh_port']}"
    assert kinds(running)[-2:] == ["paused", "resumed"]
    assert rental_of(running).gpu_rate == DEAR
    messages = WebhookMessage.objects.order_by("at").values_list("kind", flat=True)
    assert list(messages) == ["session.paused", "session.resumed"]


def test_the_same_through_the_gateway(
    sandbox: SandboxProcess, db: None, api: Api, driver: Driver, time: MovableClock, settings: Any
) -> None:
    settings.VASTAI_TRANSPORT, settings.LOWCODEAPI_API_TOKEN = "lowcodeapi", f"at_{sandbox.api_key}"
    settings.LOWCODEAPI_BASE_URL, settings.VASTAI_API_KEY = f"{sandbox.url}/lowcodeapi/vastai", ""
    configured.configured.cache_clear()
    refresh_offers()
    session_id = run(api, driver)
    others(sandbox, session_id, "outbid")
    driver.sweep_now()
    driver.round()
    assert api.get(f"/sessions/{session_id}")["paused"] is True
    assert api.post(f"/sessions/{session_id}/bid", {"bid_price": 30})["message"] == "bid changed"
    driver.until(lambda: driver.sweep_now() is not None and not api.get(f"/sessions/{session_id}")["paused"])
    assert [(contract["bid"], contract["state"]) for contract in sandbox.alive()] == [(30, "running")]


def test_what_a_pause_costs(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, offer: Offer) -> None:
    """I11: the GPU while it ran, the disk all the time, by the marketplace's own ledger."""
    session_id = run(api, driver, offer_id=offer.id, reservation_hours=8, disk_gb=200)

    def hours(count: int) -> None:
        for _ in range(count):
            market.advance(3600)
            time.advance(hours=1)
            driver.sweep_now()

    hours(2)
    others(market, session_id, "outbid")
    driver.sweep_now()
    driver.round()
    hours(3)
    resume(market, api, driver, session_id)
    hours(1)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    invariants.costs_agree(Session.objects.get(id=session_id), market.ledger(), slack=timedelta(0))
    ours = billing.of_session(session_id, clock.now()).by_kind
    # Three hours of GPU, six of disk.
    assert Decimal(60) <= ours["gpu"] <= Decimal("60.6")
    disk = 6 * offer.storage_price_per_gb_month * 200 / 720
    assert disk <= ours["disk"] <= disk * Decimal("1.01")


def test_it_comes_back_by_itself_where_it_is_still_wanted(
    market: SandboxProcess, api: Api, driver: Driver, running: str
) -> None:
    others(market, running, "outbid", intended="running")
    driver.sweep_now()
    assert api.get(f"/sessions/{running}")["paused"] is True
    resume(market, api, driver, running)
    assert kinds(running)[-2:] == ["paused", "resumed"]


def test_outbid_again_before_it_answered(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, outbid: str
) -> None:
    market.fault("no_ssh", instance_id=rental_of(outbid).instance_id)
    others(market, outbid, "win")
    driver.until(lambda: driver.sweep_now() is not None and rental_of(outbid).back_at is not None)
    others(market, outbid, "outbid")
    driver.sweep_now()
    assert rental_of(outbid).back_at is None
    driver.round()
    assert market.alive()[0]["intended"] == "running"
    time.advance(hours=1)
    driver.round()
    assert (Session.objects.get(id=outbid).status, kinds(outbid).count("paused")) == ("running", 1)


def test_a_start_that_cannot_be_asked_for_is_asked_for_again(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, running: str
) -> None:
    others(market, running, "outbid")
    driver.sweep_now()
    market.fault("error_5xx", operation="update")
    driver.round()
    assert market.alive()[0]["intended"] == "stopped"
    time.advance(seconds=60)
    driver.round()
    assert market.alive()[0]["intended"] == "running"
    due = rental_of(running).next_check_at
    assert due is not None
    assert due - clock.now() > paused.ASK_AGAIN - timedelta(minutes=1)


def look_until_quiet(driver: Driver, session_id: str) -> None:
    """The machine may still list the broker's own last login when it is first looked at."""

    def quiet() -> bool:
        watch.look(session_id)
        return Session.objects.get(id=session_id).idle_since is not None

    driver.until(quiet)


def test_nobody_looks_at_a_paused_machine_and_nothing_is_idle(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = run(api, driver, idle_threshold_minutes=10, reservation_hours=8)
    look_until_quiet(driver, session_id)
    others(market, session_id, "outbid")
    driver.sweep_now()
    session = Session.objects.get(id=session_id)
    assert (session.idle_since, session.idle_warned_at, session.next_probe_at) == (None, None, None)
    seen = session.samples.count()
    for _ in range(4):
        time.advance(minutes=40)
        driver.round()
        driver.sweep_now()
        assert watch.claim_due() == []
        watch.look(session_id)
    beat = samples.Reading(gpu_utilization=0.0, memory_used_mb=1, ssh_connections=0)
    samples.take(session_id, samples.Source.HEARTBEAT, beat)
    session.refresh_from_db()
    assert (session.status, session.samples.count(), session.idle_since) == ("running", seen + 1, None)
    assert "ssh_unreachable" not in kinds(session_id)
    resume(market, api, driver, session_id)
    session.refresh_from_db()
    assert (session.idle_since, session.next_probe_at is not None) == (None, True)
    resumed = clock.now()
    time.advance(minutes=1)
    look_until_quiet(driver, session_id)
    session.refresh_from_db()
    assert session.idle_since is not None
    assert session.idle_since >= resumed


def test_the_keys_are_put_on_again(market: SandboxProcess, api: Api, driver: Driver, outbid: str) -> None:
    market.admin("POST", f"instances/{rental_of(outbid).instance_id}/wipe-keys")
    resume(market, api, driver, outbid)
    assert len(market.alive()[0]["keys"]) == 2


def test_one_that_runs_again_and_never_answers_ends(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, outbid: str
) -> None:
    market.fault("no_ssh", instance_id=rental_of(outbid).instance_id)
    others(market, outbid, "win")
    driver.until(lambda: driver.sweep_now() is not None and "connections" in rental_of(outbid).last_error)
    time.advance(seconds=590)
    driver.round()
    assert (Session.objects.get(id=outbid).status, "resumed" in kinds(outbid)) == ("running", False)
    time.advance(seconds=20)
    driver.until_status(outbid, "failed")
    session = Session.objects.get(id=outbid)
    assert session.end_reason == "boot_timeout"
    assert session.end_message.startswith("no answer within 600 s after the machine ran again: ")
    assert market.alive() == []


def test_a_paused_machine_that_its_host_loses_is_lost(
    market: SandboxProcess, api: Api, driver: Driver, outbid: str
) -> None:
    others(market, outbid, "win")
    driver.until(lambda: market.alive()[0]["state"] == "running")
    market.machine_dies(rental_of(outbid).instance_id, "offline")
    driver.sweep_now()
    assert Session.objects.get(id=outbid).end_reason == "provider_lost"


def test_neither_rekeyed_nor_rebooted_while_paused(market: SandboxProcess, api: Api, outbid: str) -> None:
    before = invariants.digest()
    assert "is paused" in api.post(f"/sessions/{outbid}/rekey", {"ssh_key_type": "ed25519"}, 409)["error"]
    assert "is paused" in api.post(f"/sessions/{outbid}/reboot", status=409)["error"]
    assert invariants.digest() == before


# -- ends of a paused session ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delete", "done", "expired", "hard_max"])
def test_every_end_acts_on_a_paused_session(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, outbid: str, how: str
) -> None:
    ends: dict[str, Callable[[], object]] = {
        "delete": lambda: api.delete(f"/sessions/{outbid}", 202, Prefer="wait=0"),
        "done": lambda: api.post(f"/sessions/{outbid}/done"),
        "expired": lambda: time.advance(hours=2, seconds=1),
        "hard_max": lambda: Session.objects.filter(id=outbid).update(
            expires_at=clock.now(), hard_max_at=clock.now(), next_check_at=clock.now()
        ),
    }
    ends[how]()
    driver.until_status(outbid, "stopped")
    invariants.nothing_is_left(market.ledger())
    invariants.timelines_are_paths()
    shown = api.get(f"/sessions/{outbid}")
    assert (shown["paused"], shown["paused_at"]) == (False, None)
    reasons = {"delete": "deleted", "done": "done", "expired": "expired", "hard_max": "expired"}
    assert shown["end_reason"] == reasons[how]


def test_a_warning_comes_while_paused_too(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, outbid: str
) -> None:
    time.advance(hours=1, minutes=46)
    driver.round()
    assert kinds(outbid)[-1] == "ending_soon"
    assert Session.objects.get(id=outbid).status == "running"


def test_the_disk_of_a_paused_session_is_kept_where_that_was_asked(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = run(api, driver, storage_policy="preserve")
    others(market, session_id, "outbid")
    driver.sweep_now()
    driver.round()
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    assert rental_of(session_id).state == Debt.PRESERVED
    # The start that waited for the bid was taken back with the stop.
    assert market.alive()[0]["intended"] == "stopped"
    others(market, session_id, "win")
    driver.sweep_now()
    assert rental_of(session_id).state == Debt.PRESERVED


def test_a_session_token_lives_through_a_pause(market: SandboxProcess, api: Api, outbid: str) -> None:
    token = market.alive()[0]["env"][heartbeat.TOKEN_VARIABLE]
    beat = {"agent_token": token, "gpu_utilization": 1.0, "memory_used_mb": 1, "ssh_connections": 0}
    assert api.post(f"/sessions/{outbid}/heartbeat", beat)["status"] == "running"
