"""A template's ``extra_filters`` over an offer's raw attributes, as the marketplace's own search reads them.

``{"column": {"operator": value, ...}, ...}``: every condition must hold. The rules beyond the operators' names:

* Numbers may be text on either side (``{"num_gpus": {"eq": "2"}}``); booleans may be ``0``/``1`` or ``"true"``.
* ``{"eq": "any"}`` is no condition.
* A column that the offer lacks, or has as null, passes no condition but ``neq`` and ``notin``; two exceptions follow
  the vendor's habit of writing null for no: it equals ``false``, and it equals ``null``.
* ``neq`` is exactly "not ``eq``", and ``notin`` exactly "not ``in``".
* Order among texts that are no numbers is alphabetical; a number and a word have none.
* Columns that the vendor's server makes up (``verified``, ``duration``, ``cpu_ram_GB``, ...) are in ``columns``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from templates_app import columns
from templates_app.values import number, ordered, same

Row = Mapping[str, Any]
Operator = Callable[[Any, Any], bool]


class BadFilters(ValueError):
    """Filters that say nothing clear; the text says what is wrong with them."""


def _among(have: Any, wanted: Any) -> bool:
    return any(same(have, one) for one in wanted)


OPERATORS: Mapping[str, Operator] = {
    "eq": same,
    "neq": lambda have, want: not same(have, want),
    "gt": ordered(lambda have, want: have > want),
    "gte": ordered(lambda have, want: have >= want),
    "lt": ordered(lambda have, want: have < want),
    "lte": ordered(lambda have, want: have <= want),
    "in": _among,
    "notin": lambda have, want: not _among(have, want),
}
LISTS = ("in", "notin")
EQUALITY = ("eq", "neq")


@dataclass(frozen=True, slots=True)
class Condition:
    read: columns.Reader
    holds: Operator
    want: Any


@dataclass(frozen=True, slots=True)
class Filters:
    """What one template asks of a machine. With an ``error`` it fits no machine."""

    conditions: tuple[Condition, ...] = ()
    error: str = ""

    def match(self, row: Row, at: datetime) -> bool:
        """``at`` is when the row was true: columns that count down are reckoned from it."""
        return not self.error and all(item.holds(item.read(row, at), item.want) for item in self.conditions)


def compiled(extra_filters: Any) -> Filters:
    """Never raises: filters that cannot be understood carry their ``error`` and fit nothing."""
    try:
        return _from_text(extra_filters) if isinstance(extra_filters, str) else Filters(_conditions(extra_filters))
    except BadFilters as error:
        # Column names are anybody's text: halves of surrogate pairs among them could not be sent as JSON.
        return Filters(error=str(error).encode("ascii", "backslashreplace").decode()[:300])
    except RecursionError:
        return Filters(error="extra_filters is nested too deeply")


@functools.lru_cache(maxsize=4096)
def _from_text(text: str) -> Filters:
    return Filters(_conditions(_parsed(text)))


def _refuse_constant(name: str) -> None:
    raise BadFilters(f"extra_filters is not valid JSON: {name} is no number")


def _parsed(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise BadFilters(f"extra_filters is not valid JSON: {error}") from None
    except BadFilters:
        raise
    except ValueError:  # a number with thousands of digits
        raise BadFilters("extra_filters is not valid JSON: a number is too long") from None


def _conditions(filters: Any) -> tuple[Condition, ...]:
    if filters is None:
        return ()
    if not isinstance(filters, Mapping):
        raise BadFilters(f"extra_filters must be an object, not {_kind(filters)}")
    found: list[Condition] = []
    for column, operators in filters.items():
        if not isinstance(operators, Mapping):
            raise BadFilters(f"{column!s:.60}: must be an object of operators, not {_kind(operators)}")
        for operator, want in operators.items():
            condition = _condition(str(column), operator, want)
            if condition is not None:
                found.append(condition)
    return tuple(found)


def _condition(column: str, operator: Any, want: Any) -> Condition | None:
    holds = OPERATORS.get(operator) if isinstance(operator, str) else None
    if holds is None:
        raise BadFilters(f"{column:.60}: unknown operator {operator!r:.40}; there are {', '.join(OPERATORS)}")
    if operator in LISTS:
        if not isinstance(want, list | tuple):
            raise BadFilters(f"{column:.60}: {operator} needs a list, not {_kind(want)}")
        for one in want:
            _scalar(column, operator, one)
    elif operator == "eq" and want == "any":
        return None
    else:
        _scalar(column, operator, want)
    virtual = columns.VIRTUAL.get(column)
    if virtual is None:
        return Condition(columns.plain(column), holds, want)
    if virtual.at_least and operator == "eq":
        holds = OPERATORS["gte"]
    if virtual.wanted is not None:
        want = [virtual.wanted(one) for one in want] if operator in LISTS else virtual.wanted(want)
    return Condition(virtual.read, holds, want)


def _scalar(column: str, operator: str, want: Any) -> None:
    """What a value can be compared with."""
    if isinstance(want, bool | str) or (want is None and operator in (*EQUALITY, *LISTS)):
        return
    if isinstance(want, int | float) and number(want) is not None:
        return
    raise BadFilters(f"{column:.60}: {operator} cannot compare with {_kind(want)}")


def _kind(value: Any) -> str:
    names: Mapping[type, str] = {
        dict: "an object", list: "a list", tuple: "a list", str: "a text", bool: "a boolean", type(None): "null",
    }  # fmt: skip
    return names.get(type(value), "such a number" if isinstance(value, int | float) else "that")
