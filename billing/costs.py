"""What a session or a period cost: exact inside, rounded once.

A session is summed from its few meter segments. A period is the ledger's days plus the tail: what segments that are not
booked to their end cost beyond (or below) what is booked of them. Both are read by one statement, which sees one state
of the books; so it does not matter when, how often, or how far the ledger was booked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import Count, Expression, ExpressionWrapper, F, Field, Func, Max, Q, QuerySet, Sum, Value, fields
from django.db.models.functions import Cast, Coalesce, Greatest, Least

from billing.ledger_models import as_units
from billing.models import Consumer, LedgerDay, MeterSegment
from billing.periods import Period
from gpubroker.common.money import SECONDS_PER_HOUR, as_number, dollars, units

ZERO = Decimal(0)
MICROSECOND = timedelta(microseconds=1)
NOTHING = timedelta(0)
GPU, DISK = MeterSegment.Kind.GPU, MeterSegment.Kind.DISK


def _amounts() -> defaultdict[str, Decimal]:
    return defaultdict(Decimal)


@dataclass(slots=True)
class Costs:
    """Dollars, not rounded."""

    total: Decimal = ZERO
    gpu_hours: Decimal = ZERO
    session_count: int = 0
    by_provider: dict[str, Decimal] = field(default_factory=_amounts)
    by_gpu_type: dict[str, Decimal] = field(default_factory=_amounts)
    by_kind: dict[str, Decimal] = field(default_factory=_amounts)
    #: Of the total: attempts that came to nothing, and kept disks of stopped machines. Told of one session only.
    failed: Decimal = ZERO
    preserved: Decimal = ZERO

    def shown(self) -> dict[str, Any]:
        return {
            "total_cost": as_number(self.total),
            "session_count": self.session_count,
            "hours_used": as_number(self.gpu_hours),
            "by_provider": {name: as_number(amount) for name, amount in sorted(self.by_provider.items())},
            "by_gpu_type": {name: as_number(amount) for name, amount in sorted(self.by_gpu_type.items())},
        }


def hours(microseconds: int) -> Decimal:
    return Decimal(microseconds) / (SECONDS_PER_HOUR * 1_000_000)


def clipped(segment: MeterSegment, now: datetime, period: Period | None = None) -> int:
    """Microseconds of a segment, within the period and, while it runs, up to now."""
    start, end = segment.started_at, segment.ended_at or now
    if period is not None:
        start, end = max(start, period.start), min(end, period.end)
    return max(end - start, NOTHING) // MICROSECOND


def add_up(segments: Iterable[MeterSegment], now: datetime, period: Period | None = None) -> Costs:
    """Segment by segment, without the ledger."""
    parts: dict[Part, Running] = defaultdict(Running)
    sessions, failed, preserved = set(), 0, 0
    for segment in segments:
        span = clipped(segment, now, period)
        amount = units(segment.rate_per_hour, span)
        part = parts[segment.provider, segment.gpu_type, segment.kind]
        part.add(amount, span, running=int(segment.ended_at is None))
        failed += amount if segment.failed_attempt else 0
        preserved += amount if segment.preserved else 0
        sessions.add(segment.session_id)
    costs = fold(parts, len(sessions - {""}), 0)
    costs.failed, costs.preserved = dollars(failed), dollars(preserved)
    return costs


def of_session(session_id: str, now: datetime) -> Costs:
    return add_up(MeterSegment.objects.filter(session_id=session_id), now)


#: Provider, GPU type, kind.
Part = tuple[str, str, str]


@dataclass(slots=True)
class Running:
    """What something costs at one moment, and how it grows from then on."""

    units: int = 0
    microseconds: int = 0
    #: Units per microsecond.
    slope: int = 0
    segments: int = 0

    def add(self, amount: int, microseconds: int, running: int = 0, slope: int = 0) -> None:
        self.units += amount
        self.microseconds += microseconds
        self.slope += slope
        self.segments += running


def fold(parts: dict[Part, Running], session_count: int, later: int) -> Costs:
    """``later``: how many microseconds have passed since the parts were summed."""
    total, gpu = 0, 0
    providers: dict[str, int] = defaultdict(int)
    gpu_types: dict[str, int] = defaultdict(int)
    kinds: dict[str, int] = defaultdict(int)
    for (provider, gpu_type, kind), part in parts.items():
        amount, span = part.units + part.slope * later, part.microseconds + part.segments * later
        if not span and not part.segments:
            continue  # only segments that were taken back
        total += amount
        providers[provider] += amount
        gpu_types[gpu_type] += amount
        kinds[kind] += amount
        gpu += span if kind == GPU else 0
    costs = Costs(dollars(total), hours(gpu), session_count)
    for named, amounts in ((costs.by_provider, providers), (costs.by_gpu_type, gpu_types), (costs.by_kind, kinds)):
        named.update((name, dollars(amount)) for name, amount in amounts.items())
    return costs


@dataclass(frozen=True, slots=True)
class Sums:
    """What a period cost when it was summed, and from then on for as long as the meter does not change."""

    period: Period
    summed_at: datetime
    parts: dict[Part, Running]
    session_count: int
    #: Every segment that runs had begun by then: from that moment on costs grow evenly.
    even_since: datetime | None

    def holds_at(self, now: datetime) -> bool:
        begun = self.even_since
        return begun is None or (begun <= self.summed_at and begun <= now)

    def at(self, now: datetime) -> Costs:
        later = (self._within(now) - self._within(self.summed_at)) // MICROSECOND
        return fold(self.parts, self.session_count, later)

    def _within(self, moment: datetime) -> datetime:
        return min(max(moment, self.period.start), self.period.end)


#: Consumers by their ids, or a query for them; ``None``: everybody, machines without a session among them.
Whose = Sequence[int] | QuerySet[Any, Any] | None


def of_period(period: Period, now: datetime, consumer: str | None = None) -> Costs:
    """Of one consumer, by name, or of everybody. What runs counts up to now."""
    return sums(period, now, named(consumer)).at(now)


def named(consumer: str | None) -> Whose:
    return Consumer.objects.filter(name=consumer).values("id") if consumer else None


def sums(period: Period, now: datetime, whose: Whose = None) -> Sums:
    """Of whole UTC days, as the ledger's roll-up has no smaller part."""
    parts, begun = _parts(period, now, whose)
    return Sums(period, now, parts, sessions_in(period, whose), max(begun, default=None))


