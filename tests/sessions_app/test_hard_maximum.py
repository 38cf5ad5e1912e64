"""Staff's word on the hard maximum: later or earlier, with a reason, an event, and every refusal changing nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from gpubroker.common import clock
from sessions_app import drive
from sessions_app.models import Event, Session
from sessions_app.states import FINAL, Status
from tests import keys
from tests.harness import Api, MovableClock
from tests.keys import Caller
from tests.sessions_app.test_extend import row
from tests.sessions_app.test_states import make_session

REASON = "a long training run"


def body(session: Session, **after: float) -> dict[str, Any]:
    return {"hard_max_at": clock.iso(session.created_at + timedelta(**after)), "reason": REASON}


@pytest.mark.django_db
def test_later_and_extend_honours_it(settings: Any) -> None:
    session = make_session(Status.RUNNING)
    staff, mine = keys.staff(), keys.make("me")
    settings.API_AUTH = "key"
    status, answer = Caller(staff.secret)("POST", f"/sessions/{session.id}/hard-maximum", body(session, hours=14))
    until = clock.iso(session.created_at + timedelta(hours=14))
    assert (status, answer) == (200, {
        "message": "hard maximum set", "session_id": session.id, "hard_max_at": until,
        "expires_at": clock.iso(session.expires_at),
    })  # fmt: skip
    fresh = Session.objects.get()
    assert (fresh.hard_max_reason, fresh.expires_at) == (REASON, session.expires_at)
    event = Event.objects.get()
    assert (event.kind, event.reason, event.actor) == ("hard_max_override", REASON, f"staff:{staff.key.prefix}")
    assert event.details == {"before": clock.iso(session.hard_max_at), "hard_max_at": until}
    assert Caller(mine.secret)("POST", f"/sessions/{session.id}/extend", {"additional_hours": 12})[0] == 200
    status, answer = Caller(mine.secret)("POST", f"/sessions/{session.id}/extend", {"additional_hours": 2})
    assert (status, answer["latest_expires_at"]) == (400, until)
    assert answer["error"].endswith(f"the latest allowed end is {until}")


@pytest.mark.django_db
def test_earlier_cuts_the_reservation_and_warns_anew(api: Api, time: MovableClock) -> None:
    session = make_session(Status.RUNNING, warned_minutes=15)
    answer = api.post(f"/sessions/{session.id}/hard-maximum", body(session, minutes=30))
    fresh = Session.objects.get()
    assert answer["expires_at"] == answer["hard_max_at"] == clock.iso(fresh.expires_at)
    assert fresh.expires_at == fresh.hard_max_at
    assert (fresh.warned_minutes, fresh.next_check_at) == (None, fresh.hard_max_at - timedelta(minutes=15))
    override, cut = Event.objects.order_by("id")
    assert (override.kind, cut.kind) == ("hard_max_override", "cut_short")
    assert cut.details == {"before": clock.iso(session.expires_at), "expires_at": answer["expires_at"]}
    time.advance(minutes=31)
    drive.drive_session(session.id)
    assert Session.objects.get().end_reason == "expired"


@pytest.mark.django_db
def test_earlier_but_after_the_reserved_end_leaves_that_alone(api: Api) -> None:
    session = make_session(Status.RUNNING, warned_minutes=15)
    answer = api.post(f"/sessions/{session.id}/hard-maximum", body(session, hours=2))
    fresh = Session.objects.get()
    assert answer["expires_at"] == clock.iso(session.expires_at)
    assert (fresh.expires_at, fresh.warned_minutes) == (session.expires_at, 15)
    assert Event.objects.get().kind == "hard_max_override"
    api.post(f"/sessions/{session.id}/extend", {"additional_hours": 2}, 400)


@pytest.mark.django_db
def test_an_end_that_is_near_at_once_is_warned_of_at_the_next_look(api: Api, time: MovableClock) -> None:
    session = make_session(Status.RUNNING)
    time.advance(minutes=40)
    api.post(f"/sessions/{session.id}/hard-maximum", body(session, minutes=50))
    drive.drive_session(session.id)
    event = Event.objects.get(kind="ending_soon")
    assert (event.details["minutes"], event.details["because"]) == (15, "expires_at")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hard_max_at": "2020-01-01T00:00:00Z"}, "hard_max_at"),
        ({"hard_max_at": "2999-01-01T00:00:00Z"}, "hard_max_at"),
        ({"hard_max_at": "soon"}, "hard_max_at"),
        ({"hard_max_at": None}, "hard_max_at"),
        ({"hard_max_at": 5}, "hard_max_at"),
        ({"reason": ""}, "reason"),
        ({"reason": "  "}, "reason"),
        ({"reason": 5}, "reason"),
        ({"reason": "x" * 301}, "reason"),
        ({"reason": "a\x00b"}, "reason"),
    ],
)
def test_bad_bodies(api: Api, changes: dict[str, Any], field: str) -> None:
    session = make_session(Status.RUNNING)
    before = row(session)
    assert (
        api.post(f"/sessions/{session.id}/hard-maximum", {**body(session, hours=1), **changes}, 400)["field"] == field
    )
    assert row(session) == before
    assert not Event.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("missing", ["hard_max_at", "reason"])
def test_both_fields_are_needed(api: Api, missing: str) -> None:
    session = make_session(Status.RUNNING)
    given = {name: value for name, value in body(session, hours=1).items() if name != missing}
    assert api.post(f"/sessions/{session.id}/hard-maximum", given, 400)["field"] == missing
    assert not Event.objects.exists()


@pytest.mark.django_db
def test_30_days_after_creation_and_not_a_second_more(api: Api) -> None:
    session = make_session(Status.RUNNING)
    answer = api.post(f"/sessions/{session.id}/hard-maximum", body(session, days=30, seconds=1), 400)
    assert "at most 30 days after the session's creation" in answer["error"]
    api.post(f"/sessions/{session.id}/hard-maximum", body(session, days=30))


@pytest.mark.django_db
@pytest.mark.parametrize("status", [Status.STOPPING, *sorted(FINAL)])
def test_too_late(api: Api, status: Status) -> None:
    session = make_session(status)
    before = row(session)
    answer = api.post(f"/sessions/{session.id}/hard-maximum", body(session, hours=20), 409)
    assert answer["error"] == f"session {session.id} is {status}; its hard maximum cannot be moved"
    assert row(session) == before


@pytest.mark.django_db
def test_time_is_up_although_nobody_has_ended_it_yet(api: Api, time: MovableClock) -> None:
    session = make_session(Status.RUNNING)
    before = row(session)
    time.advance(hours=1)
    api.post(f"/sessions/{session.id}/hard-maximum", body(session, hours=20), 409)
    assert row(session) == before


@pytest.mark.django_db
def test_only_staff(settings: Any) -> None:
    session = make_session(Status.RUNNING)
    before = row(session)
    mine = keys.make("me").secret
    settings.API_AUTH = "key"
    path = f"/sessions/{session.id}/hard-maximum"
    status, answer = Caller(mine)("POST", path, body(session, hours=20))
    assert (status, answer["scope"]) == (403, "staff")
    assert Caller()("POST", path, body(session, hours=20))[0] == 401
    assert row(session) == before
    assert not Event.objects.exists()


@pytest.mark.django_db
def test_the_same_request_twice_is_one(api: Api) -> None:
    session = make_session(Status.RUNNING)
    wanted = body(session, hours=20)
    key: dict[str, Any] = {"Idempotency-Key": "max-1"}
    first = api.post(f"/sessions/{session.id}/hard-maximum", wanted, **key)
    assert api.post(f"/sessions/{session.id}/hard-maximum", wanted, **key) == first
    assert Event.objects.count() == 1


@pytest.mark.django_db
def test_unknown_session(api: Api) -> None:
    wanted = {"hard_max_at": clock.iso(clock.now() + timedelta(hours=1)), "reason": REASON}
    assert api.post("/sessions/sess-x/hard-maximum", wanted, 404)["error"] == "session sess-x not found"


@pytest.mark.django_db
def test_a_booting_session_keeps_its_next_look(api: Api) -> None:
    soon = clock.now() + timedelta(seconds=1)
    session = make_session(Status.PROVISIONING, next_check_at=soon)
    api.post(f"/sessions/{session.id}/hard-maximum", body(session, minutes=40))
    fresh = Session.objects.get()
    assert (fresh.next_check_at, fresh.expires_at) == (soon, fresh.hard_max_at)
