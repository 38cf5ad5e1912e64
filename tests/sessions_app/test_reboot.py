"""A session's machine: its log, and reboots that a session survives."""

from __future__ import annotations

from typing import Any

import pytest

from gpubroker.common import providers as configured
from providers.base import Phase
from providers.redact import without_secrets
from sessions_app import heartbeat, machine
from sessions_app.models import Event, Rental, Session
from tests.harness import Api, Driver, MovableClock, refresh_offers
from tests.keys import Caller, make
from tests.sandbox import DEFAULT_TENSORDOCK_TOKEN, SandboxProcess

NEVER = "it did not come back from its reboot: "


@pytest.fixture
def running(market: SandboxProcess, time: MovableClock, api: Api, driver: Driver) -> str:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    return str(session_id)


def instance_of(session_id: str) -> str:
    return Rental.objects.get(session_id=session_id).instance_id


def phase_of(session_id: str) -> str:
    found = configured.get("vastai").get_instance(instance_of(session_id))
    return "" if found is None else found.phase


def kinds(session_id: str) -> list[str]:
    return list(Event.objects.filter(session_id=session_id).order_by("id").values_list("kind", flat=True))


def test_a_rebooted_machine_that_stands_still_for_a_while_is_not_lost(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, running: str
) -> None:
    answer = api.post(f"/sessions/{running}/reboot")
    assert (answer["message"], answer["session_id"]) == ("reboot asked for", running)
    assert kinds(running)[-1] == "rebooted"
    for status in ("exited", "offline"):
        market.machine_dies(instance_of(running), status=status)
        driver.sweep_now()
        time.advance(seconds=200)
        driver.sweep_now()
        assert Session.objects.get(id=running).status == "running"
    assert len(market.alive()) == 1


def test_one_that_comes_back_is_watched_as_before(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, running: str
) -> None:
    api.post(f"/sessions/{running}/reboot")
    time.advance(seconds=550)
    driver.sweep_now()
    # It may still be the old word: the time to come back is not over.
    assert Rental.objects.get(session_id=running).rebooted_at is not None
    driver.until(lambda: phase_of(running) == Phase.RUNNING)
    time.advance(seconds=60)
    driver.sweep_now()
    assert Rental.objects.get(session_id=running).rebooted_at is None
    assert Session.objects.get(id=running).status == "running"
    market.machine_dies(instance_of(running), status="exited", message="container exited")
    driver.sweep_now()
    session = Session.objects.get(id=running)
    assert (session.status, session.end_reason) == ("stopping", "provider_lost")
    assert session.end_message == "container exited"


@pytest.mark.parametrize("status", ["exited", "offline", "rebooting"])
def test_one_that_never_comes_back_is_lost(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, running: str, status: str
) -> None:
    api.post(f"/sessions/{running}/reboot")
    market.machine_dies(instance_of(running), status=status)
    driver.sweep_now()
    time.advance(seconds=601)
    driver.sweep_now()
    session = Session.objects.get(id=running)
    assert (session.status, session.end_reason) == ("stopping", "provider_lost")
    assert session.end_message == f"{NEVER}the provider says {status}"
    driver.until_status(running, "failed")
    assert market.alive() == []


def test_a_machine_that_dies_by_itself_is_lost_at_once(market: SandboxProcess, driver: Driver, running: str) -> None:
    market.machine_dies(instance_of(running), status="exited")
    driver.sweep_now()
    assert Session.objects.get(id=running).end_reason == "provider_lost"


def test_a_reboot_that_is_refused_is_taken_back(market: SandboxProcess, api: Api, running: str) -> None:
    market.fault("success_false", operation="reboot")
    answer = api.post(f"/sessions/{running}/reboot", status=409)
    assert answer["error_type"] == "invalid_request"
    assert Rental.objects.get(session_id=running).rebooted_at is None
    assert kinds(running)[-2:] == ["rebooted", "reboot_failed"]


def test_a_reboot_whose_answer_is_lost_may_have_happened(market: SandboxProcess, api: Api, running: str) -> None:
    market.fault("lost_answer", operation="reboot")
    answer = api.post(f"/sessions/{running}/reboot", status=504)
    assert (answer["error_type"], answer["retry_suggested"]) == ("outcome_unknown", False)
    assert Rental.objects.get(session_id=running).rebooted_at is not None


