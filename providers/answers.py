"""An HTTP answer, and what all vendors' refusals have in common: their words, and how long to stay away."""

from __future__ import annotations

import json as jsonlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

#: However long a vendor asks us to stay away, a destroy is tried again after this.
LONGEST_PAUSE = 600.0
_WHEN_NOTHING_IS_SAID = 1.0
_THRESHOLD = re.compile(r"threshold=([\d.]+)(?:\*([\d.]+))?")
_TOO_FREQUENT = re.compile(
    r"too many requests|requests too frequent|rate_limit_exceeded|HTTPTooManyRequests", re.IGNORECASE
)
_RESETS = ("RateLimit-Reset", "X-RateLimit-Reset", "X-Rate-Limit-Reset")
_SAID_IN = ("msg", "message", "error", "detail")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``json`` is the parsed body (numbers with a point are ``Decimal``), ``None`` where it is
    no JSON; ``text`` is the raw body, for refusals that are plain text or a page."""

    status: int
    json: Any
    text: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    is_json: bool = True

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def said(self) -> str:
        """The vendor's own words about what is wrong: the first text under the usual keys, else the whole body."""
        if isinstance(self.json, dict):
            for key in _SAID_IN:
                value = self.json.get(key)
                if isinstance(value, str) and value.strip():
                    return value
        return self.text


def parse(status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    """Decode a complete body. Never raises: what is no JSON (or too deep, or no finite number) is just text."""
    text = content.decode("utf-8-sig", "replace")
    try:
        value = jsonlib.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, ArithmeticError, RecursionError):
        return Answer(status, None, text, headers, is_json=False)
    return Answer(status, value, text, headers)


def is_rate_limit(answer: Answer) -> bool:
    """A 429, or a refusal under another status (even 200) whose words say the same."""
    if answer.status == 429:
        return True
    refused = 400 <= answer.status < 500 or (
        answer.ok and isinstance(answer.json, dict) and answer.json.get("success") is False
    )
    return refused and _TOO_FREQUENT.search(answer.text[:2_000]) is not None


def pause_after_rate_limit(answer: Answer, interval: float, now: datetime) -> float:
    """Seconds to stay away: the longest of header, body field, threshold in the text and published interval."""
    known = [interval, retry_after(answer, now)]
    if match := _THRESHOLD.search(answer.text[:20_000]):
        known.append(_seconds(match[1]) * (_seconds(match[2]) if match[2] else 1.0))
    return min(max(known) or _WHEN_NOTHING_IS_SAID, LONGEST_PAUSE)


def retry_after(answer: Answer, now: datetime) -> float:
    """Seconds from the header (a number or a date), the headers that say when a used-up limit starts anew, or the
    body's field of that name; 0 where there is none."""
    header = answer.headers.get("Retry-After") or ""
    asked = max(_seconds(header), _until(header, now))
    if answer.status == 429:
        asked = max([asked, *(_reset(answer.headers.get(name), now) for name in _RESETS)])
    if isinstance(answer.json, dict):
        asked = max(asked, _seconds(answer.json.get("retry_after")))
    return min(asked, LONGEST_PAUSE)


def _reset(value: str | None, now: datetime) -> float:
    """Vendors write seconds from now, or the moment as seconds or milliseconds since 1970."""
    number = _seconds(value, most=1e13)
    if number >= 1e12:
        number /= 1_000
    return max(0.0, number - now.timestamp()) if number >= 1e9 else number


def _until(date: str, now: datetime) -> float:
    try:
        return max(0.0, (parsedate_to_datetime(date) - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        # No date, or one without a zone: it says nothing.
        return 0.0


def _seconds(value: object, most: float = 1e9) -> float:
    try:
        seconds = float(str(value)[:20])
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < most else 0.0


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")
