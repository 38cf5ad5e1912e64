"""The eight operators, nulls, and order."""

from __future__ import annotations

from typing import Any

import pytest

from providers.sandbox.filters import OPERATORS, BadFilter, compile_filter, keep, sort_rows

ROWS: list[dict[str, Any]] = [
    {"id": 1, "name": "RTX 4090", "price": 0.4, "cores": 64, "on": True},
    {"id": 2, "name": "A100 SXM4", "price": 1.2, "cores": None, "on": False},
    {"id": 3, "name": "RTX 3090", "price": 0.2, "cores": 32, "on": None},
]


def ids(column: str, condition: dict[str, Any]) -> list[int]:
    return [row["id"] for row in keep(ROWS, compile_filter(column, condition))]


@pytest.mark.parametrize(
    ("column", "condition", "expected"),
    [
        ("name", {"eq": "RTX 4090"}, [1]),
        ("name", {"eq": "RTX_4090"}, []),
        ("name", {"neq": "RTX 4090"}, [2, 3]),
        ("price", {"gt": 0.4}, [2]),
        ("price", {"gte": 0.4}, [1, 2]),
        ("price", {"lt": 0.4}, [3]),
        ("price", {"lte": 0.4}, [1, 3]),
        ("price", {"gte": "0.4"}, [1, 2]),
        ("price", {"gte": 0.3, "lt": 1}, [1]),
        ("name", {"in": ["RTX 3090", "RTX 4090"]}, [1, 3]),
        ("name", {"notin": ["RTX 3090", "RTX 4090"]}, [2]),
        ("cores", {"gte": 1}, [1, 3]),
        ("cores", {"neq": 64}, [2, 3]),
        ("on", {"eq": True}, [1]),
        ("on", {"eq": False}, [2, 3]),
        ("name", {"eq": "any"}, [1, 2, 3]),
        ("name", {}, [1, 2, 3]),
    ],
)
def test_operators(column: str, condition: dict[str, Any], expected: list[int]) -> None:
    assert ids(column, condition) == expected


def test_there_are_eight_operators() -> None:
    assert sorted(OPERATORS) == ["eq", "gt", "gte", "in", "lt", "lte", "neq", "notin"]


@pytest.mark.parametrize("condition", [{"like": 1}, 3, "x", None])
def test_what_is_no_operator_is_refused(condition: Any) -> None:
    with pytest.raises(BadFilter, match="is not a valid search op"):
        compile_filter("name", condition)


def test_order_by_several_columns_with_missing_values_last() -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "b": 2}, {"a": None, "b": 1}, {"a": 1, "b": 3}, {"a": 0, "b": 9}]
    sort_rows(rows, [("a", False), ("b", True)])
    assert rows == [{"a": 0, "b": 9}, {"a": 1, "b": 3}, {"a": 1, "b": 2}, {"a": None, "b": 1}]
    sort_rows(rows, [("a", True)])
    assert [row["a"] for row in rows] == [1, 1, 0, None]