def test_the_same_request_reboots_once(market: SandboxProcess, api: Api, running: str) -> None:
    first = api.post(f"/sessions/{running}/reboot", None, 200, **{"Idempotency-Key": "once"})
    assert api.post(f"/sessions/{running}/reboot", None, 200, **{"Idempotency-Key": "once"}) == first
    assert kinds(running).count("rebooted") == 1


def test_only_a_running_session_is_rebooted(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    answer = api.post(f"/sessions/{session_id}/reboot", status=409)
    assert answer["error"] == f"session {session_id} is pending; only a running one can be rebooted"
    assert kinds(session_id) == ["session"]


def test_anothers_machine_is_unknown(market: SandboxProcess, running: str, settings: Any) -> None:
    settings.API_AUTH = "key"
    other, reader = Caller(make("them").secret), Caller(make("my-application", ["read"]).secret)
    for call in (("POST", f"/sessions/{running}/reboot"), ("GET", f"/sessions/{running}/logs")):
        assert other(*call)[0] == 404
    assert reader("POST", f"/sessions/{running}/reboot")[0] == 403
    assert reader("GET", f"/sessions/{running}/logs")[0] == 200
    assert "rebooted" not in kinds(running)


def test_the_log_of_a_machine(market: SandboxProcess, api: Api, running: str) -> None:
    answer = api.get(f"/sessions/{running}/logs")
    assert "Starting OpenBSD Secure Shell server: sshd." in answer["lines"]
    assert (answer["count"], answer["truncated"]) == (len(answer["lines"]), False)
    short = api.get(f"/sessions/{running}/logs", tail=1)
    assert short["lines"] == answer["lines"][-1:]
    for tail in ("0", "-1", "2001", "many"):
        assert api.get(f"/sessions/{running}/logs", 400, tail=tail)["field"] == "tail"


def test_the_log_shows_neither_our_token_nor_other_secrets(market: SandboxProcess, api: Api, driver: Driver) -> None:
    token = heartbeat.new_token()
    script = "echo password=hunter2hunter2 GPUBROKER_MARK; curl -H 'Authorization: Bearer abcdefabcdef'"
    session_id = api.create(on_start_cmd=f"{script} x_{token}_y")["session"]["id"]
    Session.objects.filter(id=session_id).update(agent_token_hash=heartbeat.hashed(token))
    driver.until_status(session_id, "running")
    text = "\n".join(api.get(f"/sessions/{session_id}/logs")["lines"])
    assert "GPUBROKER_MARK" in text
    assert "x_[redacted]_y" in text
    for secret in (token, "hunter2hunter2", "abcdefabcdef"):
        assert secret not in text


def test_a_log_is_bounded_and_plain() -> None:
    lines, cut = machine.shown("x" * 40 + "\n" + ("a\x1b[31mb\x00c\r\n" * 60_000), "", 2000)
    assert (len(lines), cut) == (2000, True)
    assert set(lines) == {"a[31mbc"}
    lines, cut = machine.shown("one\n\ntwo\n", "", 10)
    assert (lines, cut) == (["one", "two"], False)
    assert without_secrets("GPUBROKER_AGENT_TOKEN=abc") == "GPUBROKER_AGENT_TOKEN=[redacted]"


def test_no_log_without_a_machine(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    answer = api.get(f"/sessions/{session_id}/logs", 400)
    assert answer["error"] == f"session {session_id} has no machine, it is pending"
    api.delete(f"/sessions/{session_id}")
    assert api.get(f"/sessions/{session_id}/logs", 400)["status"] == "stopped"
    assert api.get("/sessions/sess-none/logs", 404)["session_id"] == "sess-none"


def test_where_a_provider_has_neither(sandbox: SandboxProcess, settings: Any, db: None, api: Api) -> None:
    settings.TENSORDOCK_API_TOKEN = DEFAULT_TENSORDOCK_TOKEN
    settings.TENSORDOCK_BASE_URL = sandbox.tensordock_url
    configured.configured.cache_clear()
    refresh_offers("tensordock")
    offer = api.get("/inventory", provider="tensordock", limit=1)["offers"][0]["id"]
    session_id = api.create(offer_id=offer)["session"]["id"]
    Driver("tensordock").until_status(session_id, "running")
    assert api.get(f"/sessions/{session_id}/logs", 501)["error"] == "tensordock has no logs of machines"
    refused = api.post(f"/sessions/{session_id}/reboot", status=501)
    assert refused["error"] == "tensordock has no reboot of machines"
    assert "rebooted" not in kinds(session_id)
