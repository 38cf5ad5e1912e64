"""How two values of the marketplace's JSON compare, whatever side wrote a number as text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_WORDS = {"true": True, "false": False}
#: Beyond every id, byte count and price that there is.
LARGEST = 1e18


def number(value: Any) -> int | float | None:
    """The number in a value, a boolean as 0 or 1; ``None`` for what is none, NaN and the absurdly large included."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) > 40 or not _NUMBER.fullmatch(text):
            return None
        value = float(text) if any(mark in text for mark in ".eE") else int(text)
    if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if abs(value) <= LARGEST else None


def same(have: Any, want: Any) -> bool:
    """Equal as the marketplace sees it; nothing (null, missing) equals ``null`` and ``false``."""
    if have is None or want is None:
        return have is want or _word(have) is False or _word(want) is False
    if isinstance(have, bool) or isinstance(want, bool):
        have, want = _truth(have), _truth(want)
        return have is not None and have == want
    left, right = number(have), number(want)
    if left is not None and right is not None:
        return left == right
    return type(have) is type(want) and bool(have == want)


def ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison that holds only between two numbers or two texts."""

    def holds(have: Any, want: Any) -> bool:
        left, right = number(have), number(want)
        if left is not None and right is not None:
            return compare(left, right)
        if left is None and right is None and isinstance(have, str) and isinstance(want, str):
            return compare(have, want)
        return False

    return holds


def _word(value: Any) -> bool | None:
    """``true`` and ``false``, also in words."""
    if isinstance(value, bool):
        return value
    return _WORDS.get(value.strip().casefold()) if isinstance(value, str) else None


def _truth(value: Any) -> bool | None:
    word = _word(value)
    if word is not None:
        return word
    digit = number(value)
    return bool(digit) if digit in (0, 1) else None
