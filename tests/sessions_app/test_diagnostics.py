"""Diagnostics and the timeline of a session."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.common import clock
from sessions_app.diagnostics import span
from sessions_app.models import Event, Rental, Session
from sessions_app.states import Status
from sessions_app.transitions import record
from sessions_app.verify import fingerprint
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_session


def test_the_seeds_body(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock) -> None:
    session_id = api.create(reservation_hours=2)["session"]["id"]
    session = driver.until_status(session_id, "running")
    time.advance(minutes=90)
    answer = api.get(f"/sessions/{session_id}/diagnostics")
    up, left = answer.pop("uptime_seconds"), answer.pop("time_to_expiry_seconds")
    assert 5400 <= up < 5430
    assert up + left == pytest.approx(7200, abs=1)
    rental = Rental.objects.get(session=session)
    assert answer == {
        "session_id": session_id, "status": "running", "provider": "vastai", "gpu_type": session.gpu_type,
        "gpu_count": session.gpu_count, "ssh_host": "127.0.0.1", "ssh_port": session.ssh_port, "ssh_user": "root",
        "launch_mode": "ssh", "api_endpoint": "", "created_at": clock.iso(session.created_at),
        "expires_at": clock.iso(session.expires_at), "uptime": "1h 30m", "time_to_expiry": "29m",
        "ssh_available": True, "host_key": fingerprint(rental.host_key),
        "note": "Full SSH diagnostics require client-side SSH access.",
        "ssh_checked_at": clock.iso(rental.key_checked_at),
    }  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("status", [status for status in Status if status != Status.RUNNING])
def test_400_unless_running(api: Api, status: Status) -> None:
    session = make_session(status)
    answer = api.get(f"/sessions/{session.id}/diagnostics", 400)
    assert (answer["error"], answer["status"]) == (f"session {session.id} is not running, it is {status}", status)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["diagnostics", "events"])
def test_404_for_the_unknown(api: Api, path: str) -> None:
    assert api.get(f"/sessions/sess-x/{path}", 404)["error"] == "session sess-x not found"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (45, "45s"), (59, "59s"), (60, "1m"), (1800, "30m"), (3599, "59m"), (3600, "1h 0m"),
     (5400, "1h 30m"), (43_200, "12h 0m"), (180_000, "50h 0m"), (-5, "0s")],
)  # fmt: skip
def test_spans(seconds: int, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text


@given(seconds=st.integers(min_value=0, max_value=8760 * 3600), micro=st.integers(min_value=0, max_value=999_999))
def test_a_span_is_never_more_than_it_was(seconds: int, micro: int) -> None:
    text = span(timedelta(seconds=seconds, microseconds=micro))
    found = re.fullmatch(r"(?:(\d+)h )?(?:(\d+)m)?(?:(\d+)s)?", text)
    assert found is not None
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    told = hours * 3600 + minutes * 60 + rest
    assert told <= seconds < told + (60 if seconds >= 60 else 1)
    assert minutes < 60


def test_the_timeline_ends_with_the_proof(market: SandboxProcess, api: Api, driver: Driver) -> None:
    created = api.create(on_start_cmd="echo hi")
    session_id = created["session"]["id"]
    driver.until_status(session_id, "running")
    token = market.alive()[0]["env"]["GPUBROKER_AGENT_TOKEN"]
    broker_key = Rental.objects.get().broker_key_sealed
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    answer = api.get(f"/sessions/{session_id}/events")
    assert answer["session_id"] == session_id
    assert answer["count"] == answer["total"] == len(answer["events"])
    assert [(e["from"], e["to"]) for e in answer["events"] if e["kind"] == "session"] == [
        ("", "pending"),
        ("pending", "provisioning"),
        ("provisioning", "running"),
        ("running", "stopping"),
        ("stopping", "stopped"),
    ]
    first, last = answer["events"][0], next(e for e in answer["events"] if e["to"] == "closed")
    assert set(first) == {"at", "kind", "from", "to", "reason", "actor", "details"}
    assert (first["actor"], first["reason"]) == ("consumer", "created")
    assert last["details"]["proof"]["answer"] == "the provider has no such machine"
    for secret in (created["ssh_private_key"], token, broker_key, "PRIVATE KEY"):
        assert secret not in str(answer)


@pytest.mark.django_db
def test_pages_and_queries(api: Api, django_assert_num_queries: Any) -> None:
    session, other = make_session(), make_session(offer_id="vastai-2")
    for number in range(30):
        record("note", session_id=session.id, reason=str(number))
        record("note", session_id=other.id, reason="another's")
    page = api.get(f"/sessions/{session.id}/events", limit=3, offset=10)
    assert [event["reason"] for event in page["events"]] == ["10", "11", "12"]
    assert (page["count"], page["total"]) == (3, 30)
    with django_assert_num_queries(3):
        assert api.get(f"/sessions/{session.id}/events")["count"] == 30
    for name, value in {"limit": "0", "offset": "-1"}.items():
        assert api.get(f"/sessions/{session.id}/events", 400, **{name: value})["field"] == name
    assert Event.objects.count() == 60
    assert Session.objects.count() == 2
