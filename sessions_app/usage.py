"""What samples tell of the use of a machine's GPUs, added up by hour; and what idleness cost.

Two samples in a row count for the time between them: as idle when both show less than 5 %, as busy otherwise. What lies
between samples further apart, or next to one that could not tell, is unknown, and counts as neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import F

from billing.models import MeterSegment
from gpubroker.common import clock
from gpubroker.common.money import as_number, exact_cost
from sessions_app.idle import BUSY_PERCENT
from sessions_app.models import ActivitySample, Session, UsageHour

HOUR = timedelta(hours=1)
ZERO = Decimal(0)
SECOND = timedelta(seconds=1)
GROUPS = ("session", "consumer", "gpu_type")
#: Of sessions that one query takes.
BATCH = 500


def note(before: ActivitySample | None, sample: ActivitySample) -> None:
    """Add the time between two samples of a session; in the transaction that writes the second, the session locked."""
    if before is None or before.gpu_utilization is None or sample.gpu_utilization is None:
        return
    if not timedelta(0) < sample.at - before.at <= longest_gap():
        return
    idle = max(before.gpu_utilization, sample.gpu_utilization) < BUSY_PERCENT
    for hour, seconds in _by_hour(before.at, sample.at):
        row, _ = UsageHour.objects.get_or_create(session_id=sample.session_id, hour=hour)
        added = {"known_seconds": F("known_seconds") + seconds}
        added |= {"idle_seconds": F("idle_seconds") + seconds} if idle else {}
        UsageHour.objects.filter(pk=row.pk).update(**added)


def longest_gap() -> timedelta:
    """Machines whose idleness nobody asked about are looked at every ``KEY_CHECK_SECONDS``, a little late at times."""
    return timedelta(seconds=1.2 * max(settings.KEY_CHECK_SECONDS, 300))


def _by_hour(start: datetime, end: datetime) -> Iterator[tuple[datetime, int]]:
    """Whole seconds of a stretch of time within each UTC hour, counted from the epoch: no part is lost twice."""
    hour = start.replace(minute=0, second=0, microsecond=0)
    while hour < end:
        within = min(end, hour + HOUR), max(start, hour)
        seconds = int(within[0].timestamp()) - int(within[1].timestamp())
        if seconds > 0:
            yield hour, seconds
        hour += HOUR


@dataclass(slots=True)
class Waste:
    """Dollars, and seconds of paid, known and idle time."""

    session: Session | None = None
    cost: Decimal = ZERO
    idle_cost: Decimal = ZERO
    paid: timedelta = timedelta(0)
    known_seconds: int = 0
    idle_seconds: int = 0

    def add(self, other: Waste) -> None:
        self.cost += other.cost
        self.idle_cost += other.idle_cost
        self.paid += other.paid
        self.known_seconds += other.known_seconds
        self.idle_seconds += other.idle_seconds

    def shown(self) -> dict[str, Any]:
        hour = Decimal(3600)
        paid = Decimal(self.paid // SECOND)
        return {
            "cost": as_number(self.cost),
            "idle_cost": as_number(self.idle_cost),
            "paid_hours": as_number(paid / hour),
            "known_hours": as_number(self.known_seconds / hour),
            "idle_hours": as_number(self.idle_seconds / hour),
            "idle_share": as_number(self.idle_cost / self.cost) if self.cost else ZERO,
        }


def waste(start: datetime, end: datetime, consumer: str | None = None) -> list[Waste]:
    """Per session that was metered from ``start`` to ``end``: what it cost, and what of it while its GPUs were idle."""
    now = clock.now()
    kinds = (MeterSegment.Kind.GPU, MeterSegment.Kind.DISK)
    segments = MeterSegment.objects.filter(started_at__lt=min(end, now), kind__in=kinds).exclude(session_id="")
    segments = segments.exclude(ended_at__lte=start)
    if consumer is not None:
        segments = segments.filter(consumer__name=consumer)
    by_session: dict[str, list[MeterSegment]] = defaultdict(list)
    for segment in segments.iterator(chunk_size=2000):
        by_session[segment.session_id].append(segment)
    until = min(end, now)
    found = []
    ids = sorted(by_session)
    for first in range(0, len(ids), BATCH):
        batch = ids[first : first + BATCH]
        sessions = Session.objects.select_related("consumer").in_bulk(batch)
        usage = _usage(batch, start, end)
        found += [_of_session(sessions[item], by_session[item], usage[item], start, until) for item in batch]
    return found


def _usage(session_ids: list[str], start: datetime, end: datetime) -> Mapping[str, list[UsageHour]]:
    rows: dict[str, list[UsageHour]] = defaultdict(list)
    hours = UsageHour.objects.filter(session_id__in=session_ids, hour__gte=start, hour__lt=end)
    for row in hours.order_by("hour"):
        rows[row.session_id].append(row)
    return rows


def _of_session(
    session: Session, segments: list[MeterSegment], usage: list[UsageHour], start: datetime, until: datetime
) -> Waste:
    cost, paid = _metered(segments, start, until)
    result = Waste(session, cost=cost, paid=paid)
    for row in usage:
        spent, ran = _metered(segments, row.hour, min(row.hour + HOUR, until))
        # An idle minute costs its share of what that hour's GPU time cost, disk included.
        share = min(Decimal(row.idle_seconds) / max(Decimal(ran // SECOND), Decimal(1)), Decimal(1))
        result.idle_cost += spent * share
        result.known_seconds += row.known_seconds
        result.idle_seconds += row.idle_seconds
    return result


def _metered(segments: Iterable[MeterSegment], start: datetime, until: datetime) -> tuple[Decimal, timedelta]:
    """Dollars within a stretch of time, and for how long of it a GPU was paid."""
    dollars, paid = ZERO, timedelta(0)
    for part in segments:
        span = min(part.ended_at or until, until) - max(part.started_at, start)
        dollars += exact_cost(part.rate_per_hour, span)
        if part.kind == MeterSegment.Kind.GPU:
            paid += max(span, timedelta(0))
    return dollars, paid


def total(rows: Iterable[Waste]) -> Waste:
    """Their sum."""
    result = Waste()
    for row in rows:
        result.add(row)
    return result


def grouped(rows: Iterable[Waste], group_by: str) -> list[dict[str, Any]]:
    """Rows of the report, the most expensive idleness first."""
    groups: dict[str, Waste] = {}
    for row in rows:
        assert row.session is not None
        name = {
            "session": row.session.id, "consumer": row.session.consumer.name, "gpu_type": row.session.gpu_type,
        }[group_by]  # fmt: skip
        groups.setdefault(name, Waste(session=row.session)).add(row)
    ordered = sorted(groups.items(), key=lambda item: (-item[1].idle_cost, item[0]))
    return [{**_named(name, row, group_by), **row.shown()} for name, row in ordered]


def _named(name: str, row: Waste, group_by: str) -> dict[str, Any]:
    if group_by != "session" or row.session is None:
        return {"consumer_id" if group_by == "consumer" else "gpu_type": name}
    session = row.session
    return {
        "session_id": session.id, "consumer_id": session.consumer.name, "gpu_type": session.gpu_type,
        "gpu_count": session.gpu_count, "status": session.status,
    }  # fmt: skip
