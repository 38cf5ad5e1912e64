"""Properties of extra_filters: the same verdict as a plain reading of the contract, and never an exception."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from templates_app.columns import VIRTUAL
from templates_app.matching import OPERATORS, compiled
from tests.examples import examples

AT = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)
NAMES = ["a", "b", "c"]
scalars = st.one_of(
    st.integers(-50, 50), st.floats(-50, 50, allow_nan=False), st.booleans(), st.sampled_from(["amd64", "arm64", ""]),
    st.integers(-50, 50).map(str), st.decimals(-50, 50, places=2).map(str),
)  # fmt: skip
rows = st.dictionaries(st.sampled_from(NAMES), scalars | st.none(), max_size=3)
conditions = st.one_of(
    st.tuples(st.sampled_from(["eq", "neq", "gt", "gte", "lt", "lte"]), scalars),
    st.tuples(st.sampled_from(["in", "notin"]), st.lists(scalars, max_size=4)),
)
filters = st.dictionaries(
    st.sampled_from(NAMES), st.lists(conditions, max_size=3, unique_by=lambda pair: pair[0]).map(dict), max_size=3
)


def plain_number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def plain_equal(have: Any, want: Any) -> bool:
    if have is None:
        return want is False
    if isinstance(have, bool) or isinstance(want, bool):
        left, right = plain_number(have), plain_number(want)
        return left is not None and left == right
    left, right = plain_number(have), plain_number(want)
    if left is not None and right is not None:
        return left == right
    return isinstance(have, str) and isinstance(want, str) and have == want


def plain_order(have: Any, want: Any) -> int | None:
    left, right = plain_number(have), plain_number(want)
    if left is not None and right is not None:
        return (left > right) - (left < right)
    if left is None and right is None and isinstance(have, str) and isinstance(want, str):
        return (have > want) - (have < want)
    return None


def plain_holds(row: dict[str, Any], column: str, operator: str, want: Any) -> bool:
    """The contract read aloud, one operator after the other."""
    have = row.get(column)
    if operator in ("in", "notin"):
        member = any(plain_equal(have, one) for one in want)
        return member if operator == "in" else not member
    if operator in ("eq", "neq"):
        return plain_equal(have, want) if operator == "eq" else not plain_equal(have, want)
    order = plain_order(have, want)
    return order is not None and {"gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0}[operator]


@settings(max_examples=examples(150), deadline=None)
@given(filters=filters, row=rows, as_text=st.booleans())
def test_agrees_with_the_plain_reading(filters: dict[str, Any], row: dict[str, Any], as_text: bool) -> None:
    expected = all(
        plain_holds(row, column, operator, want)
        for column, operators in filters.items()
        for operator, want in operators.items()
    )
    found = compiled(json.dumps(filters) if as_text else filters)
    assert found.error == ""
    assert found.match(row, AT) is expected


@settings(max_examples=examples(100), deadline=None)
@given(row=rows, column=st.sampled_from(NAMES), want=scalars, wanted=st.lists(scalars, max_size=4))
def test_negations_are_negations(row: dict[str, Any], column: str, want: Any, wanted: list[Any]) -> None:
    def holds(operator: str, value: Any) -> bool:
        return compiled({column: {operator: value}}).match(row, AT)

    assert holds("neq", want) is not holds("eq", want)
    assert holds("notin", wanted) is not holds("in", wanted)
    assert holds("in", [want]) is holds("eq", want)
    assert not (holds("gt", want) and holds("lte", want))
    assert holds("gte", want) is (holds("gt", want) or (holds("lte", want) and holds("gte", want)))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["535.86.05", "any"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
columns = st.sampled_from([*VIRTUAL, "disk_space", "end_date", "verification", "vericode", "hosting_type"]) | st.text()
likely = st.dictionaries(
    columns, st.dictionaries(st.sampled_from([*OPERATORS, "like"]), anything, max_size=3), max_size=3
)


@settings(max_examples=examples(150), deadline=None)
@given(filters=likely | anything | st.text(), row=st.dictionaries(columns, anything, max_size=6))
def test_never_raises(filters: Any, row: dict[str, Any]) -> None:
    found = compiled(filters)
    verdict = found.match(row, AT)
    assert verdict in (True, False)
    assert not (verdict and found.error)
    json.dumps(found.error).encode("ascii")


@settings(max_examples=examples(100), deadline=None)
@given(filters=likely, row=st.dictionaries(columns, anything, max_size=6))
def test_text_and_object_agree(filters: dict[str, Any], row: dict[str, Any]) -> None:
    text = json.dumps(filters)
    left, right = compiled(filters), compiled(text)
    assert bool(left.error) == bool(right.error)
    assert left.match(row, AT) is right.match(row, AT)
