"""Which metrics a PromQL expression names, and by which labels it picks and groups them. Whether the expression is
right is promtool's business; this only tells its words apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<number>\d[\w.]*)|(?P<word>[A-Za-z_:][\w:]*)"""
    r"""|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^=<>(){}\[\],])|(?P<space>\s+)"""
)
_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_KEYWORDS = frozenset({"and", "or", "unless", "offset", "bool", "inf", "nan"})


@dataclass
class Named:
    """Metrics with the labels of their matchers, and labels that results are grouped by."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouped_by: set[str] = field(default_factory=set)


def named(expression: str) -> Named:
    """``ValueError`` for a character that belongs in no expression."""
    words = _words(expression)
    found = Named()
    place = 0
    while place < len(words):
        word, following = words[place], words[place + 1] if place + 1 < len(words) else ""
        place += 1
        if word == "[":
            place = words.index("]", place) + 1
        elif word in _LISTS:
            end = words.index(")", place)
            found.grouped_by |= {each for each in words[place + 1 : end] if each != ","}
            place = end + 1
        elif word[0].isalpha() and word.lower() not in _KEYWORDS and following not in {"(", "by", "without"}:
            labels = found.metrics.setdefault(word, set())
            if following == "{":
                end = words.index("}", place)
                labels |= {words[at] for at in range(place, end) if words[at + 1] in {"=", "!=", "=~", "!~"}}
                place = end + 1
    return found


def _words(expression: str) -> list[str]:
    """Without spaces; a string or a number is told by its first character, which begins no name."""
    words, place = [], 0
    while place < len(expression):
        match = _TOKEN.match(expression, place)
        if match is None:
            raise ValueError(f"{expression!r}: what is at {place}?")
        if match.lastgroup != "space":
            words.append(match.group())
        place = match.end()
    return words
