"""extra_filters: every operator, numbers as text, missing columns, made-up columns, and filters that make no sense."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from templates_app.matching import compiled

AT = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)
ROW: dict[str, Any] = {
    "gpu_name": "RTX 4090", "num_gpus": 2, "gpu_ram": 24564, "gpu_total_ram": 49128, "cpu_ram": 64_400,
    "cuda_max_good": 12.4, "compute_cap": 890, "cpu_arch": "amd64", "static_ip": True, "has_avx": 1, "rented": None,
    "reliability": 0.98, "disk_space": 200.5, "dph_total": 0.45, "verification": "verified", "hosting_type": 1,
    "geolocation": "Stockholm, Sweden, SE", "end_date": AT.timestamp() + 3600, "duration": 99.0,
    "driver_version": "550.54.15", "driver_vers": 550_054_015, "os_version": "22.04", "gpu_ids": [0, 1],
    "text_number": "12",
}  # fmt: skip


def fits(filters: Any, row: dict[str, Any] | None = None) -> bool:
    found = compiled(filters)
    assert found.error == ""
    return found.match(ROW if row is None else row, AT)


@pytest.mark.parametrize(
    ("column", "operator", "yes", "no"),
    [
        ("num_gpus", "eq", 2, 3), ("num_gpus", "neq", 3, 2), ("num_gpus", "gt", 1, 2), ("num_gpus", "gte", 2, 3),
        ("num_gpus", "lt", 3, 2), ("num_gpus", "lte", 2, 1), ("num_gpus", "in", [1, 2], [1, 3]),
        ("num_gpus", "notin", [1, 3], [1, 2]), ("num_gpus", "in", ["2"], []), ("num_gpus", "notin", [], ["2.0"]),
        # numbers as text, on either side
        ("num_gpus", "eq", "2", "3"), ("num_gpus", "eq", " 2.0 ", "02x"), ("gpu_ram", "gte", "24564", "24565"),
        ("gpu_ram", "gte", "2.4e4", "2.5e4"), ("text_number", "eq", 12, 13), ("text_number", "gt", "9", "12"),
        ("cuda_max_good", "gte", "12.4", "12.41"), ("os_version", "gte", "20.04", "24.04"),
        # texts
        ("gpu_name", "eq", "RTX 4090", "rtx 4090"), ("cpu_arch", "in", ["arm64", "amd64"], ["arm64"]),
        ("cpu_arch", "lt", "arm64", "aaa"), ("cpu_arch", "neq", "arm64", "amd64"),
        ("cpu_arch", "notin", [7], ["amd64"]),
        # booleans
        ("static_ip", "eq", True, False), ("static_ip", "eq", "true", "False"), ("static_ip", "eq", 1, 0),
        ("static_ip", "neq", False, True), ("has_avx", "eq", True, False), ("has_avx", "eq", "1", "0"),
        ("has_avx", "in", [True], ["true", 2]),
        # what the vendor left empty is no
        ("rented", "eq", False, True), ("rented", "eq", None, 0), ("rented", "neq", True, False),
        ("nowhere", "neq", 5, None), ("nowhere", "notin", [5], [False, 5]), ("nowhere", "eq", "false", "5"),
    ],
)  # fmt: skip
def test_operators(column: str, operator: str, yes: Any, no: Any) -> None:
    assert fits({column: {operator: yes}}) is True
    assert fits({column: {operator: no}}) is False


@pytest.mark.parametrize("operator", ["eq", "gt", "gte", "lt", "lte", "in"])
def test_a_missing_column_passes_no_positive_condition(operator: str) -> None:
    want = ["5", 5, "x"] if operator == "in" else 5
    assert fits({"nowhere": {operator: want}}) is False
    assert fits({"rented": {operator: want}}) is False


@pytest.mark.parametrize(
    ("have", "want"), [(2, "two"), ("two", 2), ([1], 1), (True, "yes"), ({"a": 1}, "a"), (None, 1)]
)
@pytest.mark.parametrize("operator", ["gt", "gte", "lt", "lte", "eq"])
def test_what_has_no_order_passes_none(have: Any, want: Any, operator: str) -> None:
    assert fits({"x": {operator: want}}, {"x": have}) is False


def test_several_conditions_hold_together() -> None:
    assert fits({"gpu_ram": {"gte": 20_000, "lt": 25_000}, "num_gpus": {"in": ["1", "2"]}}) is True
    assert fits({"gpu_ram": {"gte": 20_000, "lt": 24_000}, "num_gpus": {"in": ["1", "2"]}}) is False
    assert fits({"gpu_ram": {"gte": 20_000}, "num_gpus": {"in": ["1"]}}) is False


def test_any_is_no_condition() -> None:
    assert fits({"verified": {"eq": "any"}, "nowhere": {"eq": "any"}}) is True
    assert fits({"num_gpus": {"eq": "any", "gt": 2}}) is False
    assert fits({"num_gpus": {"neq": "any"}}) is True  # only "equal to any" is a wildcard


@pytest.mark.parametrize("nothing", [None, "", "  ", "null", "{}", {}, '{"num_gpus": {}}'])
def test_no_filters_fit_everything(nothing: Any) -> None:
    assert fits(nothing) is True
    assert fits(nothing, {}) is True


@pytest.mark.parametrize(
    ("column", "yes", "no"),
    [
        ("verified", {"eq": True}, {"eq": False}), ("verified", {"eq": "true"}, {"neq": 1}),
        ("datacenter", {"eq": True}, {"eq": "false"}),
        ("duration", {"gte": 3600}, {"gte": "3601"}),
        ("geolocation", {"eq": "SE"}, {"eq": "US"}), ("geolocation", {"in": ["no", "se"]}, {"notin": ["SE"]}),
        ("geolocation", {"eq": "Stockholm, Sweden, SE"}, {"neq": "SE"}),
        ("allocated_storage", {"eq": 200}, {"eq": 201}), ("allocated_storage", {"gte": "200.5"}, {"gt": "200.5"}),
        ("target_reliability", {"eq": 0.9}, {"eq": 0.99}),
        ("reliability2", {"gte": 0.98}, {"gt": "0.98"}),
        ("dphtotal", {"lte": 0.45}, {"lt": 0.45}), ("gpu_totalram", {"eq": 49128}, {"eq": 24564}),
        ("ubuntu_version", {"eq": "22.04"}, {"eq": "20.04"}),
        ("cpu_ram_GB", {"eq": 64.4}, {"gt": 64.4}), ("gpu_ram_GB", {"eq": "24.564"}, {"gte": 24.565}),
        ("gpu_totalram_GB", {"gte": 48}, {"lte": 48}),
        ("driver_version", {"gte": "535.86.05"}, {"gte": "550.54.16"}),
        ("driver_version", {"eq": 550_054_015}, {"eq": "550"}),
        ("driver_version", {"in": ["550.54.15"]}, {"in": ["5"]}),
        ("driver_version", {"neq": "latest"}, {"eq": "latest"}),
        ("driver_vers", {"gte": "535086005"}, {"lt": "535086005"}),
    ],
)  # fmt: skip
def test_columns_that_the_vendor_makes_up(column: str, yes: Any, no: Any) -> None:
    assert fits({column: yes}) is True
    assert fits({column: no}) is False


def test_made_up_columns_of_an_empty_row_are_missing() -> None:
    for column in ("datacenter", "duration", "geolocation", "allocated_storage", "cpu_ram_GB", "driver_version"):
        assert fits({column: {"gte": 0}}, {}) is False
        assert fits({column: {"neq": 7}}, {}) is True


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"verification": "unverified", "verified": True}, False),
        ({"verification": "verified", "verified": False}, True),
        ({"verified": True}, True), ({"vericode": 1}, True), ({"vericode": "1"}, True), ({"vericode": 2}, False),
        ({}, False),
    ],
)  # fmt: skip
def test_verified_trusts_the_word_first(row: dict[str, Any], expected: bool) -> None:
    assert fits({"verified": {"eq": True}}, row) is expected
    assert fits({"verified": {"eq": False}}, row) is not expected


def test_duration_is_what_was_listed_where_no_end_is_told() -> None:
    assert fits({"duration": {"eq": 99}}, {"duration": 99.0, "end_date": None}) is True
    assert fits({"duration": {"eq": 0}}, {"end_date": AT.timestamp() - 5}) is True


BROKEN = [
    ('{"a"', "extra_filters is not valid JSON: Expecting ':' delimiter: line 1 column 5 (char 4)"),
    ("gpu_ram>=20", "extra_filters is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
    ('{"a": {"eq": NaN}}', "extra_filters is not valid JSON: NaN is no number"),
    ("[]", "extra_filters must be an object, not a list"), ("7", "extra_filters must be an object, not such a number"),
    ([], "extra_filters must be an object, not a list"), ('"{}"', "extra_filters must be an object, not a text"),
    ({"a": 5}, "a: must be an object of operators, not such a number"),
    ({"a": None}, "a: must be an object of operators, not null"),
    ({"a": {"like": 5}}, "a: unknown operator 'like'; there are eq, neq, gt, gte, lt, lte, in, notin"),
    ({"a": {"EQ": 5}}, "a: unknown operator 'EQ'; there are eq, neq, gt, gte, lt, lte, in, notin"),
    ({"a": {"in": 5}}, "a: in needs a list, not such a number"),
    ({"a": {"notin": "x"}}, "a: notin needs a list, not a text"),
    ({"a": {"in": [[1]]}}, "a: in cannot compare with a list"),
    ({"a": {"eq": {}}}, "a: eq cannot compare with an object"),
    ({"a": {"gt": None}}, "a: gt cannot compare with null"), ({"a": {"lt": [1]}}, "a: lt cannot compare with a list"),
    ({"a": {"eq": float("inf")}}, "a: eq cannot compare with such a number"),
    ('{"a": {"eq": ' + "9" * 5000 + "}}", "extra_filters is not valid JSON: a number is too long"),
    ('{"\\ud800": 1}', "\\ud800: must be an object of operators, not such a number"),
    ("[" * 100_000, "extra_filters is nested too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("filters", "error"), BROKEN, ids=range(len(BROKEN)))
def test_broken_filters_fit_nothing_and_say_why(filters: Any, error: str) -> None:
    found = compiled(filters)
    assert found.error == error
    assert found.match(ROW, AT) is False
    assert found.match({}, AT) is False
    json.dumps(found.error).encode()
