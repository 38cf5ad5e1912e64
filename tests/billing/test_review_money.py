"""What a hostile look at the money found: each stays as a test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from billing import charges, costs, services
from billing.budget_models import BudgetPeriod
from billing.models import BillFinding
from tests.billing import budget_world as world
from tests.billing.budget_world import StoppedClock, boot, budget, counters, end, gone, refused, rent
from tests.billing.test_matching import NOON, Ticking, charge, compared, covered, metered
from tests.billing.test_matching import now as now
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db


@pytest.fixture
def time(sandbox: SandboxProcess) -> Iterator[StoppedClock]:
    with world.stopped() as moved:
        world.list_offers()
        yield moved


def _reached_into_december(time: StoppedClock) -> None:
    """A session that was promised money of December, and was over in November."""
    time.at = time.at.replace(day=30, hour=23)
    world.list_offers()
    session = rent(1, hours=4)
    boot(session)
    time.advance(minutes=30)
    end(session)
    gone(session)
    assert counters("2026-12") == (0, 0)


def test_a_limit_that_is_lowered_holds_in_months_that_were_reached_into_before(time: StoppedClock) -> None:
    budget(monthly_limit=100)
    _reached_into_december(time)
    budget(monthly_limit=2)
    time.advance(hours=2)
    world.list_offers()
    assert refused(lambda: rent(2)).extra["limit"] == 2
    assert BudgetPeriod.objects.get(period="2026-12").limit_micros == 2_000_000


def test_a_budget_made_soft_refuses_nothing_in_such_a_month(time: StoppedClock) -> None:
    budget(monthly_limit=5)
    _reached_into_december(time)
    budget(monthly_limit=1, hard=False)
    time.advance(hours=2)
    world.list_offers()
    rent(2, hours=8)
    assert BudgetPeriod.objects.get(period="2026-12").cap_micros is None


# -- The meter ---------------------------------------------------------------------------------------------------

START = datetime(2026, 11, 10, 12, tzinfo=UTC)


def _account() -> services.Account:
    return services.Account(uuid.uuid4(), "sess-a", None, "vastai", "RTX 4090")


def _spent(hours: int) -> Decimal:
    return costs.of_session("sess-a", START + timedelta(hours=hours)).total


def test_a_rate_that_is_told_late_costs_no_hour_twice() -> None:
    """A listing from before a bid was changed is read after it."""
    account = _account()
    services.set_rate(account, "gpu", Decimal(1), START)
    services.set_rate(account, "gpu", Decimal(2), START + timedelta(hours=4))
    services.set_rate(account, "gpu", Decimal(1), START + timedelta(hours=2))
    assert _spent(6) == 6


def test_a_machine_that_is_back_costs_nothing_before_it_stood_still() -> None:
    account = _account()
    services.set_rate(account, "gpu", Decimal(1), START)
    services.stop_kind(account.rental_id, "gpu", START + timedelta(hours=4))
    services.set_rate(account, "gpu", Decimal(1), START + timedelta(hours=2))
    assert _spent(6) == 6


def test_a_disk_that_came_late_leaves_the_gpu_alone() -> None:
    account = _account()
    services.set_rate(account, "gpu", Decimal(1), START)
    services.stop_kind(account.rental_id, "gpu", START + timedelta(hours=4))
    services.set_rate(account, "disk", Decimal("0.5"), START + timedelta(hours=2))
    assert _spent(6) == 4 + 2


# -- The provider's bill -----------------------------------------------------------------------------------------


def test_a_refund_for_a_machine_that_cost_us_nothing_does_not_keep_the_others_from_being_compared(
    now: Ticking,
) -> None:
    metered("9", rate="0")
    metered("5")
    charges.keep("vastai", [charge("9", "-1.5"), charge("5", "2")])
    now.at = NOON + timedelta(days=2)
    covered(NOON + timedelta(days=1), first=date(2026, 3, 8))
    assert sorted(compared()) == [
        ("difference", "sess-5", 1, 2, "open"), ("difference", "sess-9", 0, Decimal("-1.5"), "open"),
    ]  # fmt: skip
    assert set(BillFinding.objects.values_list("session_id", "why")) == {
        ("sess-5", "50.0 % more than our books up to 2026-03-10T13:00:00Z"),
        ("sess-9", "100.0 % less than our books up to 2026-03-10T13:00:00Z"),
    }


def test_charges_from_before_what_is_known_are_not_held_against_a_meter_that_is_clipped_there(now: Ticking) -> None:
    """Somebody asked for today alone, a day after the last run: what lies before is not known any more."""
    midnight = datetime(2026, 3, 8, tzinfo=UTC)
    metered("1", start=midnight, hours=60)
    days = [charge("1", "24", start=midnight + timedelta(days=day), hours=24) for day in (0, 1)]
    charges.keep("vastai", [*days, charge("1", "12", start=midnight + timedelta(days=2), hours=12)])
    covered(NOON, first=date(2026, 3, 10))
    assert compared() == []
    charges.keep("vastai", [charge("1", "13", start=midnight + timedelta(days=2), hours=12)])
    assert [row[:4] for row in compared()] == [("difference", "sess-1", 12, 13)]
