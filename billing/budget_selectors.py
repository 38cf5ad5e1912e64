"""What the API tells of a budget: read from the meter and the open reservations, at this second."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Min

from billing import budget_spend as spend
from billing import spending
from billing.budget_models import Budget
from billing.budget_parts import TOTAL, Parts, month_end, month_key
from billing.budgets import limit_of, open_parts
from billing.models import MeterSegment
from billing.periods import days
from gpubroker.common import clock
from gpubroker.common.money import as_number, from_micros

ZERO = Decimal(0)
#: The pace of a forecast is that of today and the six days before, or of the time since the first machine, if that is
#: shorter, but of no less than a day.
DAYS_BEFORE, DAY = timedelta(days=6), timedelta(days=1)
HOUR = Decimal(3600)
#: A budget that would last longer does not run dry.
LONGEST_HOURS = Decimal(24 * 3650)


def shown(budget: Budget, now: datetime) -> dict[str, Any]:
    parts = open_parts(budget)
    open_spent = spend.of_sessions(list(parts), now)
    average, burn = average_per_hour(budget.consumer_id, now), burn_per_hour(budget.consumer_id)
    limits = {
        name: _limit_shown(budget, period, parts, open_spent, average, burn, now)
        for name, period in (("monthly", month_key(now)), ("total", TOTAL))
    }
    return {
        "consumer_id": budget.consumer.name,
        "mode": "hard" if budget.hard else "soft",
        "thresholds": budget.thresholds,
        "currency": "USD",
        **limits,
        "burn_per_hour": as_number(burn),
        "average_per_hour": as_number(average),
        "updated_at": clock.iso(budget.updated_at),
        "updated_by": budget.updated_by,
    }


def _limit_shown(
    budget: Budget, period: str, parts: dict[str, Parts], open_spent: dict[str, spend.Spent], average: Decimal,
    burn: Decimal, now: datetime,
) -> dict[str, Any] | None:  # fmt: skip
    limit = limit_of(budget, period)
    if limit is None:
        return None
    spent = spend.of_consumer(budget.consumer_id, period, now)
    reserved = reserved_in(period, parts, open_spent)
    months_end = month_end(month_key(now))
    return {
        "period": None if period == TOTAL else period,
        "limit": as_number(limit),
        "spent": as_number(spent),
        "reserved": as_number(reserved),
        "left": as_number(max(limit - spent - reserved, ZERO)),
        "over": as_number(max(spent + reserved - limit, ZERO)) if budget.hard else as_number(max(spent - limit, ZERO)),
        "forecast": as_number(spent + average * _hours(months_end - now)),
        "runs_dry_at": clock.iso(_dry(limit - spent, max(average, burn), now, None if period == TOTAL else months_end)),
    }


def reserved_in(period: str, parts: dict[str, Parts], open_spent: dict[str, spend.Spent]) -> Decimal:
    """Of each session's worst case, what it has not spent yet."""
    return sum(
        (
            max(from_micros(each.get(period, 0)) - open_spent.get(session_id, {}).get(period, ZERO), ZERO)
            for session_id, each in parts.items()
        ),
        ZERO,
    )


def burn_per_hour(consumer_id: int) -> Decimal:
    """What the consumer's machines cost an hour right now."""
    rates = MeterSegment.objects.filter(consumer_id=consumer_id, ended_at__isnull=True)
    return sum(rates.values_list("rate_per_hour", flat=True), ZERO)


def average_per_hour(consumer_id: int, now: datetime) -> Decimal:
    first = MeterSegment.objects.filter(consumer_id=consumer_id).aggregate(at=Min("started_at"))["at"]
    if first is None:
        return ZERO
    week = days((now - DAYS_BEFORE).date(), now.date())
    return spending.spent(consumer_id, week, now) / _hours(max(now - max(first, week.start), DAY))


def _hours(span: timedelta) -> Decimal:
    return Decimal(span // timedelta(seconds=1)) / HOUR


def _dry(left: Decimal, pace: Decimal, now: datetime, before: datetime | None) -> datetime | None:
    """The hour in which ``left`` is spent at that pace; ``None``: never, or not ``before`` the month ends."""
    if left > 0 and (pace <= 0 or left / pace > LONGEST_HOURS):
        return None
    at = now + timedelta(seconds=int(left / pace * HOUR)) if left > 0 else now
    if before is not None and at >= before:
        return None
    return at.replace(minute=0, second=0, microsecond=0)
