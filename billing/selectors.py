"""What things cost: sums over meter segments, exact inside and rounded once. And who holds which key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Q, QuerySet

from billing.models import ApiKey, Consumer, MeterSegment
from gpubroker.common import clock
from gpubroker.common.money import SECONDS_PER_HOUR, as_number, exact_cost

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Period:
    """From ``start`` (inclusive) to ``end`` (exclusive), UTC."""

    start: datetime
    end: datetime


def days(first: date, last: date) -> Period:
    """Whole UTC days, both inclusive."""
    start = datetime.combine(first, time.min, UTC)
    if last == date.max:
        return Period(start, datetime.max.replace(tzinfo=UTC))
    return Period(start, datetime.combine(last, time.min, UTC) + timedelta(days=1))


def month_of(moment: datetime) -> Period:
    first = moment.date().replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return days(first, following - timedelta(days=1))


@dataclass(slots=True)
class Costs:
    total: Decimal = ZERO
    gpu_hours: Decimal = ZERO
    sessions: set[str] = field(default_factory=set)
    by_provider: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    by_gpu_type: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    by_kind: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def shown(self) -> dict[str, Any]:
        return {
            "total_cost": as_number(self.total),
            "session_count": len(self.sessions),
            "hours_used": as_number(self.gpu_hours),
            "by_provider": {name: as_number(amount) for name, amount in sorted(self.by_provider.items())},
            "by_gpu_type": {name: as_number(amount) for name, amount in sorted(self.by_gpu_type.items())},
        }


def add_up(segments: Iterable[MeterSegment], now: datetime, period: Period | None = None) -> Costs:
    """Every segment clipped to the period (and to now, while it runs)."""
    costs = Costs()
    for segment in segments:
        start, end = segment.started_at, segment.ended_at or now
        if period is not None:
            start, end = max(start, period.start), min(end, period.end)
        span = max(end - start, timedelta(0))
        amount = exact_cost(segment.rate_per_hour, span)
        costs.total += amount
        costs.by_provider[segment.provider] += amount
        costs.by_gpu_type[segment.gpu_type] += amount
        costs.by_kind[segment.kind] += amount
        if segment.kind == MeterSegment.Kind.GPU:
            costs.gpu_hours += Decimal(span // timedelta(microseconds=1)) / (SECONDS_PER_HOUR * 1_000_000)
        if segment.session_id:
            costs.sessions.add(segment.session_id)
    return costs


def of_session(session_id: str, now: datetime) -> Costs:
    return add_up(MeterSegment.objects.filter(session_id=session_id), now)


def of_period(period: Period, now: datetime, consumer: str | None = None) -> Costs:
    overlapping = Q(started_at__lt=period.end) & (Q(ended_at__isnull=True) | Q(ended_at__gt=period.start))
    segments = MeterSegment.objects.filter(overlapping)
    if consumer:
        segments = segments.filter(consumer__name=consumer)
    return add_up(segments.iterator(chunk_size=2000), now, period)


def consumers() -> QuerySet[Consumer]:
    return Consumer.objects.order_by("name")


def consumer_shown(consumer: Consumer) -> dict[str, Any]:
    return {"consumer_id": consumer.name, "created_at": clock.iso(consumer.created_at)}


def api_keys(consumer: str | None = None) -> QuerySet[ApiKey]:
    """Newest first; all of them, also those that work no more."""
    found = ApiKey.objects.select_related("consumer", "rotated_from").order_by("-created_at", "-id")
    return found if consumer is None else found.filter(consumer__name=consumer)


def key_shown(key: ApiKey) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "consumer_id": key.consumer.name if key.consumer is not None else None,
        "name": key.name,
        "scopes": key.scopes.split(","),
        "state": key.state(clock.now()),
        "created_at": clock.iso(key.created_at),
        "created_by": key.created_by,
        "expires_at": clock.iso(key.expires_at),
        "last_used_at": clock.iso(key.last_used_at),
        "revoked_at": clock.iso(key.revoked_at),
        "rotated_from": key.rotated_from.prefix if key.rotated_from is not None else None,
    }
