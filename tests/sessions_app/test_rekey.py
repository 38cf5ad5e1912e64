"""Rekey: another consumer key on a running machine, against a real SSH server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpubroker.common import sshkeys
from gpubroker.common.models import IdempotencyRecord
from sessions_app import verify
from sessions_app.models import Event, Rental, Session
from sessions_app.states import Status
from tests.harness import Api, Driver
from tests.interleave import Answer, on_the_wire
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_session

KEY: dict[str, Any] = {"Idempotency-Key": "rekey-1"}
ATTACH = r"/api/v0/instances/\d+/ssh/$"


@pytest.fixture
def running(market: SandboxProcess, api: Api, driver: Driver) -> dict[str, Any]:
    created: dict[str, Any] = api.create()
    driver.until_status(created["session"]["id"], "running")
    return created


def opens(session_id: str, private_key: str) -> bool:
    session = Session.objects.get(id=session_id)
    endpoint = verify.Endpoint(session.ssh_host, session.ssh_port or 0, session.ssh_user)
    try:
        verify.verify([endpoint], private_key, verify.Promise(0, 0))
    except verify.NotYet:
        return False
    return True


def keys_of(market: SandboxProcess) -> set[str]:
    return {" ".join(key.split()[:2]) for key in market.alive()[0]["keys"]}


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_new_pair(market: SandboxProcess, api: Api, running: dict[str, Any], kind: str) -> None:
    session_id = running["session"]["id"]
    assert opens(session_id, running["ssh_private_key"])
    before = keys_of(market)
    old = Session.objects.get().ssh_public_key
    answer = api.post(f"/sessions/{session_id}/rekey", {"ssh_key_type": kind})
    private_key = answer.pop("ssh_private_key")
    now = Session.objects.get().ssh_public_key
    assert answer == {
        "message": "session rekeyed", "session_id": session_id, "key_fingerprint": verify.fingerprint(now),
        "verified": True, "old_key_removed": True,
    }  # fmt: skip
    assert opens(session_id, private_key)
    assert not opens(session_id, running["ssh_private_key"])
    broker = before - {" ".join(old.split()[:2])}
    assert keys_of(market) == broker | {" ".join(now.split()[:2])}
    event = Event.objects.get(kind="rekeyed")
    assert event.details == {"before": verify.fingerprint(old), "now": verify.fingerprint(now)}
    assert event.actor == "consumer"
    assert private_key not in str([list(model.objects.values()) for model in (Session, Event, IdempotencyRecord)])


def test_ones_own_key(market: SandboxProcess, api: Api, running: dict[str, Any]) -> None:
    pair = sshkeys.generate("ed25519", "me@laptop")
    answer = api.post(f"/sessions/{running['session']['id']}/rekey", {"ssh_public_key": pair.public})
    assert "ssh_private_key" not in answer
    assert (answer["verified"], answer["old_key_removed"]) == (False, True)
    assert opens(running["session"]["id"], pair.private)
    assert Session.objects.get().ssh_public_key == pair.public


def test_the_same_key_again_is_not_taken_off(market: SandboxProcess, api: Api, running: dict[str, Any]) -> None:
    before = keys_of(market)
    same = Session.objects.get().ssh_public_key
    answer = api.post(f"/sessions/{running['session']['id']}/rekey", {"ssh_public_key": same})
    assert answer["old_key_removed"] is False
    assert keys_of(market) == before


def test_keys_that_arrive_late_are_waited_for(market: SandboxProcess, api: Api, running: dict[str, Any]) -> None:
    market.settings(key_delay=2)
    answer = api.post(f"/sessions/{running['session']['id']}/rekey", {"ssh_key_type": "ed25519"})
    assert answer["verified"] is True
    assert opens(running["session"]["id"], answer["ssh_private_key"])


def test_with_no_patience_it_says_that_it_has_not_seen_it(
    market: SandboxProcess, api: Api, running: dict[str, Any]
) -> None:
    market.settings(key_delay=60)
    path = f"/sessions/{running['session']['id']}/rekey"
    answer = api.post(path, {"ssh_key_type": "ed25519"}, Prefer="wait=1")
    assert (answer["verified"], answer["old_key_removed"]) == (False, True)


@pytest.mark.django_db
@pytest.mark.parametrize("status", [status for status in Status if status != Status.RUNNING])
def test_409_unless_running(api: Api, status: Status) -> None:
    session = make_session(status)
    answer = api.post(f"/sessions/{session.id}/rekey", {}, 409, **KEY)
    assert answer["error"] == f"session {session.id} is {status}; only a running one can be rekeyed"
    assert not Event.objects.exists()
    assert not IdempotencyRecord.objects.exists()


@pytest.mark.django_db
def test_unknown_sessions_and_bad_keys(api: Api) -> None:
    assert api.post("/sessions/sess-x/rekey", {}, 404)["error"] == "session sess-x not found"
    session = make_session(Status.RUNNING)
    for field, value in {"ssh_public_key": "nonsense", "ssh_key_type": "dsa"}.items():
        assert api.post(f"/sessions/{session.id}/rekey", {field: value}, 400)["field"] == field


@pytest.mark.parametrize(
    ("reply", "status", "error_type"),
    [
        ((500, {}, "<html>oops</html>"), 503, "outcome_unknown"),
        ((403, {}, json.dumps({"success": False, "error": "auth_error", "msg": "no"})), 503, "auth_error"),
        ((400, {}, json.dumps({"success": False, "error": "invalid_request", "msg": "Invalid SSH key."})), 400, None),
    ],
)
def test_the_providers_refusals_change_nothing(
    market: SandboxProcess, api: Api, running: dict[str, Any], reply: Answer, status: int, error_type: str | None
) -> None:
    before = Session.objects.values().get()
    with on_the_wire(market, ("POST", ATTACH, lambda request, call: reply)):
        answer = api.post(f"/sessions/{running['session']['id']}/rekey", {"ssh_key_type": "ed25519"}, status, **KEY)
    assert answer.get("error_type") == error_type
    assert Session.objects.values().get() == before
    assert not IdempotencyRecord.objects.exists()
    assert opens(running["session"]["id"], running["ssh_private_key"])


def test_ended_meanwhile(market: SandboxProcess, api: Api, running: dict[str, Any]) -> None:
    session_id = running["session"]["id"]
    old = Session.objects.get().ssh_public_key

    def ended(request: Any, call: int) -> None:
        api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")

    with on_the_wire(market, ("POST", ATTACH, ended)):
        answer = api.post(f"/sessions/{session_id}/rekey", {"ssh_key_type": "ed25519"}, 409)
    assert answer["error"] == f"session {session_id} ended or got another key meanwhile"
    assert Session.objects.get().ssh_public_key == old
    assert not Event.objects.filter(kind="rekeyed").exists()


def test_another_rekey_meanwhile_wins_and_the_loser_takes_its_key_off(
    market: SandboxProcess, api: Api, running: dict[str, Any]
) -> None:
    session_id = running["session"]["id"]
    broker = keys_of(market) - {" ".join(Session.objects.get().ssh_public_key.split()[:2])}
    won: list[dict[str, Any]] = []

    def other(request: Any, call: int) -> None:
        if call == 1:
            won.append(api.post(f"/sessions/{session_id}/rekey", {"ssh_key_type": "ed25519"}))

    with on_the_wire(market, ("POST", ATTACH, other)):
        api.post(f"/sessions/{session_id}/rekey", {"ssh_key_type": "ed25519"}, 409)
    assert opens(session_id, won[0]["ssh_private_key"])
    assert keys_of(market) == broker | {" ".join(Session.objects.get().ssh_public_key.split()[:2])}


def test_an_old_key_that_stays_is_told(market: SandboxProcess, api: Api, running: dict[str, Any]) -> None:
    refuse: Answer = (500, {}, "<html>oops</html>")
    with on_the_wire(market, ("DELETE", r"/api/v0/instances/\d+/ssh/\d+/", lambda request, call: refuse)):
        answer = api.post(f"/sessions/{running['session']['id']}/rekey", {"ssh_key_type": "ed25519"})
    assert answer["old_key_removed"] is False
    assert opens(running["session"]["id"], answer["ssh_private_key"])


def test_the_same_rekey_twice_is_one(market: SandboxProcess, api: Api, running: dict[str, Any]) -> None:
    path = f"/sessions/{running['session']['id']}/rekey"
    first = api.post(path, {"ssh_key_type": "ed25519"}, **KEY)
    keys = keys_of(market)
    assert api.post(path, {"ssh_key_type": "ed25519"}, **KEY) == first
    assert keys_of(market) == keys
    assert Event.objects.filter(kind="rekeyed").count() == 1
    assert api.post(path, {"ssh_key_type": "rsa"}, 409, **KEY)["error_type"] == "idempotency_key_reused"


def test_a_twin_while_the_first_is_at_work(market: SandboxProcess, api: Api, running: dict[str, Any]) -> None:
    path = f"/sessions/{running['session']['id']}/rekey"
    seen: list[dict[str, Any]] = []

    def twin(request: Any, call: int) -> None:
        if call == 1:
            seen.append(api.post(path, {"ssh_key_type": "ed25519"}, 409, Prefer="wait=0", **KEY))

    with on_the_wire(market, ("POST", ATTACH, twin)) as calls:
        api.post(path, {"ssh_key_type": "ed25519"}, **KEY)
    assert calls == [1]
    assert seen[0]["error_type"] == "idempotency_in_progress"


def test_the_same_key_by_two_at_once_stays(market: SandboxProcess, api: Api, running: dict[str, Any]) -> None:
    """The loser takes its key off only where it is not the winner's too."""
    pair = sshkeys.generate("ed25519", "me@laptop")
    path, body = f"/sessions/{running['session']['id']}/rekey", {"ssh_public_key": pair.public}

    def other(request: Any, call: int) -> None:
        if call == 1:
            api.post(path, body)

    with on_the_wire(market, ("POST", ATTACH, other)):
        api.post(path, body, 409)
    assert opens(running["session"]["id"], pair.private)


def test_the_brokers_own_key_cannot_be_taken_off(market: SandboxProcess, api: Api, running: dict[str, Any]) -> None:
    path = f"/sessions/{running['session']['id']}/rekey"
    ours = Rental.objects.get().broker_public_key
    api.post(path, {"ssh_public_key": ours})
    answer = api.post(path, {"ssh_key_type": "ed25519"})
    assert answer["old_key_removed"] is False
    assert " ".join(ours.split()[:2]) in keys_of(market)
