"""What was spent by day and by consumer, as numbers and as the geometry of a small picture.

Both are read from the ledger's days; the meter is asked only for what is not booked yet (or booked too much). One
statement reads both and sees one state of the books, so the sums are those of ``GET /costs`` to the last digit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db import models
from django.db.models import F, QuerySet, Sum, Value
from django.db.models.functions import Cast

from billing.costs import Whose, named
from billing.ledger_models import as_units
from billing.models import LedgerDay, MeterSegment
from billing.periods import Period, days
from gpubroker.common import clock
from gpubroker.common.money import dollars, units

ZERO = Decimal(0)
DAY, MICROSECOND = timedelta(days=1), timedelta(microseconds=1)
#: Of the picture, in its own units.
WIDTH, HEIGHT, BASE, TOP = 720, 200, 170, 20
LEFT = 72
#: As much room as the name of a day takes.
NAME = 44
_TIMES = ("start", "end", "was_from", "was_to")


def spend_by_day(first: date, last: date, consumer: str | None = None) -> list[tuple[date, Decimal]]:
    """Dollars of each UTC day from ``first`` to ``last``, both included; what runs counts up to now. Exact."""
    spent: defaultdict[date, int] = defaultdict(int)
    for _, day, amount in _pieces(days(first, last), named(consumer)):
        spent[day] += amount
    every = [first + index * DAY for index in range((last - first).days + 1)]
    return [(day, dollars(spent[day])) for day in every]


def spend_by_consumer(ids: Collection[int], period: Period) -> dict[int, Decimal]:
    """Dollars of each of these consumers within whole UTC days; what runs counts up to now. Exact; one query."""
    spent: defaultdict[int, int] = defaultdict(int)
    for account, _, amount in _pieces(period, list(ids)):
        spent[account] += amount
    return {account: dollars(spent[account]) for account in ids}


def _pieces(period: Period, whose: Whose) -> Iterator[tuple[int, date, int]]:
    """Account (0: machines of no session), day, and an amount in units (:func:`gpubroker.common.money.dollars`)."""
    now = clock.now()
    for account, day, nanos, rest, rate, start, end, was_from, was_to in _booked_and_tail(period, whose):
        if rate is None:
            yield account, day, as_units(int(nanos), int(rest))
            continue
        for since, until, sign in ((start, max(now, start) if end is None else end, 1), (was_from, was_to, -1)):
            if since is None or until is None:
                continue
            for moment, span in _by_day(max(since, period.start), min(until, period.end)):
                yield account or 0, moment, sign * units(rate, span)


def _by_day(start: datetime, end: datetime) -> Iterator[tuple[date, int]]:
    """Every UTC day that the span touches, and its microseconds in it."""
    while start < end:
        day = start.astimezone(UTC).date()
        until = min(datetime.combine(day + DAY, time.min, UTC), end)
        yield day, (until - start) // MICROSECOND
        start = until


def _booked_and_tail(period: Period, whose: Whose) -> QuerySet[Any, Any]:
    """The ledger's days by account and day, then (where ``rate`` is not null) the segments of the tail one by one."""
    booked = LedgerDay.objects.filter(day__gte=period.start.date(), day__lte=period.last_day)
    tail = MeterSegment.objects.filter(book_at__isnull=False)
    if whose is not None:
        booked, tail = booked.filter(account__in=whose), tail.filter(consumer_id__in=whose)
    nothing = {name: _null(models.DateTimeField()) for name in _TIMES}
    by_day: QuerySet[Any, Any] = (
        booked.order_by()
        .values(sort=F("account"), date=F("day"))
        .annotate(
            booked_nanos=Sum("nanos"), booked_rest=Sum("rest"),
            rate=_null(models.DecimalField(max_digits=14, decimal_places=8)), **nothing,
        )
        .values_list("sort", "date", "booked_nanos", "booked_rest", "rate", *_TIMES)
    )  # fmt: skip
    rest = tail.order_by().values_list(
        Cast("consumer_id", models.BigIntegerField()), _null(models.DateField()), _null(models.BigIntegerField()),
        _null(models.BigIntegerField()), F("rate_per_hour"), F("started_at"), F("ended_at"), F("booked_from"),
        F("booked_to"),
    )  # fmt: skip
    return by_day.union(rest, all=True)


def _null(of: models.Field[Any, Any]) -> Cast:
    """Of a type, as both halves of a union need the same."""
    return Cast(Value(None), of)


@dataclass(frozen=True, slots=True)
class Bar:
    """One day in the picture."""

    day: date
    amount: Decimal
    x: float
    y: float
    width: float
    height: float
    #: Named under the picture: the first day, and every Monday where there is room.
    marked: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """What the template draws: a bar a day, and lines at round amounts."""

    bars: tuple[Bar, ...]
    #: (height, dollars)
    lines: tuple[tuple[float, Decimal], ...]
    total: Decimal
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    base: int = BASE


def picture(spend: list[tuple[date, Decimal]]) -> Picture:
    top = _round_up(max((amount for _, amount in spend), default=ZERO))
    scale = (BASE - TOP) / float(top)
    step = (WIDTH - LEFT) / max(len(spend), 1)
    bars = tuple(
        Bar(
            day, amount, x=round(LEFT + index * step + step * 0.1, 2), y=round(BASE - float(amount) * scale, 2),
            width=round(step * 0.8, 2), height=round(float(amount) * scale, 2),
            marked=index == 0 or (day.weekday() == 0 and NAME <= index * step <= WIDTH - LEFT - NAME),
        )
        for index, (day, amount) in enumerate(spend)
    )  # fmt: skip
    lines = tuple((round(BASE - float(top * part) * scale, 2), top * part) for part in (Decimal("0.5"), Decimal(1)))
    return Picture(bars, lines, sum((amount for _, amount in spend), ZERO))


def _round_up(amount: Decimal) -> Decimal:
    """The least of 1, 2, 5, 10, 20, ... (or the same as cents) that is no less."""
    if amount <= ZERO:
        return Decimal(1)
    power = Decimal(10) ** amount.adjusted()
    return next(step * power for step in (Decimal(1), Decimal(2), Decimal(5), Decimal(10)) if step * power >= amount)
