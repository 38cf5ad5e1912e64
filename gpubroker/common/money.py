"""Dollars are ``Decimal``; they are rounded here and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal

#: Stored and printed precision: a millionth of a dollar.
MICRO = Decimal("0.000001")
SECONDS_PER_HOUR = Decimal(3600)
#: Vendors price storage by a month of 30 days (Vast.ai contract, section 2.4).
HOURS_PER_MONTH = Decimal(720)


def quantize(amount: Decimal) -> Decimal:
    """To a millionth of a dollar, half up. Called once, on a finished sum."""
    return amount.quantize(MICRO, rounding=ROUND_HALF_UP)


def exact_cost(rate_per_hour: Decimal, span: timedelta) -> Decimal:
    """``rate x time``, not rounded: add such amounts first and quantize the sum."""
    microseconds = span // timedelta(microseconds=1)
    return rate_per_hour * Decimal(max(microseconds, 0)) / (SECONDS_PER_HOUR * 1_000_000)


def storage_per_hour(price_per_gb_month: Decimal, disk_gb: int) -> Decimal:
    """Dollars per hour of ``disk_gb`` GB at a price per GB and month."""
    return price_per_gb_month * disk_gb / HOURS_PER_MONTH


def as_number(amount: Decimal) -> Decimal:
    """As the API prints money: a JSON number with at most 6 decimals (the renderer drops trailing zeros)."""
    return quantize(amount)
