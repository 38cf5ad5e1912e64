"""What a consumer has spent in a period, for whoever decides by it (budgets)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from django.db.models import Q

from billing import costs
from billing.models import MeterSegment
from billing.periods import Period


def spent(consumer_id: int, period: Period, now: datetime) -> Decimal:
    """Dollars, exact and not rounded: the consumer's meter clipped to the period, what runs counted up to ``now``.

    Of whole UTC days (a month, :data:`billing.periods.ALL_TIME`) it reads the ledger's days and the tail in one query,
    which sees one state of the books, the caller's own changes among them; of any other period all its segments.
    """
    if period.whole_days:
        return costs.total(period, now, consumer_id)
    overlapping = Q(started_at__lt=period.end) & (Q(ended_at__isnull=True) | Q(ended_at__gt=period.start))
    segments = MeterSegment.objects.filter(overlapping, consumer_id=consumer_id)
    return costs.add_up(segments.iterator(chunk_size=2000), now, period).total


def spent_by_each(consumers: Sequence[int], period: Period, now: datetime) -> dict[int, Decimal]:
    """:func:`spent` of each consumer, over whole UTC days; one query. No entry: nothing."""
    return costs.totals(period, now, consumers)
