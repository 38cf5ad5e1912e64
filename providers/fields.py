"""Reading single values out of rows that may hold anything. None of these raises.

A vendor's row is written by many hands (hosts, daemons, several server versions): numbers come as text, text as
null, anything as something else. Each function gives the value in our type, or the "not told" of that type.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

_MAX_DEPTH = 20
_MAX_NUMBER = 10**15
_YEAR_3000 = 32_503_680_000
#: What PostgreSQL text cannot hold: NUL, and halves of surrogate pairs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def text(value: object, limit: int = 1_000) -> str:
    """Storable text without blanks around it; "" for anything that is no text."""
    return _UNSTORABLE.sub("", value[:limit]).strip() if isinstance(value, str) else ""


def storable(value: str) -> str:
    """The text with a visible mark for each character that no database takes; otherwise exactly as it came."""
    return _UNSTORABLE.sub("\ufffd", value)


def identifier(value: object) -> str:
    """A positive whole number, as text; "" for anything else. Accepts digits in a string."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_NUMBER:
        return str(value)
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,14}", value):
        return value
    return ""


def exact(value: object) -> Decimal | None:
    """A finite number as ``Decimal``; ``None`` for anything else. Accepts a number in a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        # Text first, so that a float becomes the number that it is written as.
        number = Decimal(value if isinstance(value, int) else str(value)[:60])
    except InvalidOperation:
        return None
    # Compared before anything is computed: arithmetic on a huge exponent would raise.
    return number if number.is_finite() and -_MAX_NUMBER < number < _MAX_NUMBER else None


def money(value: object) -> Decimal | None:
    """Dollars that are not negative."""
    amount = exact(value)
    return amount if amount is not None and amount >= 0 else None


def number(value: object) -> float | None:
    """A finite number that is not negative."""
    amount = exact(value)
    return float(amount) if amount is not None and amount >= 0 else None


def count(value: object) -> int:
    """A whole number, rounded down; 0 where it is not told."""
    return int(number(value) or 0)


def moment(value: object) -> datetime | None:
    """Epoch seconds as aware UTC; ``None`` where it is not told (vendors also write 0)."""
    seconds = number(value)
    if not seconds or seconds >= _YEAR_3000:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def json_safe(value: Any, depth: int = 0) -> Any:
    """The value as plain JSON types that any database column takes: ``Decimal`` becomes ``float`` (a raw row is
    there for filters to compare with, never to pay by), text loses what cannot be stored."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, dict):
        return {text(key, 200): json_safe(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [json_safe(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _UNSTORABLE.sub("", value)
    if isinstance(value, Decimal | float):
        plain = float(value)
        return plain if math.isfinite(plain) else None
    if isinstance(value, int) and abs(value) > 2**63:
        return None
    return value
