"""Spend by day, as numbers and as the geometry of a small picture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from billing.cost_groups import DAY, grouped
from billing.periods import days
from gpubroker.common import clock
from gpubroker.common.money import dollars

ZERO = Decimal(0)
#: Of the picture, in its own units.
WIDTH, HEIGHT, BASE, TOP = 720, 200, 170, 20
LEFT = 56


def spend_by_day(first: date, last: date, consumer: str | None = None) -> list[tuple[date, Decimal]]:
    """Dollars of each UTC day from ``first`` to ``last``, both included; what runs counts up to now. Exact."""
    spent = grouped(DAY, days(first, last), clock.now(), consumer=consumer)
    every = [first + index * timedelta(days=1) for index in range((last - first).days + 1)]
    return [(day, dollars(spent[day.isoformat()].total) if day.isoformat() in spent else ZERO) for day in every]


@dataclass(frozen=True, slots=True)
class Bar:
    """One day in the picture."""

    day: date
    amount: Decimal
    x: float
    y: float
    width: float
    height: float
    #: Named under the picture: the first day, and every Monday.
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
            width=round(step * 0.8, 2), height=round(float(amount) * scale, 2), marked=index == 0 or day.weekday() == 0,
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
