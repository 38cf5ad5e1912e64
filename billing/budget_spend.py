"""What was really spent, as budgets count it: of a consumer in a period, and of sessions by period."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal

from billing import spending
from billing.budget_parts import TOTAL, Stretch, by_period, month_start
from billing.models import MeterSegment
from billing.periods import ALL_TIME, Period, month_of

#: Dollars by period.
Spent = dict[str, Decimal]


def of_consumer(consumer_id: int, period: str, now: datetime) -> Decimal:
    """Everything that the consumer's machines cost in a month, or ever; exact."""
    return spending.spent(consumer_id, span_of(period), now)


def of_consumers(consumers: Sequence[int], period: str, now: datetime) -> dict[int, Decimal]:
    """:func:`of_consumer` of many, by one query. No entry: nothing."""
    return spending.spent_by_each(consumers, span_of(period), now)


def span_of(period: str) -> Period:
    return ALL_TIME if period == TOTAL else month_of(month_start(period))


def of_sessions(session_ids: Collection[str], now: datetime) -> dict[str, Spent]:
    """Each session's cost up to ``now`` by period, exact; one query. No entry: it has cost nothing yet."""
    stretches: dict[str, list[Stretch]] = defaultdict(list)
    segments = MeterSegment.objects.filter(session_id__in=session_ids).values_list(
        "session_id", "started_at", "ended_at", "rate_per_hour"
    )
    for session_id, started_at, ended_at, rate in segments:
        stretches[session_id].append(Stretch(started_at, ended_at or now, rate))
    return {session_id: by_period(found) for session_id, found in stretches.items()}


def of_session(session_id: str, now: datetime) -> Spent:
    return of_sessions([session_id], now).get(session_id, {})
