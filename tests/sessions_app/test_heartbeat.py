"""Heartbeats: the token is the only credential, lives as long as the session, and samples are bounded."""

from __future__ import annotations

from typing import Any

import pytest

from gpubroker.common.models import IdempotencyRecord
from sessions_app import heartbeat, samples
from sessions_app.models import ActivitySample, Event, Rental, Session
from sessions_app.states import Status
from tests.harness import Api, Driver
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_session

TOKEN = "t" * 43
BEAT: dict[str, Any] = {
    "agent_token": TOKEN, "gpu_utilization": 87.5, "memory_used_mb": 20_480, "ssh_connections": 1,
}  # fmt: skip


def known(status: Status = Status.RUNNING) -> Session:
    return make_session(status, agent_token_hash=heartbeat.hashed(TOKEN))


@pytest.mark.django_db
def test_a_beat_is_kept(api: Api) -> None:
    session = known()
    answer = api.post(f"/sessions/{session.id}/heartbeat", BEAT)
    assert answer == {"status": "running", "expires_at": session.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")}
    sample = ActivitySample.objects.get()
    told = (sample.session_id, sample.gpu_utilization, sample.memory_used_mb, sample.ssh_connections)
    assert told == (session.id, 87.5, 20_480, 1)


@pytest.mark.django_db
@pytest.mark.parametrize("token", ["", "x", TOKEN + "x", TOKEN[:-1], " " + TOKEN, "-", heartbeat.hashed(TOKEN), "ü"])
def test_wrong_tokens(api: Api, token: str) -> None:
    session = known()
    status = 400 if token == "" else 401
    api.post(f"/sessions/{session.id}/heartbeat", {**BEAT, "agent_token": token}, status)
    assert not ActivitySample.objects.exists()


@pytest.mark.django_db
def test_unknown_ended_and_tokenless_sessions_look_alike(api: Api) -> None:
    ended = known(Status.STOPPED)
    without = make_session(Status.RUNNING, offer_id="vastai-2")
    answers = [
        api.post(f"/sessions/{session_id}/heartbeat", {**BEAT, "agent_token": token}, 401)["error"]
        for session_id, token in [(ended.id, TOKEN), ("sess-x", TOKEN), (without.id, TOKEN), (without.id, "-")]
    ]
    assert set(answers) == {heartbeat.WRONG_TOKEN}
    assert not ActivitySample.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "value"),
    [("gpu_utilization", -1), ("gpu_utilization", 100.1), ("gpu_utilization", "50"), ("gpu_utilization", True),
     ("memory_used_mb", -1), ("memory_used_mb", 1.5), ("memory_used_mb", 2**70), ("ssh_connections", -1),
     ("ssh_connections", None), ("agent_token", 7), ("agent_token", None)],
)  # fmt: skip
def test_bad_fields(api: Api, name: str, value: Any) -> None:
    session = known()
    assert api.post(f"/sessions/{session.id}/heartbeat", {**BEAT, name: value}, 400)["field"] == name
    assert not ActivitySample.objects.exists()


@pytest.mark.django_db
def test_needs_no_api_key(api: Api, settings: Any) -> None:
    session = known()
    settings.API_AUTH = "key"
    api.post(f"/sessions/{session.id}/heartbeat", BEAT)
    api.get(f"/sessions/{session.id}", 401)
    assert ActivitySample.objects.count() == 1


@pytest.mark.django_db
def test_samples_are_bounded_per_session(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_SAMPLES", 5)
    monkeypatch.setattr(samples, "SLACK", 3)
    session = known()
    other = make_session(Status.RUNNING, offer_id="vastai-2", agent_token_hash=heartbeat.hashed(TOKEN))
    api.post(f"/sessions/{other.id}/heartbeat", BEAT)
    seen = []
    for number in range(20):
        api.post(f"/sessions/{session.id}/heartbeat", {**BEAT, "memory_used_mb": number})
        seen.append(ActivitySample.objects.filter(session=session).count())
    assert max(seen) == 7
    kept = list(ActivitySample.objects.filter(session=session).order_by("id").values_list("memory_used_mb", flat=True))
    assert kept == list(range(20 - len(kept), 20))
    assert len(kept) >= 5
    assert ActivitySample.objects.filter(session=other).count() == 1


def test_from_launch_to_the_end(market: SandboxProcess, api: Api, driver: Driver) -> None:
    """The machine has the token; we have its hash, and the token itself only until it was sent."""
    session_id = api.create()["session"]["id"]
    before = Session.objects.get()
    assert before.agent_token_sealed != ""
    driver.until_status(session_id, "running")
    env = market.alive()[0]["env"]
    assert env["GPUBROKER_SESSION_ID"] == session_id
    token = env["GPUBROKER_AGENT_TOKEN"]
    session = Session.objects.get()
    assert (session.agent_token_sealed, session.agent_token_hash) == ("", heartbeat.hashed(token))
    stored = str([list(model.objects.values()) for model in (Session, Rental, Event)])
    assert token not in stored
    beat = {**BEAT, "agent_token": token}
    assert api.post(f"/sessions/{session_id}/heartbeat", beat)["status"] == "running"
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    assert api.post(f"/sessions/{session_id}/heartbeat", beat)["status"] == "stopping"
    driver.until_status(session_id, "stopped")
    assert Session.objects.get().agent_token_hash == ""
    api.post(f"/sessions/{session_id}/heartbeat", beat, 401)


def test_a_launch_that_is_sent_again_sends_the_same_token(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("rate_limited", operation="create", threshold=0.1)
    session_id = api.create()["session"]["id"]
    driver.until(lambda: Rental.objects.get().last_error != "")
    expected = Session.objects.get().agent_token_hash
    driver.until_status(session_id, "running")
    assert heartbeat.hashed(market.alive()[0]["env"]["GPUBROKER_AGENT_TOKEN"]) == expected


def test_a_failed_launch_leaves_no_token(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("insufficient_credit")
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "failed")
    session = Session.objects.get()
    assert (session.agent_token_hash, session.agent_token_sealed) == ("", "")


@pytest.mark.django_db
def test_the_same_beat_twice_is_one_sample(api: Api) -> None:
    session = known()
    path = f"/sessions/{session.id}/heartbeat"
    key: dict[str, Any] = {"Idempotency-Key": "beat-1"}
    first = api.post(path, BEAT, **key)
    assert api.post(path, BEAT, **key) == first
    assert api.post(path, {**BEAT, "ssh_connections": 2}, 409, **key)["error_type"] == "idempotency_key_reused"
    assert api.post(path, {**BEAT, "agent_token": "w" * 43}, 401, **key)["error"] == heartbeat.WRONG_TOKEN
    assert ActivitySample.objects.count() == 1
    assert TOKEN not in str(list(IdempotencyRecord.objects.values()))
