"""What a consumer is billed for a month: a line per session, and totals that add up in every direction.

Every amount is a part of one rounding (:func:`gpubroker.common.money.apportion`), so lines and columns add up to the
total to the last digit shown, and the total is that of ``GET /costs``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Q

from billing.models import Consumer, MeterSegment
from billing.periods import Period, month_of
from gpubroker.common import clock
from gpubroker.common.money import MICRO, SECONDS_PER_HOUR, apportion, as_number, exact_cost

ZERO = Decimal(0)
_MONTH = re.compile(r"20[0-9]{2}-(?:0[1-9]|1[0-2])")
GPU, STORAGE, BANDWIDTH = "gpu_cost", "storage_cost", "bandwidth_cost"
#: The meter's kinds by the column of a statement that they stand in.
COLUMNS = (GPU, STORAGE, BANDWIDTH)


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
    lines, exact = _added_up(_segments(consumer, period), period, until)
    cells = [(line, name) for line in lines for name in COLUMNS]
    rounded = apportion([exact[line.session_id, name] for line, name in cells], unit)
    for (line, name), amount in zip(cells, rounded, strict=True):
        line.parts[name] = amount
    closed = now >= period.end and all(line.ended_at is not None for line in lines)
    return Statement(consumer.name, period.start.date(), until, closed, tuple(lines))


def _segments(consumer: Consumer, period: Period) -> Iterable[MeterSegment]:
    overlapping = Q(ended_at__isnull=True) | Q(ended_at__gt=period.start)
    found = MeterSegment.objects.filter(overlapping, consumer=consumer, started_at__lt=period.end)
    return found.order_by("started_at", "id").iterator(chunk_size=2000)


def _added_up(
    segments: Iterable[MeterSegment], period: Period, until: datetime
) -> tuple[list[Line], dict[tuple[str, str], Decimal]]:
    """Lines in the order in which their sessions began, without amounts; these exact, by session and column."""
    lines: dict[str, Line] = {}
    exact: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    still: set[str] = set()
    for part in segments:
        start, end = max(part.started_at, period.start), min(part.ended_at or until, until)
        if start > until:
            continue  # of a month that is still to come
        line = lines.setdefault(part.session_id, Line(part.session_id))
        exact[part.session_id, _column(part.kind)] += exact_cost(part.rate_per_hour, end - start)
        _note(line.providers, part.provider)
        _note(line.gpu_types, part.gpu_type)
        line.started_at = min(line.started_at or start, start)
        if part.ended_at is None:
            still.add(part.session_id)
        line.ended_at = max(line.ended_at or end, end)
        if part.kind == MeterSegment.Kind.GPU:
            line.hours += _hours(end - start)
    for session_id in still:
        if until < period.end:
            lines[session_id].ended_at = None
    return list(lines.values()), exact


def _column(kind: str) -> str:
    return {MeterSegment.Kind.GPU.value: GPU, MeterSegment.Kind.DISK.value: STORAGE}.get(kind, BANDWIDTH)


def _note(names: list[str], name: str) -> None:
    if name and name not in names:
        names.append(name)


def _hours(span: timedelta) -> Decimal:
    return Decimal(max(span, timedelta(0)) // timedelta(microseconds=1)) / (SECONDS_PER_HOUR * 1_000_000)


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
