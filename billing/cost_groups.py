"""Costs by hour, day, session, GPU type, provider or consumer: the ledger's rows, and the tail beyond them.

As in :mod:`billing.costs`, one statement reads both and sees one state of the books. Every group is exact; as printed,
the column of totals adds up to the printed total.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from django.db import models
from django.db.models import BooleanField, CharField, DateTimeField, F, Q, QuerySet, Sum, Value
from django.db.models.functions import Cast, Coalesce, TruncDay

from billing.costs import hours, named
from billing.ledger import MICROSECOND
from billing.ledger import hours as by_hour
from billing.ledger_models import as_units
from billing.models import LedgerRow, MeterSegment
from billing.periods import Period
from gpubroker.common import clock
from gpubroker.common.money import apportion, as_number, dollars, units

Kind = MeterSegment.Kind
HOUR, DAY = "hour", "day"
#: What names a group that is not one of time: a column of ledger rows and of meter segments alike.
NAMES = {"session": "session_id", "gpu_type": "gpu_type", "provider": "provider", "consumer": "consumer__name"}
GROUPS = (DAY, HOUR, *NAMES)
_COLUMNS = (
    "name", "moment", "sort", "failed", "kept", "rate", "start", "end", "was_from", "was_to", "nanos", "rest", "micros",
)  # fmt: skip


@dataclass(slots=True)
class Group:
    """Amounts in units (:func:`gpubroker.common.money.dollars`), each a part of ``total``."""

    total: int = 0
    gpu: int = 0
    disk: int = 0
    bandwidth: int = 0
    failed: int = 0
    kept: int = 0
    gpu_microseconds: int = 0
    #: Something costs here, if nothing an hour.
    seen: int = 0

    def add(self, kind: str, amount: int, microseconds: int, *, failed: bool, kept: bool) -> None:
        self.total += amount
        self.seen += microseconds
        self.failed += amount if failed else 0
        self.kept += amount if kept else 0
        if kind == Kind.GPU:
            self.gpu += amount
            self.gpu_microseconds += microseconds
        elif kind == Kind.DISK:
            self.disk += amount
        else:
            self.bandwidth += amount


Groups = dict[str, Group]
Line = dict[str, Any]


def grouped(
    group_by: str, period: Period, now: datetime, *, consumer: str | None = None, session_id: str | None = None
) -> Groups:
    """Of whole UTC days, sorted by name or time; groups in which nothing ran are left out. What runs counts to now."""
    mine = Q() if consumer is None else Q(consumer_id__in=named(consumer))
    if session_id is not None:
        mine &= Q(session_id=session_id)
    found: defaultdict[str, Group] = defaultdict(Group)
    for name, moment, kind, failed, kept, rate, *spans, nanos, rest, micros in _read(group_by, period, mine):
        if rate is None:
            key = name if moment is None else _printed(group_by, moment)
            found[key].add(kind, as_units(int(nanos), int(rest)), int(micros), failed=failed, kept=kept)
            continue
        for moment, micros in _pieces(spans, period, now, apart=group_by in (DAY, HOUR)):
            key = name if group_by in NAMES else _printed(group_by, moment)
            found[key].add(kind, units(rate, micros), micros, failed=failed, kept=kept)
    return {key: found[key] for key in sorted(found) if found[key].seen}


def shown(group_by: str, groups: Groups, *, after: str | None = None, most: int | None = None) -> Iterator[Line]:
    """As the API prints them, one by one: at most ``most`` of those that come after the group of that name. All lines
    add up to the printed total, on however many pages they are."""
    totals = apportion([dollars(group.total) for group in groups.values()])
    named = zip(groups.items(), totals, strict=True)
    rest = (each for each in named if after is None or each[0][0] > after)
    for (key, group), total in islice(rest, most):
        yield {
            COLUMN[group_by]: key,
            "total_cost": total,
            **{name: as_number(dollars(getattr(group, field))) for name, field in PARTS.items()},
            "hours_used": as_number(hours(group.gpu_microseconds)),
        }


def following(group_by: str, groups: Groups, page: Sequence[Line]) -> str | None:
    """What the next page comes after; ``None``: there is none."""
    last = str(page[-1][COLUMN[group_by]]) if page else None
    return last if last is not None and last != next(reversed(groups)) else None


#: How a group's key is called in answers, where not as the group is.
COLUMN = {**{name: name for name in GROUPS}, "session": "session_id", "consumer": "consumer_id"}
PARTS = {
    "gpu_cost": "gpu", "storage_cost": "disk", "bandwidth_cost": "bandwidth",
    "failed_attempts_cost": "failed", "preserved_disk_cost": "kept",
}  # fmt: skip


def columns(group_by: str) -> list[str]:
    return [COLUMN[group_by], "total_cost", *PARTS, "hours_used"]


def total(groups: Groups) -> Decimal:
    """Dollars, exact."""
    return dollars(sum(group.total for group in groups.values()))


def total_hours(groups: Groups) -> Decimal:
    return hours(sum(group.gpu_microseconds for group in groups.values()))


def _printed(group_by: str, moment: datetime) -> str:
    if group_by == DAY:
        return moment.astimezone(UTC).date().isoformat()
    return clock.iso(moment) or ""


def _pieces(
    spans: Sequence[datetime | None], period: Period, now: datetime, *, apart: bool
) -> Iterator[tuple[datetime, int]]:
    """What of a segment is not booked, with its sign: hour by hour or (``apart`` false) as a whole."""
    start, end, was_from, was_to = spans
    assert start is not None
    for first, last, sign in ((start, max(now, start) if end is None else end, 1), (was_from, was_to, -1)):
        if first is None or last is None:
            continue
        since, until = max(first, period.start), min(last, period.end)
        if since >= until:
            continue
        if apart:
            yield from ((hour, sign * span) for hour, span in by_hour(since, until))
        else:
            yield since, sign * ((until - since) // MICROSECOND)


def _read(group_by: str, period: Period, mine: Q) -> QuerySet[Any, Any]:
    """Ledger rows by group, then (where ``rate`` is not null) the segments of the tail one by one."""
    name: Any = Coalesce(F(NAMES[group_by]), Value("")) if group_by in NAMES else Value("")
    moment: Any = _null(DateTimeField())
    if group_by not in NAMES:
        moment = TruncDay("hour", tzinfo=UTC) if group_by == DAY else F("hour")
    times = ("start", "end", "was_from", "was_to")
    booked = LedgerRow.objects.filter(mine, hour__gte=period.start, hour__lt=period.end).order_by().values(
        name=Cast(name, CharField()), moment=moment, sort=F("kind"), failed=F("failed_attempt"), kept=F("preserved"),
        rate=_null(models.DecimalField(max_digits=14, decimal_places=8)),
        **{time: _null(DateTimeField()) for time in times},
    ).annotate(nanos=Sum("nanos"), rest=Sum("rest"), micros=Sum("microseconds"))  # fmt: skip
    tail = MeterSegment.objects.filter(mine, book_at__isnull=False).order_by().values_list(
        Cast(name, CharField()), _null(DateTimeField()), F("kind"), Cast("failed_attempt", BooleanField()),
        Cast("preserved", BooleanField()), F("rate_per_hour"), F("started_at"), F("ended_at"), F("booked_from"),
        F("booked_to"), *[_null(models.BigIntegerField())] * 3,
    )  # fmt: skip
    return booked.values_list(*_COLUMNS).union(tail, all=True)


def _null(of: models.Field[Any, Any]) -> Cast:
    """Of a type, as both halves of a union need the same."""
    return Cast(Value(None), of)
