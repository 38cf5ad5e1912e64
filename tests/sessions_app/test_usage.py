"""Idle waste: what samples tell of is added up by hour, and priced by the meter."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import services as billing
from gpubroker.common import clock
from sessions_app import samples
from sessions_app.models import ActivitySample, Session, UsageHour
from sessions_app.states import Status
from tests.billing.test_keys_admin import logged_in
from tests.harness import Api
from tests.keys import Caller, make, staff
from tests.sessions_app.test_states import make_rental, make_session

pytestmark = pytest.mark.django_db
START = datetime(2026, 3, 10, 12, tzinfo=UTC)


class Ticking:
    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def now() -> Any:
    ticking = Ticking()
    with clock.use(ticking):
        yield ticking


def running(name: str = "sess-a", rate: str = "2", consumer: str = "me", **more: Any) -> Session:
    """Metered from the start on, GPU and half a dollar of disk an hour."""
    owner = billing.ensure_consumer(consumer)
    session = make_session(Status.RUNNING, id=name, consumer=owner, offer_id=f"vastai-{name}", **more)
    make_rental(session)
    who = billing.Account(uuid.uuid4(), name, owner.pk, "vastai", session.gpu_type)
    billing.set_rate(who, "gpu", Decimal(rate), START)
    billing.set_rate(who, "disk", Decimal("0.5"), START)
    return session


def sample(now: Ticking, session: Session, minutes: float, percent: float | None) -> None:
    now.at = START + timedelta(minutes=minutes)
    samples.take(session.id, ActivitySample.Source.PROBE, samples.Reading(percent, 1000, 0))


def hours(session: Session) -> list[tuple[int, int, int]]:
    rows = UsageHour.objects.filter(session=session).order_by("hour")
    return [(row.hour.hour, row.known_seconds, row.idle_seconds) for row in rows]


def test_two_samples_in_a_row_count_for_the_time_between(now: Ticking) -> None:
    session = running()
    for minutes, percent in ((0, 0), (10, 4.9), (20, 5), (30, 0), (40, 0)):
        sample(now, session, minutes, percent)
    assert hours(session) == [(12, 2400, 1200)]


def test_unknown_is_neither_and_hours_are_apart(now: Ticking) -> None:
    session = running()
    for minutes, percent in ((0, 0), (10, None), (20, 0), (40, 0), (76, 0), (113, 0), (120, 0), (125, 0)):
        sample(now, session, minutes, percent)
    # 20 to 76 in looks of half an hour; 76 to 113 is too far apart; 113 to 125 crosses the hour.
    assert hours(session) == [(12, 2400, 2400), (13, 960 + 420, 960 + 420), (14, 300, 300)]


def test_the_report_prices_idleness_by_the_meter(now: Ticking, api: Api) -> None:
    idle, busy = running("sess-idle"), running("sess-busy", "10", gpu_type="H100")
    for minutes in (0, 30, 60, 90):
        sample(now, idle, minutes, 1)
    for minutes in (0, 30, 60, 90):
        sample(now, busy, minutes, 99)
    now.at = START + timedelta(hours=2)
    report = api.get("/reports/idle-waste")
    assert (report["below_percent"], report["group_by"], report["count"], report["total"]) == (5, "session", 2, 2)
    first, second = report["rows"]
    assert first == {
        "session_id": "sess-idle", "consumer_id": "me", "gpu_type": "RTX 4090", "gpu_count": 1, "status": "running",
        "cost": 5, "idle_cost": 3.75, "paid_hours": 2, "known_hours": 1.5, "idle_hours": 1.5, "idle_share": 0.75,
    }  # fmt: skip
    assert (second["session_id"], second["idle_cost"], second["known_hours"]) == ("sess-busy", 0, 1.5)
    assert report["totals"] == {
        "cost": 26, "idle_cost": 3.75, "paid_hours": 4, "known_hours": 3, "idle_hours": 1.5,
        "idle_share": pytest.approx(0.144231),
    }  # fmt: skip
    by_type = api.get("/reports/idle-waste", group_by="gpu_type")["rows"]
    assert [(row["gpu_type"], row["idle_cost"], row["cost"]) for row in by_type] == [
        ("RTX 4090", 3.75, 5), ("H100", 0, 21),
    ]  # fmt: skip
    assert [row["idle_cost"] for row in api.get("/reports/idle-waste", group_by="consumer")["rows"]] == [3.75]
    assert api.get("/reports/idle-waste", limit=1, offset=1)["rows"][0]["session_id"] == "sess-busy"
    yesterday = api.get("/reports/idle-waste", start_date="2026-03-09", end_date="2026-03-09")
    assert (yesterday["rows"], yesterday["totals"]["idle_share"]) == ([], 0)


def test_what_is_refused(now: Ticking, api: Api) -> None:
    assert api.get("/reports/idle-waste", 400, group_by="provider")["field"] == "group_by"
    assert api.get("/reports/idle-waste", 400, start_date="2020-01-01")["field"] == "start_date"
    assert api.get("/reports/idle-waste", 400, start_date="2026-03-11", end_date="2026-03-10")["field"] == "start_date"


def test_consumers_see_their_own(now: Ticking, settings: Any) -> None:
    settings.API_AUTH = "key"
    running("sess-a")
    running("sess-b", consumer="you")
    now.at = START + timedelta(hours=1)
    me, boss = Caller(make("me").secret), Caller(staff().secret)
    assert [row["session_id"] for row in me("GET", "/reports/idle-waste")[1]["rows"]] == ["sess-a"]
    assert me("GET", "/reports/idle-waste?consumer_id=you")[0] == 403
    assert boss("GET", "/reports/idle-waste")[1]["total"] == 2
    assert boss("GET", "/reports/idle-waste?consumer_id=you")[1]["total"] == 1


def test_many_sessions_take_few_queries(now: Ticking, api: Api, django_assert_max_num_queries: Any) -> None:
    for number in range(40):
        running(f"sess-{number}")
    now.at = START + timedelta(hours=1)
    with django_assert_max_num_queries(6):
        assert api.get("/reports/idle-waste")["total"] == 40


def test_the_admin_still_shows_sessions(now: Ticking) -> None:
    session = running()
    sample(now, session, 0, 0)
    assert logged_in(superuser=True).get(f"/admin/sessions_app/session/{session.id}/change/").status_code == 200
