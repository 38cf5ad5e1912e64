"""Dollars are ``Decimal``; they are rounded here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

#: Stored and printed precision: a millionth of a dollar.
MICRO = Decimal("0.000001")
SECONDS_PER_HOUR = Decimal(3600)
#: What a rate of a hundred-millionth of a dollar an hour costs in a microsecond: the meter's smallest part. Every rate
#: and every span is a whole number of its own part, so sums of such units are exact, in any order, in any database.
UNITS_PER_DOLLAR = 10**8 * 3600 * 10**6
#: Vendors price storage by a month of 30 days (Vast.ai contract, section 2.4).
HOURS_PER_MONTH = Decimal(720)


def quantize(amount: Decimal) -> Decimal:
    """To a millionth of a dollar, half up. Called once, on a finished sum."""
    return amount.quantize(MICRO, rounding=ROUND_HALF_UP)


def exact_cost(rate_per_hour: Decimal, span: timedelta) -> Decimal:
    """``rate x time``, not rounded: add such amounts first and quantize the sum."""
    microseconds = span // timedelta(microseconds=1)
    return rate_per_hour * Decimal(max(microseconds, 0)) / (SECONDS_PER_HOUR * 1_000_000)


def units(rate_per_hour: Decimal, microseconds: int) -> int:
    """``rate x time`` in units of ``1 / UNITS_PER_DOLLAR``, exact; ``rate_per_hour`` has at most 8 decimals."""
    return int(rate_per_hour.scaleb(8)) * microseconds


def dollars(units: int) -> Decimal:
    """Units as dollars, to 28 digits: far below what :func:`quantize` keeps."""
    return Decimal(units) / Decimal(UNITS_PER_DOLLAR)


def storage_per_hour(price_per_gb_month: Decimal, disk_gb: int) -> Decimal:
    """Dollars per hour of ``disk_gb`` GB at a price per GB and month."""
    return price_per_gb_month * disk_gb / HOURS_PER_MONTH


def as_number(amount: Decimal) -> Decimal:
    """As the API prints money: a JSON number with at most 6 decimals (the renderer drops trailing zeros)."""
    return quantize(amount)


def micros(amount: Decimal) -> int:
    """Whole micro-dollars, half up: for counters that a database must add exactly."""
    return int(quantize(amount) / MICRO)


def micros_up(amount: Decimal) -> int:
    """Whole micro-dollars, none of it left out: for what is promised."""
    return int((amount / MICRO).to_integral_value(rounding=ROUND_CEILING))


def from_micros(micro_dollars: int) -> Decimal:
    """The same amount again, exact."""
    return micro_dollars * MICRO


def apportion(amounts: Sequence[Decimal], unit: Decimal = MICRO) -> list[Decimal]:
    """Amounts (none below zero) in whole ``unit``s that add up to their exact sum, rounded half up once.

    Each differs from its exact value by less than a unit; those with the largest remainders are the ones rounded up.
    """
    floors = [int(amount // unit) for amount in amounts]
    whole = int((sum(amounts, Decimal(0)) / unit).to_integral_value(rounding=ROUND_HALF_UP))
    by_remainder = sorted(range(len(amounts)), key=lambda index: (floors[index] * unit - amounts[index], index))
    for index in by_remainder[: whole - sum(floors)]:
        floors[index] += 1
    return [count * unit for count in floors]
