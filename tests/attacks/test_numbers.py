"""Numbers and dates beyond all bounds, in every field and parameter that takes one."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from tests.attacks.conftest import World
from tests.attacks.surface import ALL, WITH_BODY, WITH_QUERY, Operation, assert_refused, books

NUMBERS = ("integer", "number")
#: As JSON, none of them a number that any field takes.
IN_JSON = [
    "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" + "0" * 400, "-1", "-1.5", "1e308",
    '"1"', "true", "[]", "[1]", "{}", '""', '"NaN"', '"٣"',
]  # fmt: skip
#: No JSON at all, or no number that a computer holds: refused before any field is looked at.
NO_JSON = {
    "NaN": "NaN is not JSON", "Infinity": "Infinity is not JSON", "-Infinity": "-Infinity is not JSON",
    "1e400": "a number is too large", "-1e999999999": "a number is too large", "9" * 5000: "a number is too long",
}  # fmt: skip
IN_QUERY = [
    "9223372036854775808", "-9223372036854775809", "1" + "0" * 400, "9" * 5000, "-1", "1e400", "1e1000000000", "nan",
    "NaN", "inf", "-inf", "Infinity", "0x10", "1,5", "1 2", "", "%20", "one", "1;2", "[1]", "1e", "--1", "true",
]  # fmt: skip
DATES = [
    "10000-01-01", "0000-01-01", "-001-01-01", "2026-02-30", "2026-13-01", "2026-00-10", "9999-99-99", "20260101",
    "now",
    "2026-01-01T00:00:00Z", "1e9", "", "2026-01-01'--", "2026/01/01", "01-01-2026", "99999999999999999999",
]  # fmt: skip


def of_kind(shapes: dict[str, dict[str, Any]], *kinds: str) -> list[str]:
    return [name for name, shape in shapes.items() if shape.get("type") in kinds]


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda each: each.name)
def test_every_number_in_a_body(world: World, operation: Operation) -> None:
    before = books()
    for name, value in product(of_kind(operation.fields, *NUMBERS), IN_JSON):
        body = json.dumps(operation.body(**{name: "HERE"})).replace('"HERE"', value)
        assert_refused(world.staff(operation.method, operation.at(**world.ids), body), 400, field=name)
    assert books() == before


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda each: each.name)
def test_every_number_that_is_no_json(world: World, operation: Operation) -> None:
    before = books()
    names = ["a_field_that_nobody_knows", *of_kind(operation.fields, *NUMBERS)]
    for name, (value, reason) in product(names, NO_JSON.items()):
        sentence = f"malformed JSON: {reason}"
        body = json.dumps(operation.body(**{name: "HERE"})).replace('"HERE"', value)
        assert_refused(world.staff(operation.method, operation.at(**world.ids), body), 400, error=sentence)
    assert books() == before


@pytest.mark.parametrize("operation", WITH_QUERY, ids=lambda each: each.name)
def test_every_number_in_a_query(world: World, operation: Operation) -> None:
    before = books()
    for name in of_kind(operation.query, *NUMBERS):
        for value in IN_QUERY:
            answer = world.staff(operation.method, f"{operation.at(**world.ids)}?{name}={value}")
            assert_refused(answer, 400, field=name)
            assert answer.json()["error"].startswith(f"{name}: ")
            assert len(answer.json()["error"]) < 250
    assert books() == before


DATED = [
    (operation, name) for operation in ALL for name, shape in operation.query.items() if shape.get("format") == "date"
]  # fmt: skip


@pytest.mark.parametrize(("operation", "name"), DATED, ids=lambda each: getattr(each, "name", each))
def test_every_date(world: World, operation: Operation, name: str) -> None:
    for value in DATES:
        answer = world.staff(operation.method, f"{operation.at(**world.ids)}?{name}={value}")
        assert_refused(answer, 400, field=name)


def test_nothing_is_no_number_either(world: World) -> None:
    """``-0`` is 0, where 0 may stand; ``null`` is not "none given"."""
    extend = f"/api/v1/sessions/{world.mine}/extend"
    before = books()
    for value in ("-0", "0", "null", "-0.0", "0e5"):
        body = f'{{"additional_hours": {value}}}'
        assert_refused(world.me("POST", extend, body), 400, field="additional_hours")
    assert_refused(world.me("GET", "/api/v1/sessions?limit=-0"), 400, field="limit")
    assert world.me.json("GET", "/api/v1/sessions?offset=-0")[1]["total"] == 1
    assert books() == before


def test_the_ends_of_a_page_are_no_accident(world: World) -> None:
    for path in ("/sessions", "/inventory", f"/sessions/{world.mine}/events"):
        status, answer = world.me.json("GET", f"/api/v1{path}?offset=2147483647&limit=100000")
        assert (status, answer["count"]) == (200, 0)
        assert_refused(world.me("GET", f"/api/v1{path}?offset=2147483648"), 400, field="offset")
        assert_refused(world.me("GET", f"/api/v1{path}?limit=100001"), 400, field="limit")


def test_a_list_of_numbers_is_bounded(world: World) -> None:
    before = books()
    order = {"consumer_id": "me", "offer_id": "vastai-3", "workload_type": "llm", "reservation_hours": 1}
    wrong: list[Any] = [
        [0],
        [65_536],
        [-1],
        [2**63],
        [True],
        ["80"],
        [1.5],
        [None],
        [[80]],
        {},
        "80",
        80,
        None,
        [80] * 65,
    ]
    for ports in wrong:
        answer = world.me("POST", "/api/v1/sessions", {**order, "exposed_ports": ports})
        assert_refused(answer, 400)
        assert answer.json()["field"].startswith("exposed_ports")
    assert books() == before
