"""Extend: more hours, never beyond the hard maximum, and one winner against the session's own expiry."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from gpubroker.common import clock
from gpubroker.common.errors import ApiError
from sessions_app import drive
from sessions_app.extend import extend
from sessions_app.models import Event, Session
from sessions_app.states import FINAL, Status
from tests.harness import Api, Driver, MovableClock
from tests.interleave import Elsewhere, before_sql
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_session


def row(session: Session) -> dict[str, Any]:
    return dict(Session.objects.filter(id=session.id).values().get())


def test_two_more_hours(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock) -> None:
    session_id = api.create(reservation_hours=1)["session"]["id"]
    before = driver.until_status(session_id, "running").expires_at
    answer = api.post(f"/sessions/{session_id}/extend", {"additional_hours": 2})
    after = before + timedelta(hours=2)
    assert answer == {"message": "session extended", "session_id": session_id, "new_expires_at": clock.iso(after)}
    session = Session.objects.get(id=session_id)
    warning = after - timedelta(minutes=15)
    assert (session.expires_at, session.next_check_at, session.reservation_hours) == (after, warning, 3)
    event = Event.objects.get(session=session, kind="extended")
    assert (event.actor, event.details["hours"]) == ("consumer", 2)
    time.advance(hours=2, minutes=55)
    driver.round()
    assert Session.objects.get(id=session_id).status == "running"
    time.advance(minutes=6)
    assert driver.until_status(session_id, "stopped").end_reason == "expired"


@pytest.mark.django_db
def test_up_to_the_hard_maximum_and_not_beyond(api: Api) -> None:
    session = make_session(Status.RUNNING)
    before = row(session)
    answer = api.post(f"/sessions/{session.id}/extend", {"additional_hours": 12}, 400)
    latest = clock.iso(session.hard_max_at)
    assert answer["error"].startswith("additional_hours: the new end would be ")
    assert answer["error"].endswith(f"the latest allowed end is {latest}")
    assert (answer["field"], answer["latest_expires_at"]) == ("additional_hours", latest)
    assert row(session) == before
    assert not Event.objects.exists()
    assert api.post(f"/sessions/{session.id}/extend", {"additional_hours": 11})["new_expires_at"] == latest


@pytest.mark.django_db
@pytest.mark.parametrize("hours", [0, 13, -1, "2", 1.5, True, None, 10**30])
def test_bad_hours(api: Api, hours: Any) -> None:
    session = make_session(Status.RUNNING)
    assert api.post(f"/sessions/{session.id}/extend", {"additional_hours": hours}, 400)["field"] == "additional_hours"
    assert row(session)["expires_at"] == session.expires_at


@pytest.mark.django_db
@pytest.mark.parametrize("status", [Status.STOPPING, *sorted(FINAL)])
def test_too_late(api: Api, status: Status) -> None:
    session = make_session(status)
    before = row(session)
    answer = api.post(f"/sessions/{session.id}/extend", {"additional_hours": 1}, 409)
    assert answer["error"] == f"session {session.id} is {status} and cannot be extended"
    assert answer["status"] == status
    assert row(session) == before


@pytest.mark.django_db
def test_time_is_up_although_nobody_has_ended_it_yet(api: Api, time: MovableClock) -> None:
    session = make_session(Status.RUNNING)
    time.advance(hours=1)
    assert "expired at" in api.post(f"/sessions/{session.id}/extend", {"additional_hours": 1}, 409)["error"]
    assert Session.objects.get().expires_at == session.expires_at


@pytest.mark.django_db
def test_a_booting_session_keeps_its_next_look(api: Api) -> None:
    soon = clock.now() + timedelta(seconds=1)
    session = make_session(Status.PROVISIONING, next_check_at=soon)
    api.post(f"/sessions/{session.id}/extend", {"additional_hours": 1})
    assert Session.objects.get().next_check_at == soon


@pytest.mark.django_db
def test_unknown_session(api: Api) -> None:
    assert api.post("/sessions/sess-x/extend", {"additional_hours": 1}, 404)["error"] == "session sess-x not found"


@pytest.mark.django_db
def test_expiry_that_was_decided_before_the_extension_does_nothing(time: MovableClock) -> None:
    """The driver saw the old end; the extension is committed before the driver has the row."""
    session = make_session(Status.RUNNING)
    time.advance(hours=1, seconds=1)

    def extended_by_a_host_whose_clock_is_behind() -> None:
        time.advance(seconds=-2)
        extend(session.id, 1)
        time.advance(seconds=2)

    with before_sql(r"SAVEPOINT", extended_by_a_host_whose_clock_is_behind) as happened:
        drive.drive_session(session.id)
    assert happened
    assert Session.objects.get().status == "running"
    assert Session.objects.get().expires_at == session.expires_at + timedelta(hours=1)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_extension_has_the_row_first(time: MovableClock) -> None:
    session = make_session(Status.RUNNING)
    time.advance(minutes=59, seconds=59, milliseconds=900)
    expiry = Elsewhere(lambda: drive.drive_session(session.id))

    def time_runs_out_meanwhile() -> None:
        time.advance(seconds=1)
        expiry.start()  # it sees the old end, and waits for the row

    with before_sql(r"UPDATE .sessions_app_session", time_runs_out_meanwhile) as happened:
        extend(session.id, 1)
    expiry.finish()
    assert happened
    after = Session.objects.get()
    assert (after.status, after.expires_at) == ("running", session.expires_at + timedelta(hours=1))


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_expiry_has_the_row_first(time: MovableClock) -> None:
    session = make_session(Status.RUNNING)
    time.advance(hours=1, seconds=1)
    refused: list[int] = []

    def try_to_extend() -> None:
        with pytest.raises(ApiError) as error:
            extend(session.id, 1)
        refused.append(error.value.status)

    extension = Elsewhere(try_to_extend)
    with before_sql(r"UPDATE .sessions_app_session", extension.start) as happened:
        drive.drive_session(session.id)
    extension.finish()
    assert (bool(happened), refused) == (True, [409])
    after = Session.objects.get()
    assert (after.status, after.end_reason, after.expires_at) == ("stopped", "expired", session.expires_at)
