"""Filter and order evaluation over rows, as marketplace queries have it: ``{"column": {"op": value}}``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]


class BadFilter(Exception):
    """A column or an operator that does not exist."""


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison that a missing or incomparable value never passes."""

    def test(have: Any, want: Any) -> bool:
        if have is None or want is None:
            return False
        if isinstance(have, str) != isinstance(want, str):
            have, want = _number(have), _number(want)
            if have is None or want is None:
                return False
        return compare(have, want)

    return test


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _same(have: Any, want: Any) -> bool:
    if isinstance(want, bool) and have is None:
        return not want
    if isinstance(have, bool) or isinstance(want, bool) or have is None or want is None:
        return bool(have == want)
    if isinstance(have, str) != isinstance(want, str):
        return _number(have) == _number(want) and _number(have) is not None
    return bool(have == want)


def _member(have: Any, want: Any) -> bool:
    return any(_same(have, one) for one in want) if isinstance(want, list | tuple) else False


OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": _same,
    "neq": lambda have, want: not _same(have, want),
    "gt": _ordered(lambda have, want: bool(have > want)),
    "gte": _ordered(lambda have, want: bool(have >= want)),
    "lt": _ordered(lambda have, want: bool(have < want)),
    "lte": _ordered(lambda have, want: bool(have <= want)),
    "in": _member,
    "notin": lambda have, want: not _member(have, want),
}

Test = Callable[[Row], bool]


def compile_filter(column: str, conditions: Any) -> list[Test]:
    """The tests of one column; ``{"eq": "any"}`` is none at all."""
    if not isinstance(conditions, Mapping):
        raise BadFilter(f"{conditions} is not a valid search op")
    tests: list[Test] = []
    for operator, want in conditions.items():
        compare = OPERATORS.get(operator)
        if compare is None:
            raise BadFilter(f"{operator} is not a valid search op")
        if operator == "eq" and want == "any":
            continue
        tests.append(_test(column, compare, want))
    return tests


def _test(column: str, compare: Callable[[Any, Any], bool], want: Any) -> Test:
    return lambda row: compare(row.get(column), want)


def keep(rows: Iterable[dict[str, Any]], tests: list[Test]) -> list[dict[str, Any]]:
    return [row for row in rows if all(test(row) for test in tests)]


def sort_rows(rows: list[dict[str, Any]], order: Iterable[tuple[str, bool]]) -> None:
    """Order in place by (column, descending) pairs; rows without a value come last either way."""
    for column, descending in reversed(list(order)):
        have = [row for row in rows if row.get(column) is not None]
        lack = [row for row in rows if row.get(column) is None]
        have.sort(key=lambda row: _sort_key(row[column]), reverse=descending)
        rows[:] = have + lack


def _sort_key(value: Any) -> tuple[int, Any]:
    return (0, float(value)) if isinstance(value, int | float) else (1, str(value))
