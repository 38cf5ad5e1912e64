"""Warnings 15 and 5 minutes before an end: each once per end, also after a restart, and only those that fit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from gpubroker.common import clock
from sessions_app import drive, warning
from sessions_app.extend import extend
from sessions_app.models import Event, Session
from sessions_app.states import FINAL, Status
from tests.harness import Api, Driver, MovableClock
from tests.interleave import before_sql
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_session


def warned() -> list[int]:
    rows = Event.objects.filter(kind="ending_soon").order_by("id")
    return [row.details["minutes"] for row in rows]


def drive_it() -> Session:
    drive.drive_session(Session.objects.get().id)
    return Session.objects.get()


@pytest.mark.django_db
def test_two_warnings_each_once(time: MovableClock) -> None:
    session = make_session(Status.RUNNING)
    end = session.expires_at
    assert drive_it().next_check_at == end - timedelta(minutes=15)
    assert warned() == []
    time.advance(minutes=45, seconds=1)
    assert drive_it().next_check_at == end - timedelta(minutes=5)
    assert warned() == [15]
    drive_it()  # as after a restart, or a nudge that came twice
    assert warned() == [15]
    time.advance(minutes=10)
    assert drive_it().next_check_at == end
    drive_it()
    assert warned() == [15, 5]
    first, _ = Event.objects.filter(kind="ending_soon").order_by("id")
    assert (first.reason, first.actor) == (f"ends at {clock.iso(end)}", "broker")
    left = first.details.pop("seconds_left")
    assert 14 * 60 < left < 15 * 60
    assert first.details == {"ends_at": clock.iso(end), "minutes": 15, "because": "expires_at"}
    time.advance(minutes=5)
    assert drive_it().end_reason == "expired"
    assert warned() == [15, 5]


def test_from_a_real_boot_to_the_end(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock) -> None:
    session_id = api.create(reservation_hours=1)["session"]["id"]
    running = driver.until_status(session_id, "running")
    assert running.next_check_at == running.expires_at - timedelta(minutes=15)
    time.advance(minutes=46)
    driver.round()
    time.advance(minutes=10)
    driver.round()
    assert warned() == [15, 5]
    time.advance(minutes=5)
    assert driver.until_status(session_id, "stopped").end_reason == "expired"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("left", "given"), [(16, []), (12, [15]), (3, [5]), (0, [])]
)  # fmt: skip
def test_what_was_missed_while_nothing_ran_is_given_late_and_once(
    time: MovableClock, left: int, given: list[int]
) -> None:
    make_session(Status.RUNNING)
    time.advance(minutes=60 - left)
    drive_it()
    assert warned() == given


@pytest.mark.django_db
@pytest.mark.parametrize(("minutes", "first"), [(10, 5), (15, 5), (16, 15), (4, None)])
def test_a_short_session_gets_those_that_fit(time: MovableClock, minutes: int, first: int | None) -> None:
    session = make_session(Status.RUNNING, expires_at=clock.now() + timedelta(minutes=minutes))
    checked = drive_it().next_check_at
    assert checked == session.expires_at - timedelta(minutes=first or 0)
    assert warned() == []


@pytest.mark.django_db
def test_an_extension_makes_them_due_anew(api: Api, time: MovableClock) -> None:
    session = make_session(Status.RUNNING)
    time.advance(minutes=56)
    assert drive_it().warned_minutes == 5
    api.post(f"/sessions/{session.id}/extend", {"additional_hours": 1})
    fresh = Session.objects.get()
    assert (fresh.warned_minutes, fresh.next_check_at) == (None, fresh.expires_at - timedelta(minutes=15))
    time.advance(minutes=50)
    drive_it()
    time.advance(minutes=10)
    drive_it()
    assert warned() == [5, 15, 5]


@pytest.mark.django_db
def test_an_extension_in_the_same_moment_leaves_nothing_to_warn_of(time: MovableClock) -> None:
    """The driver saw the old end; the extension is committed before the driver has the row."""
    session = make_session(Status.RUNNING)
    drive_it()
    time.advance(minutes=50)

    def extended() -> None:
        extend(session.id, 2)

    with before_sql(r"SAVEPOINT", extended) as happened:
        drive.drive_session(session.id)
    fresh = Session.objects.get()
    assert happened
    assert warned() == []
    assert fresh.next_check_at == fresh.expires_at - timedelta(minutes=15)


@pytest.mark.django_db
def test_a_booting_session_is_warned_too_and_a_pending_one_is_not(time: MovableClock) -> None:
    make_session(Status.PROVISIONING)
    time.advance(minutes=46)
    drive_it()
    drive_it()
    assert warned() == [15]
    Session.objects.update(status=Status.PENDING, warned_minutes=None)
    warning.tend(Session.objects.get().id)
    assert Session.objects.get().next_check_at == Session.objects.get().expires_at
    assert warned() == [15]


@pytest.mark.django_db
@pytest.mark.parametrize("status", [Status.STOPPING, *sorted(FINAL)])
def test_nobody_is_warned_of_an_end_that_has_come(time: MovableClock, status: Status) -> None:
    changes: dict[str, Any] = {"end_reason": "done"}
    make_session(status, **changes)
    time.advance(minutes=50)
    drive_it()
    assert warned() == []
