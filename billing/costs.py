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

from django.db.models import QuerySet

from billing import cost_sums
from billing.cost_sums import Summed
from billing.models import Consumer, MeterSegment
from billing.periods import Period
from gpubroker.common.money import SECONDS_PER_HOUR, apportion, as_number, dollars, units

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
            "by_provider": _printed(self.by_provider),
            "by_gpu_type": _printed(self.by_gpu_type),
        }


def _printed(amounts: dict[str, Decimal]) -> dict[str, Decimal]:
    """As :func:`billing.cost_groups.shown` prints the same groups: they add up to the printed total."""
    names = sorted(amounts)
    return dict(zip(names, apportion([amounts[name] for name in names]), strict=True))


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
    return sums(period, now, consumer).at(now)


def named(consumer: str | None) -> Whose:
    return Consumer.objects.filter(name=consumer).values("id") if consumer else None


def sums(period: Period, now: datetime, consumer: str | None = None) -> Sums:
    """Of whole UTC days, as the ledger's roll-up has no smaller part."""
    parts, begun = _parts(period, now, consumer or None)
    return Sums(period, now, parts, cost_sums.sessions_in(period, consumer or None), max(begun, default=None))


def total(period: Period, now: datetime, consumer: int) -> Decimal:
    """Only the sum, of one consumer by its id; one query."""
    return fold(_parts(period, now, consumer)[0], 0, 0).total


def totals(period: Period, now: datetime, consumers: Sequence[int]) -> dict[int, Decimal]:
    """:func:`total` of each of these consumers, by one query for all. No entry: nothing."""
    amounts: dict[int, int] = defaultdict(int)
    for consumer, *row in cost_sums.booked_and_tail_of_each(period, now, consumers):
        amounts[consumer] += Summed(*row).units
    return {consumer: dollars(amount) for consumer, amount in amounts.items()}


def _parts(period: Period, now: datetime, consumer: int | str | None) -> tuple[dict[Part, Running], list[datetime]]:
    """What a period cost until now, and since when its running segments run."""
    parts: dict[Part, Running] = defaultdict(Running)
    begun: list[datetime] = []
    for provider, gpu_type, kind, *rest in cost_sums.booked_and_tail(period, now, consumer):
        found = Summed(*rest)
        parts[provider, gpu_type, kind].add(found.units, found.span, found.running or 0, found.slope_units)
        begun += [found.since] if found.since is not None else []
    return dict(parts), begun