def total(period: Period, now: datetime, whose: Whose = None) -> Decimal:
    """Only the sum of :func:`sums`, by one query."""
    return fold(_parts(period, now, whose)[0], 0, 0).total


def _parts(period: Period, now: datetime, whose: Whose) -> tuple[dict[Part, Running], list[datetime]]:
    """What a period cost until now, and since when its running segments run."""
    parts: dict[Part, Running] = defaultdict(Running)
    begun: list[datetime] = []
    for row in _booked_and_tail(period, now, whose):
        provider, gpu_type, kind, rate, amount, slope, beyond, running, since, nanos, rest, microseconds = row
        part = parts[provider, gpu_type, kind]
        if beyond is None:
            part.add(as_units(int(nanos), int(rest)), int(microseconds))
            continue
        span = beyond // MICROSECOND
        if rate is None:
            part.add(int(amount.scaleb(14)), span, running, int((slope or ZERO).scaleb(8)))
        else:
            part.add(units(rate, span), span, running, units(rate, running))
        begun += [since] if since is not None else []
    return dict(parts), begun


def _booked_and_tail(period: Period, now: datetime, whose: Whose) -> QuerySet[Any, Any]:
    """The ledger's days, and (where ``beyond`` is not null) the tail.

    The tail's amounts are dollars an hour times seconds, added up by PostgreSQL. SQLite would do that in floating
    point: there segments of one rate are added up in time only, and ``rate`` says which.
    """
    booked = LedgerDay.objects.filter(day__gte=period.start.date(), day__lte=period.last_day)
    tail = MeterSegment.objects.filter(book_at__isnull=False)
    if whose is not None:
        booked, tail = booked.filter(account__in=whose), tail.filter(consumer_id__in=whose)
    beyond = not_booked(period, now)
    exact = connection.vendor == "postgresql"
    seconds = Func(beyond, template="EXTRACT(EPOCH FROM %(expressions)s)", output_field=MONEY)
    runs = Q(ended_at__isnull=True, started_at__lt=period.end)
    rest = tail.order_by().values(*_PART, rate=_null(MONEY) if exact else F("rate_per_hour")).annotate(
        amount=Sum(F("rate_per_hour") * seconds, output_field=MONEY) if exact else _null(MONEY),
        slope=Sum("rate_per_hour", filter=runs) if exact else _null(MONEY),
        beyond=Sum(beyond), running=Count("id", filter=runs), since=Max("started_at", filter=runs),
        nanos=_null(WHOLE), rest=_null(WHOLE), microseconds=_null(WHOLE),
    )  # fmt: skip
    days = booked.order_by().values(*_PART, rate=_null(MONEY)).annotate(
        amount=_null(MONEY), slope=_null(MONEY), beyond=_null(DURATION), running=_null(WHOLE), since=_null(MOMENT),
        nanos=Sum("nanos"), rest=Sum("rest"), microseconds=Sum("microseconds"),
    )  # fmt: skip
    both: QuerySet[Any, Any] = rest.values_list(*_COLUMNS).union(days.values_list(*_COLUMNS), all=True)
    return both


MONEY, WHOLE = fields.DecimalField(max_digits=40, decimal_places=14), fields.BigIntegerField()
DURATION, MOMENT = fields.DurationField(), fields.DateTimeField()
_PART = ("provider", "gpu_type", "kind")
_COLUMNS = (
    *_PART, "rate", "amount", "slope", "beyond", "running", "since", "nanos", "rest", "microseconds",
)  # fmt: skip


def _null(kind: Field[Any, Any]) -> Cast:
    """Of a type, as both halves of a union need the same."""
    return Cast(Value(None), kind)


def not_booked(period: Period, now: datetime) -> Expression:
    """Of a segment: how long it costs within the period, less what of that is booked; below zero if that is more."""
    end = Coalesce("ended_at", Greatest("started_at", Value(now, MOMENT)))
    was_from, was_to = (Coalesce(name, "started_at") for name in ("booked_from", "booked_to"))
    return ExpressionWrapper(_within(period, F("started_at"), end) - _within(period, was_from, was_to), DURATION)


def _within(period: Period, start: Any, end: Any) -> Expression:
    begins = Greatest(start, Value(period.start, MOMENT))
    return ExpressionWrapper(Greatest(Least(end, Value(period.end, MOMENT)), begins) - begins, DURATION)


def sessions_in(period: Period, whose: Whose = None) -> int:
    """How many sessions had a machine on the meter in the period."""
    overlapping = Q(started_at__lt=period.end) & (Q(ended_at__isnull=True) | Q(ended_at__gt=period.start))
    mine = MeterSegment.objects.filter(overlapping).exclude(session_id="")
    if whose is not None:
        mine = mine.filter(consumer_id__in=whose)
    return mine.order_by().values("session_id").distinct().count()
