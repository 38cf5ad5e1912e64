"""Which part of an amount belongs to which limit: ``total``, and each calendar month (UTC) such as ``2026-11``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from gpubroker.common.money import exact_cost, micros_up

TOTAL = "total"
ZERO = Decimal(0)
#: Micro-dollars by period.
Parts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A span of time in which something costs ``per_hour`` dollars."""

    start: datetime
    end: datetime
    per_hour: Decimal


def month_key(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m}"


def month_start(key: str) -> datetime:
    return datetime.strptime(f"{key}-01+0000", "%Y-%m-%d%z")


def month_end(key: str) -> datetime:
    return (month_start(key) + timedelta(days=32)).replace(day=1)


def in_order(keys: Iterable[str]) -> list[str]:
    """The total first, then the months: everybody locks and refuses in this order."""
    return sorted(keys, key=lambda key: (key != TOTAL, key))


def by_period(stretches: Iterable[Stretch]) -> dict[str, Decimal]:
    """Exact dollars of each period that the stretches touch."""
    amounts: dict[str, Decimal] = defaultdict(Decimal)
    for stretch in stretches:
        for key, span in _months(stretch.start, stretch.end):
            amount = exact_cost(stretch.per_hour, span)
            amounts[key] += amount
            amounts[TOTAL] += amount
    return dict(amounts)


def _months(start: datetime, end: datetime) -> Iterator[tuple[str, timedelta]]:
    while start < end:
        key = month_key(start)
        until = min(end, month_end(key))
        yield key, until - start
        start = until


def need(spent: Mapping[str, Decimal], future: Iterable[Stretch], margin: Decimal = ZERO) -> Parts:
    """What is spent and what is to come, with a margin on the latter, as a share: 0.05 is 5 %. Rounded up."""
    ahead = by_period(future)
    return {
        key: micros_up(spent.get(key, ZERO) + ahead.get(key, ZERO) * (1 + margin))
        for key in in_order({*spent, *ahead})
    }  # fmt: skip
