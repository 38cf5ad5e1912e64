"""Books the meter into the ledger: every UTC hour that is over becomes a row per rental and kind.

Each segment says what of it is booked (``booked_from``, ``booked_to``). A step takes segments that are due, writes the
difference between that and what they are now, and moves both together with the rows in one transaction. So repeats and
late runs find no difference, a crash leaves none, two that run at once skip each other's segments, and whatever was
given back or found later corrects the rows of the hours that it belongs to.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from django.db import models, transaction
from django.db.models import ExpressionWrapper, F, Sum, Value
from django.db.models.functions import Cast, Coalesce, Round, TruncDate

from billing.ledger_models import REST_PER_NANO, LedgerDay, LedgerRow
from billing.ledger_sums import add_rows, add_selected, among
from billing.metering import HOUR, hour_of
from billing.models import MeterChange, MeterSegment
from gpubroker.common import clock
from gpubroker.common.money import units

#: Segments of one transaction, and hours that one of them may catch up on in it.
TOGETHER = 2000
CATCH_UP = 48
#: More changes than this are not worth counting at every request.
MOST_CHANGES = 2000
MICROSECOND = timedelta(microseconds=1)
#: A moment that does not come: the segment is booked to an hour's end, and waits for nothing but the next.
HOURLY = datetime.max.replace(tzinfo=UTC)


class Segment(NamedTuple):
    """A :class:`MeterSegment`, as far as it matters here."""

    id: int
    rental_id: uuid.UUID
    session_id: str
    consumer_id: int | None
    provider: str
    gpu_type: str
    kind: str
    rate_per_hour: Decimal
    started_at: datetime
    ended_at: datetime | None
    failed_attempt: bool
    preserved: bool
    booked_from: datetime | None
    booked_to: datetime | None


class RowKey(NamedTuple):
    rental_id: uuid.UUID
    hour: datetime
    kind: str
    preserved: bool


class DayKey(NamedTuple):
    account: int
    day: date
    provider: str
    gpu_type: str
    kind: str


@dataclass(slots=True)
class Delta:
    """By how much a row changes."""

    microseconds: int = 0
    units: int = 0

    def add(self, microseconds: int, amount: int) -> None:
        self.microseconds += microseconds
        self.units += amount


@dataclass(slots=True)
class Step:
    """What one transaction writes."""

    rows: dict[RowKey, tuple[Segment, Delta]] = field(default_factory=dict)
    days: defaultdict[DayKey, Delta] = field(default_factory=lambda: defaultdict(Delta))
    #: By (``booked_to``, ``book_at``): the segments that are booked so far, and looked at again then.
    booked: defaultdict[tuple[datetime | None, datetime | None], list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def book(self, segment: Segment, over: datetime, now: datetime) -> None:
        """Up to ``over``, the end of the last hour that is over."""
        end = over if segment.ended_at is None else min(segment.ended_at, over)
        soon = hour_of(max(segment.booked_to or segment.started_at, segment.started_at)) + CATCH_UP * HOUR
        to = min(end, soon)
        if to <= segment.started_at:
            self._difference(segment, None)
            ended = segment.ended_at is not None and segment.ended_at <= over
            again = None if ended else max(over, hour_of(segment.started_at)) + HOUR
            self.booked[None, again].append(segment.id)
            return
        self._difference(segment, to)
        # What runs on is booked by the hour from here on, until the meter changes.
        waits = HOURLY if segment.ended_at is None else now if to < end else over + HOUR
        self.booked[to, None if to == segment.ended_at else waits].append(segment.id)

    def _difference(self, segment: Segment, to: datetime | None) -> None:
        start, was_from, was_to = segment.started_at, segment.booked_from, segment.booked_to
        if to is not None and was_to is not None and was_from == start and was_to <= to:
            self._add(segment, was_to, to, 1)
            return
        if was_from is not None and was_to is not None:
            self._add(segment, was_from, was_to, -1)
        if to is not None:
            self._add(segment, start, to, 1)

    def _add(self, segment: Segment, start: datetime, end: datetime, sign: int) -> None:
        for hour, span in hours(start, end):
            amount = sign * units(segment.rate_per_hour, span)
            key = RowKey(segment.rental_id, hour, segment.kind, segment.preserved)
            if key not in self.rows:
                self.rows[key] = (segment, Delta())
            self.rows[key][1].add(sign * span, amount)
            day = DayKey(segment.consumer_id or 0, hour.date(), segment.provider, segment.gpu_type, segment.kind)
            self.days[day].add(sign * span, amount)


def hours(start: datetime, end: datetime) -> Iterator[tuple[datetime, int]]:
    """Every UTC hour that the span touches, and its microseconds in it."""
    hour = hour_of(start)
    while start < end:
        hour_end = hour + HOUR
        until = min(hour_end, end)
        yield hour, (until - start) // MICROSECOND
        start, hour = until, hour_end


def accrue() -> int:
    """Book everything that is due, in bounded transactions; how many segments were looked at."""
    now, looked_at = clock.now().astimezone(UTC), 0
    for step in (_step, _whole_hours):
        while some := step(now):
            looked_at += some
    if MeterChange.objects.count() > MOST_CHANGES:
        forget_changes()
    return looked_at


def _whole_hours(now: datetime) -> int:
    """Inside the database, the next hour of segments that are booked up to an hour and cost for all of the next, as
    nearly all do that are due. A whole hour costs the rate, which is a whole number of billionths of a dollar."""
    over = hour_of(now)
    next_hour = ExpressionWrapper(F("booked_to") + HOUR, models.DateTimeField())
    # No indexed column changes: on PostgreSQL that is what makes the update cheap.
    due = MeterSegment.objects.filter(ended_at__isnull=True, book_at=HOURLY, booked_to__lte=over - HOUR)
    with transaction.atomic():
        locked = due.order_by("id").select_for_update(skip_locked=True, no_key=True)
        ids = list(locked.values_list("id", flat=True)[:TOGETHER])
        mine = MeterSegment.objects.filter(among(MeterSegment, ids))
        if ids:
            _add_whole_hours(mine)
            mine.update(booked_to=next_hour)
    return len(ids)


def _add_whole_hours(mine: models.QuerySet[MeterSegment]) -> None:
    whole = {
        "microseconds": Value(HOUR // MICROSECOND, models.BigIntegerField()),
        "nanos": Cast(Round(F("rate_per_hour") * 10**9), models.BigIntegerField()),
        "rest": Value(0, models.BigIntegerField()),
    }
    rows = mine.order_by("rental_id", "booked_to", "kind", "preserved").values(
        "rental_id", "kind", "preserved", "failed_attempt", "session_id", "consumer_id", "provider", "gpu_type",
        hour=F("booked_to"), **whole,
    )  # fmt: skip
    days = mine.values(
        "provider", "gpu_type", "kind", account=Coalesce("consumer_id", 0), day=TruncDate("booked_to", tzinfo=UTC)
    ).annotate(**{name: Sum(amount) for name, amount in whole.items()})
    add_selected(LedgerRow, RowKey._fields, rows)
    add_selected(LedgerDay, DayKey._fields, days.order_by(*DayKey._fields))


def _step(now: datetime) -> int:
    """Everything else, segment by segment."""
    with transaction.atomic():
        due = MeterSegment.objects.filter(book_at__lte=now).order_by("book_at", "id")
        locked = due.select_for_update(skip_locked=True, no_key=True).values_list(*Segment._fields)[:TOGETHER]
        segments = [Segment._make(values) for values in locked]
        step, over = Step(), hour_of(now)
        for segment in segments:
            step.book(segment, over, now)
        _write(step)
    return len(segments)


def _write(step: Step) -> None:
    """In one order for everybody, so that two never wait for each other in a circle."""
    rows = [
        {
            **key._asdict(), **_amount(delta), "failed_attempt": segment.failed_attempt,
            "session_id": segment.session_id, "consumer_id": segment.consumer_id, "provider": segment.provider,
            "gpu_type": segment.gpu_type,
        }
        for key, (segment, delta) in sorted(step.rows.items(), key=lambda each: each[0]) if delta != Delta()
    ]  # fmt: skip
    days = [{**key._asdict(), **_amount(delta)} for key, delta in sorted(step.days.items()) if delta != Delta()]
    add_rows(LedgerRow, RowKey._fields, rows)
    add_rows(LedgerDay, DayKey._fields, days)
    for (to, again), ids in step.booked.items():
        mine = MeterSegment.objects.filter(among(MeterSegment, ids))
        mine.update(booked_from=F("started_at") if to else None, booked_to=to, book_at=again)
    given_back = {row["rental_id"] for row in rows if row["microseconds"] < 0}
    LedgerRow.objects.filter(rental_id__in=given_back, microseconds=0).delete()


def _amount(delta: Delta) -> dict[str, int]:
    nanos, rest = divmod(delta.units, REST_PER_NANO)
    return {"microseconds": delta.microseconds, "nanos": nanos, "rest": rest}


def forget_changes() -> None:
    """All but the newest of each consumer: count and sum change once, and stay small."""
    newest = MeterChange.objects.order_by().values("consumer_id").annotate(newest=models.Max("id")).values("newest")
    MeterChange.objects.exclude(id__in=newest).delete()
