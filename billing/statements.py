"""What a consumer is billed for a month: a line per session, and totals that add up in every direction.

Amounts and hours are those of the ledger, with what is not booked yet (:mod:`billing.cost_groups`). Every amount is a
part of one rounding (:func:`gpubroker.common.money.apportion`), so lines and columns add up to the total to the last
digit shown, and the total is that of ``GET /costs``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from django.db.models import Count, Max, Min, Q

from billing.cost_groups import Group, grouped
from billing.costs import hours
from billing.models import Consumer, MeterSegment
from billing.periods import Period, month_of
from gpubroker.common import clock
from gpubroker.common.money import MICRO, apportion, as_number, dollars

ZERO = Decimal(0)
_MONTH = re.compile(r"20[0-9]{2}-(?:0[1-9]|1[0-2])")
GPU, STORAGE, BANDWIDTH = "gpu_cost", "storage_cost", "bandwidth_cost"
#: The columns of a statement, and what of a group of costs (:class:`billing.cost_groups.Group`) stands in them.
COLUMNS = {GPU: "gpu", STORAGE: "disk", BANDWIDTH: "bandwidth"}
NOTHING = Group()


@dataclass(slots=True)
class Line:
    """One session within the month. Dollars by column, in whole units of the statement."""

    session_id: str
    providers: list[str] = field(default_factory=list)
    gpu_types: list[str] = field(default_factory=list)
    #: Within the month; ``ended_at`` is ``None`` while it runs.
    started_at: datetime | None = None
    ended_at: datetime | None = None
    hours: Decimal = ZERO
    parts: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(COLUMNS, ZERO))

    @property
    def total(self) -> Decimal:
        return sum(self.parts.values(), ZERO)

    @property
    def gpu_cost(self) -> Decimal:
        return self.parts[GPU]

    @property
    def storage_cost(self) -> Decimal:
        return self.parts[STORAGE]

    @property
    def bandwidth_cost(self) -> Decimal:
        return self.parts[BANDWIDTH]


@dataclass(frozen=True, slots=True)
class Statement:
    consumer: str
    month: date
    #: Amounts are counted up to then: the month's end, or now while it lasts.
    until: datetime
    #: Nothing in it can change any more, but for what a machine's proof gives back.
    closed: bool
    lines: tuple[Line, ...]

    @property
    def total(self) -> Decimal:
        return sum((line.total for line in self.lines), ZERO)

    @property
    def hours(self) -> Decimal:
        return sum((line.hours for line in self.lines), ZERO)

    def column(self, name: str) -> Decimal:
        return sum((line.parts[name] for line in self.lines), ZERO)

    @property
    def columns(self) -> dict[str, Decimal]:
        return {name: self.column(name) for name in COLUMNS}


def month_named(text: str) -> date:
    """``2026-01`` as the first day of that month; ``ValueError`` for anything else."""
    if not _MONTH.fullmatch(text):
        raise ValueError(f"a month is named like 2026-01, got {text[:20]!r}")
    return date(int(text[:4]), int(text[5:]), 1)


def statement(consumer: Consumer, month: date, *, unit: Decimal = MICRO) -> Statement:
    """The consumer's month; ``unit``: what amounts are rounded to, a millionth of a dollar or a cent."""
    now = clock.now()
    period = month_of(datetime.combine(month, time.min, UTC))
    until = min(period.end, now)
    groups = grouped("session", period, now, consumer=consumer.name)
    lines = _lines(consumer, period, until)
    for session_id, group in groups.items():
        # One that began between the two questions has no times yet, but its cost belongs to the total.
        lines.setdefault(session_id, Line(session_id)).hours = hours(group.gpu_microseconds)
    cells = [(line, name) for line in lines.values() for name in COLUMNS]
    exact = [dollars(getattr(groups.get(line.session_id, NOTHING), COLUMNS[name])) for line, name in cells]
    for (line, name), amount in zip(cells, apportion(exact, unit), strict=True):
        line.parts[name] = amount
    closed = now >= period.end and all(line.ended_at is not None for line in lines.values())
    return Statement(consumer.name, period.start.date(), until, closed, tuple(lines.values()))


def _lines(consumer: Consumer, period: Period, until: datetime) -> dict[str, Line]:
    """In the order in which their sessions began, without amounts. When something began and ended is told by the meter
    alone: the ledger knows hours."""
    overlapping = Q(ended_at__isnull=True) | Q(ended_at__gt=period.start)
    found = MeterSegment.objects.filter(overlapping, consumer=consumer, started_at__lt=period.end).order_by()
    spans = found.values_list("session_id", "provider", "gpu_type").annotate(
        first=Min("started_at"), last=Max("ended_at"), running=Count("id", filter=Q(ended_at__isnull=True)),
        number=Min("id"),
    )  # fmt: skip
    lines: dict[str, Line] = {}
    still: set[str] = set()
    for session_id, provider, gpu_type, first, last, running, _ in spans.order_by("first", "number"):
        start = max(first, period.start)
        if start > until:
            continue  # of a month that is still to come
        line = lines.setdefault(session_id, Line(session_id))
        end = until if running or last is None else min(last, until)
        _note(line.providers, provider)
        _note(line.gpu_types, gpu_type)
        line.started_at = min(line.started_at or start, start)
        line.ended_at = max(line.ended_at or end, end)
        if running and until < period.end:
            still.add(session_id)
    for session_id in still:
        lines[session_id].ended_at = None
    return lines


def _note(names: list[str], name: str) -> None:
    if name and name not in names:
        names.append(name)


def shown(found: Statement) -> dict[str, Any]:
    return {
        "consumer_id": found.consumer,
        "month": f"{found.month:%Y-%m}",
        "until": clock.iso(found.until),
        "closed": found.closed,
        "currency": "USD",
        "total_cost": as_number(found.total),
        **{name: as_number(amount) for name, amount in found.columns.items()},
        "hours_used": as_number(found.hours),
        "session_count": len(found.lines),
        "sessions": [_line_shown(line) for line in found.lines],
    }


def _line_shown(line: Line) -> dict[str, Any]:
    return {
        "session_id": line.session_id,
        "provider": ", ".join(line.providers),
        "gpu_type": ", ".join(line.gpu_types),
        "started_at": clock.iso(line.started_at),
        "ended_at": clock.iso(line.ended_at),
        "hours_used": as_number(line.hours),
        **{name: as_number(amount) for name, amount in line.parts.items()},
        "total_cost": as_number(line.total),
    }
