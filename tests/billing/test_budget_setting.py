"""Budgets over the end of a month, and budgets that are set, changed and deleted while sessions run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import budget_setting
from billing import services as billing
from billing.budget_models import Budget, BudgetPeriod, Reservation
from gpubroker.common.errors import ApiError, BadField
from sessions_app import budget_views, budget_watch, meter
from sessions_app.models import Event, Session
from sessions_app.states import Status
from tests.billing import budget_world as world
from tests.billing.budget_world import StoppedClock, boot, budget, counters, end, gone, refused, rent, shown
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db
#: Two hours and five minutes for the destroy at a dollar an hour, and 5 %.
TWO_HOURS = Decimal("2.1875")


@pytest.fixture
def time(sandbox: SandboxProcess) -> Iterator[StoppedClock]:
    with world.stopped() as moved:
        world.list_offers()
        yield moved


# -- Months ------------------------------------------------------------------------------------------------------


def test_a_session_across_the_end_of_a_month_reserves_in_both(time: StoppedClock) -> None:
    time.at = time.at.replace(day=30, hour=23)
    world.list_offers()
    budget(monthly_limit=Decimal("1.1"))
    refusal = refused(lambda: rent(1))
    assert (refusal.extra["period"], refusal.extra["shortfall"]) == ("2026-12", Decimal("0.0375"))
    budget(monthly_limit=2)
    session = rent(1)
    assert (counters("2026-11"), counters("2026-12")) == ((0, Decimal("1.05")), (0, Decimal("1.1375")))
    boot(session)
    time.advance(hours=1, minutes=30)
    monthly = shown()["monthly"]
    assert (monthly["period"], monthly["spent"], monthly["reserved"]) == ("2026-12", Decimal("0.5"), Decimal("0.6375"))
    world.assert_books_agree()
    end(session)
    gone(session)
    assert (counters("2026-11"), counters("2026-12")) == ((1, 0), (Decimal("0.5"), 0))


def test_a_new_month_has_its_whole_limit_again(time: StoppedClock) -> None:
    time.at = time.at.replace(day=30, hour=12)
    world.list_offers()
    budget(monthly_limit=3)
    session = rent(1)
    boot(session)
    time.advance(hours=2)
    end(session)
    gone(session)
    refused(lambda: rent(2))
    time.advance(hours=12)
    world.list_offers()
    assert shown()["monthly"]["left"] == 3
    rent(2)
    assert (counters("2026-11"), counters("2026-12")) == ((2, 0), (0, TWO_HOURS))


# -- Setting -----------------------------------------------------------------------------------------------------


def test_a_new_budget_counts_what_was_spent_and_what_runs(time: StoppedClock) -> None:
    first, second = rent(1), rent(2)
    for session in (first, second):
        boot(session)
    time.advance(hours=1)
    end(first)
    gone(first)
    budget(monthly_limit=10, total_limit=20)
    # The second has spent an hour, and may cost another one and five minutes.
    assert counters() == counters("total") == (1, 1 + Decimal("1.1375"))
    assert shown()["monthly"]["spent"] == 2
    world.assert_books_agree()


def test_a_session_that_no_reservation_knows_gets_one(time: StoppedClock) -> None:
    """As if it had been created in the very moment in which the budget was made."""
    budget(monthly_limit=10)
    session = rent(1)
    Reservation.objects.all().delete()
    BudgetPeriod.objects.update(held_micros=0)
    budget_watch.look(session.consumer_id)
    assert counters() == (0, TWO_HOURS)


def test_a_reservation_that_nobody_released_is_released(time: StoppedClock) -> None:
    budget(monthly_limit=10)
    session = rent(1)
    boot(session)
    time.advance(hours=1)
    end(session)
    gone(session)
    Reservation.objects.update(released_at=None, cost=None)
    BudgetPeriod.objects.update(held_micros=int(TWO_HOURS * 10**6), settled_micros=0)
    budget_watch.look(session.consumer_id)
    assert counters() == (1, 0)


def test_changed_and_deleted(time: StoppedClock) -> None:
    budget(monthly_limit=10, thresholds=[80, 20, 80])
    session = rent(1)
    changed = budget(total_limit=7)
    assert (changed.monthly_limit, changed.thresholds) == (None, [50, 80, 95])
    assert changed.total_limit == 7
    assert set(BudgetPeriod.objects.values_list("period", flat=True)) == {"total"}
    assert counters("total") == (0, TWO_HOURS)
    budget_views.delete("me", "staff:test")
    assert (Budget.objects.count(), BudgetPeriod.objects.count(), Reservation.objects.count()) == (0, 0, 0)
    boot(session)
    end(session)
    gone(session)
    assert Session.objects.get().status == Status.STOPPED
    with pytest.raises(ApiError) as caught:
        budget_views.delete("me", "staff:test")
    assert (caught.value.status, caught.value.message) == (404, "budget of me not found")
    told = list(Event.objects.filter(kind="budget_changed").order_by("id").values_list("reason", "actor", "details"))
    assert [(reason, actor) for reason, actor, _ in told] == [
        ("budget set", "staff:test"), ("budget set", "staff:test"), ("budget deleted", "staff:test"),
    ]  # fmt: skip
    assert told[0][2] == {
        "consumer_id": "me", "monthly_limit": "10", "total_limit": None, "hard": True, "thresholds": [20, 80, 80],
    }  # fmt: skip


@pytest.mark.parametrize(
    "wish", [{}, {"monthly_limit": 1, "thresholds": [0]}, {"monthly_limit": 1, "thresholds": [101]}]
)
def test_what_is_no_budget(time: StoppedClock, wish: dict[str, Any]) -> None:
    with pytest.raises(BadField):
        budget(**wish)
    assert Budget.objects.count() == 0


def test_a_correction_of_the_meter_shows_in_the_counters(time: StoppedClock) -> None:
    """Traffic that the provider bills days later, and whatever else is found out."""
    budget(monthly_limit=10)
    session = rent(1)
    rental = boot(session)
    time.advance(hours=1)
    end(session)
    gone(session)
    account = billing.Account(rental.id, session.id, session.consumer_id, "vastai", "RTX 4090")
    billing.set_rate(account, "disk", Decimal("0.5"), time.at)
    time.advance(hours=1)
    billing.settle(rental.id, time.at)
    assert counters() == (1, 0)
    budget_watch.look(session.consumer_id)
    assert counters() == (Decimal("1.5"), 0)
    world.assert_books_agree()


def test_a_price_that_changes_while_it_runs_is_metered_and_promised(time: StoppedClock) -> None:
    budget(monthly_limit=10)
    session = rent(1)
    rental = boot(session)
    time.advance(hours=1)
    meter.run(rental, "gpu", Decimal("1.49"), time.at)
    budget_watch.look(session.consumer_id)
    # An hour at a dollar, then an hour and five minutes at 1.50.
    assert counters() == (0, 1 + (1 + Decimal(5) / 60) * Decimal("1.5") * Decimal("1.05"))
    world.assert_books_agree()


def test_within_the_margin_nothing_changes(time: StoppedClock) -> None:
    budget(monthly_limit=10)
    session = rent(1)
    rental = boot(session)
    meter.run(rental, "gpu", Decimal("1.02"), time.at + timedelta(seconds=1))
    budget_watch.look(session.consumer_id)
    assert counters() == (0, TWO_HOURS)


def test_not_found(time: StoppedClock) -> None:
    with pytest.raises(ApiError, match="budget of nobody not found"):
        budget_setting.found("nobody")
