"""How numbers, spans of time and dollars are said on the console's pages."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

CENT = Decimal("0.01")
#: Below this a price or a rate is said to the tenth of a cent.
SMALL = Decimal("0.1")


def count(number: int, what: str) -> str:
    """``1 session``, ``2 sessions``"""
    return f"{number} {what}{'' if number == 1 else 's'}"


def span(time: timedelta) -> str:
    """To two parts: ``12 s``, ``3 min``, ``2 h 05 min``, ``4 d 3 h``; a minus where it lies behind."""
    seconds = int(abs(time).total_seconds())
    sign = "-" if time < timedelta(0) and seconds else ""
    if seconds < 60:
        return f"{sign}{seconds} s"
    if seconds < 3600:
        return f"{sign}{seconds // 60} min"
    if seconds < 86_400:
        return f"{sign}{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{sign}{seconds // 86_400} d {seconds % 86_400 // 3600} h"


def dollars(amount: Decimal) -> str:
    """``$1,234.56``; small ones to the tenth of a cent. For reading: files and the API have every digit."""
    exact = amount.quantize(CENT if abs(amount) >= SMALL else CENT / 10)
    exact = exact if exact else amount.quantize(CENT)
    return f"-${-exact:,}" if exact < 0 else f"${exact:,}"


def rate(per_hour: Decimal) -> str:
    return f"{dollars(per_hour)}/h"
