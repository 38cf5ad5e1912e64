"""What is told of a budget: thresholds, that it is used up, and how long it lasts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import webhooks
from billing.budget_models import Budget
from billing.webhook_models import WebhookMessage
from sessions_app import tasks
from sessions_app.models import Event, Session
from tests.billing import budget_world as world
from tests.billing.budget_world import StoppedClock, boot, budget, end, gone, rent, shown
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db
TWO_HOURS = Decimal("2.1875")
FIVE = timedelta(minutes=5)


@pytest.fixture
def time(sandbox: SandboxProcess) -> Iterator[StoppedClock]:
    with world.stopped() as moved:
        world.list_offers()
        yield moved


def fresh(session: Session) -> Session:
    return Session.objects.get(id=session.id)


def events(session: Session, kind: str) -> list[Event]:
    return list(Event.objects.filter(session_id=session.id, kind=kind).order_by("id"))


def look() -> None:
    """The scheduler's round, for whoever is due."""
    tasks.budgets()


# -- What is told ------------------------------------------------------------------------------------------------


def told(kind: str) -> list[dict[str, Any]]:
    return [message.data for message in WebhookMessage.objects.filter(kind=kind).order_by("at", "subject")]


def test_each_threshold_once_in_a_month(time: StoppedClock) -> None:
    webhooks.make("me", "https://example.com/mine", by="me")
    budget(monthly_limit=4, thresholds=[25, 50, 75])
    session = rent(1, hours=3)
    boot(session)
    time.advance(minutes=59)
    look()
    assert told("budget.threshold") == []
    time.advance(minutes=1)
    look()
    look_later(time)
    assert told("budget.threshold") == [
        {"budget": "monthly", "period": "2026-11", "mode": "hard", "percent": 25, "limit": 4, "spent": 1,
         "reserved": 2.2375, "left": 0.7625}
    ]  # fmt: skip
    time.advance(hours=2)
    look()
    assert sorted(each["percent"] for each in told("budget.threshold")) == [25, 50, 75]
    assert {message.subject for message in WebhookMessage.objects.filter(kind="budget.threshold")} == {"me"}


def look_later(time: StoppedClock) -> None:
    Budget.objects.update(next_check_at=time.at)
    look()


def test_staff_is_told_too_and_others_are_not(time: StoppedClock) -> None:
    for consumer in (None, "you"):
        webhooks.make(consumer, "https://example.com/x", by="me")
    budget(monthly_limit=1, hard=False)
    boot(rent(1))
    time.advance(minutes=30)
    look()
    message = WebhookMessage.objects.get(kind="budget.threshold")
    assert [delivery.endpoint.consumer_id for delivery in message.deliveries.all()] == [None]


def test_used_up_is_told_once(time: StoppedClock) -> None:
    webhooks.make("me", "https://example.com/mine", by="me")
    budget(monthly_limit=1, hard=False, thresholds=[100])
    boot(rent(1))
    time.advance(hours=1)
    look()
    look_later(time)
    assert [(each["spent"], each["left"]) for each in told("budget.exhausted")] == [(1, 0)]
    assert [each["percent"] for each in told("budget.threshold")] == [100]


def test_used_up_is_also_when_sessions_end_for_it(time: StoppedClock) -> None:
    webhooks.make("me", "https://example.com/mine", by="me")
    budget(monthly_limit=3, thresholds=[])
    session = rent(1)
    boot(session)
    time.advance(hours=1)
    budget(monthly_limit=Decimal("1.75"), thresholds=[])
    look()
    assert [(each["limit"], each["spent"], each["reserved"]) for each in told("budget.exhausted")] == [(1.75, 1, 0.75)]
    assert [each["reason"] for each in told("session.extended")] == [events(session, "budget_cut")[0].reason]


def test_under_another_limit_thresholds_are_told_anew(time: StoppedClock) -> None:
    webhooks.make("me", "https://example.com/mine", by="me")
    budget(monthly_limit=4, thresholds=[25])
    boot(rent(1, hours=3))
    time.advance(hours=1)
    look()
    budget(monthly_limit=8, thresholds=[25])
    look()
    assert len(told("budget.threshold")) == 1
    time.advance(hours=1)
    look_later(time)
    assert [each["limit"] for each in told("budget.threshold")] == [4, 8]


# -- What the API tells ------------------------------------------------------------------------------------------


def test_forecast_and_the_hour_in_which_it_runs_dry(time: StoppedClock) -> None:
    budget(monthly_limit=100, total_limit=30)
    session = rent(1, hours=12)
    boot(session)
    time.advance(hours=6)
    found = shown()
    # Six dollars, in less than a day: a quarter of a dollar an hour. To the end of November 486 hours.
    assert (found["average_per_hour"], found["burn_per_hour"]) == (Decimal("0.25"), 1)
    assert (found["monthly"]["spent"], found["monthly"]["forecast"]) == (6, Decimal("127.5"))
    # At a dollar an hour, which runs now, 94 hours and 24.
    assert found["monthly"]["runs_dry_at"] == "2026-11-14T16:00:00Z"
    assert found["total"]["runs_dry_at"] == "2026-11-11T18:00:00Z"
    end(session)
    gone(session)
    found = shown()
    assert (found["burn_per_hour"], found["monthly"]["runs_dry_at"]) == (0, "2026-11-26T10:00:00Z")
    assert found["total"]["runs_dry_at"] == "2026-11-14T18:00:00Z"


def test_it_never_runs_dry_where_the_month_ends_first_or_nothing_is_spent(time: StoppedClock) -> None:
    budget(monthly_limit=1000, total_limit=1000)
    assert [shown()[each]["runs_dry_at"] for each in ("monthly", "total")] == [None, None]
    boot(rent(1, hours=12))
    time.advance(hours=6)
    assert shown()["monthly"]["runs_dry_at"] is None
    assert shown()["total"]["runs_dry_at"] == "2026-12-22T04:00:00Z"
    budget(monthly_limit=1, hard=False)
    assert shown()["monthly"]["runs_dry_at"] == "2026-11-10T18:00:00Z"
