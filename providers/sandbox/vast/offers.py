"""Searching offers (Vast.ai contract, section 2): three ways to ask one question."""

from __future__ import annotations

import json
from typing import Any

from providers.sandbox.engine import Engine
from providers.sandbox.filters import BadFilter, Test, compile_filter, keep, sort_rows
from providers.sandbox.hardware import MODELS
from providers.sandbox.vast.errors import invalid_request
from providers.sandbox.vast.gateway import Call, Route
from providers.sandbox.vast.rows import country, offer_base, offer_row

#: The server sends no more, whatever ``limit`` says.
MAX_ROWS = 64
DEFAULT_STORAGE = 8.0
_CONTROLS = frozenset(
    {
        "limit", "order", "type", "disable_bundling", "extra_ids", "gpu_option", "show_incompatible",
        "sort_option", "template_id", "owner", "api_key",
    }
)  # fmt: skip
_DEFAULTS: dict[str, Any] = {"verified": {"eq": True}, "rentable": {"eq": True}, "rented": {"eq": False}}
_RENAMED = {
    "reliability2": "reliability",
    "dphtotal": "dph_total",
    "gpu_totalram": "gpu_total_ram",
    "ubuntu_version": "os_version",
}
_IN_GB = {"cpu_ram_GB": "cpu_ram", "gpu_ram_GB": "gpu_ram", "gpu_totalram_GB": "gpu_total_ram"}
_AT_LEAST = {"allocated_storage": "disk_space", "target_reliability": "expected_reliability"}
#: Columns that exist for filters only, added to rows before they are tested.
_VIRTUAL = frozenset({"_country", "_none", "_datacenter"})


def search_post(call: Call) -> dict[str, Any]:
    return {"offers": search(call.engine, call.body)}


def search_get(call: Call) -> dict[str, Any]:
    text = call.query.get("q", "{}")
    try:
        wanted = json.loads(text)
    except ValueError:
        raise invalid_request("Invalid json body") from None
    if not isinstance(wanted, dict):
        raise invalid_request("Invalid json body")
    return {"offers": search(call.engine, wanted)}


def search_put(call: Call) -> dict[str, Any]:
    wanted = call.body.get("q", {})
    if not isinstance(wanted, dict):
        raise invalid_request("Invalid json body")
    columns = call.body.get("select_cols", ["*"])
    rows = search(call.engine, wanted)
    if "*" not in columns:
        rows = [{name: row.get(name) for name in columns} for row in rows]
    return {"offers": rows}


def search(engine: Engine, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a query finds, ordered and cut to what the server sends."""
    kind = wanted.get("type", "on-demand")
    if kind not in ("on-demand", "ondemand", "bid", "interruptible", "reserved"):
        raise invalid_request(f"{kind} is not a valid offer type")
    storage = _number(wanted.get("allocated_storage"), DEFAULT_STORAGE)
    rows = _all_rows(engine, storage, bid=kind in ("bid", "interruptible"))
    tests = _tests({**_DEFAULTS, **wanted}, set(rows[0]) if rows else set())
    rows = keep(rows, tests)
    sort_rows(rows, _order(wanted.get("order", [["score", "desc"]])))
    rows = rows[: max(0, min(MAX_ROWS, int(_number(wanted.get("limit"), MAX_ROWS))))]
    return [{name: value for name, value in row.items() if name not in _VIRTUAL} for row in rows]


def _all_rows(engine: Engine, storage: float, bid: bool) -> list[dict[str, Any]]:
    now, rows = engine.clock.now(), []
    for ask in engine.market.asks.values():
        offer = engine.market.described(ask)
        if offer["end_date"] is not None and offer["end_date"] <= now:
            continue
        if "_vast" not in offer:  # the unchanging columns are worked out once
            offer["_vast"] = offer_base(offer)
        row = offer_row(offer["_vast"], offer, now, storage, bid)
        row["_country"] = country(offer["place"])
        row["_datacenter"] = bool(offer["datacenter"])
        row["_none"] = None
        rows.append(row)
    return rows


def _number(value: Any, default: float) -> float:
    return default if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def _tests(wanted: dict[str, Any], columns: set[str]) -> list[Test]:
    tests: list[Test] = []
    for column, conditions in wanted.items():
        if column in _CONTROLS:
            continue
        try:
            tests += _column_tests(column, conditions, columns)
        except BadFilter as error:
            raise invalid_request(str(error)) from None
    return tests


def _column_tests(column: str, conditions: Any, columns: set[str]) -> list[Test]:
    """One column's tests after the server's renaming (section 2.1)."""
    if column in _AT_LEAST:
        if not isinstance(conditions, dict):  # as a number, the storage sets prices and filters nothing
            return [] if column == "allocated_storage" else compile_filter(_AT_LEAST[column], {"gte": conditions})
        return [test for value in conditions.values() for test in compile_filter(_AT_LEAST[column], {"gte": value})]
    if column == "external" and not isinstance(conditions, dict):
        return []
    if column == "rented" and conditions == {"eq": True}:
        return []  # "also those that I already rent on": every row may show
    if column == "id":
        return compile_filter("_none", {"eq": 0, **({} if isinstance(conditions, dict) else {"": 0})})
    if column in _IN_GB and isinstance(conditions, dict):
        return compile_filter(_IN_GB[column], {op: _thousandfold(value) for op, value in conditions.items()})
    if column == "geolocation":
        return compile_filter("_country", conditions)
    if column == "datacenter":
        return compile_filter("_datacenter", conditions)
    if column == "driver_version" and isinstance(conditions, dict):
        return compile_filter("driver_vers", {op: _driver(value) for op, value in conditions.items()})
    column = _RENAMED.get(column, column)
    if column not in columns or column.startswith("_"):
        raise BadFilter(f"{column} is not a valid search key")
    return compile_filter(column, conditions)


def _thousandfold(value: Any) -> Any:
    if isinstance(value, list):
        return [_thousandfold(one) for one in value]
    return value * 1000 if isinstance(value, int | float) else value


def _driver(value: Any) -> Any:
    parts = str(value).split(".")
    if not all(part.isdigit() for part in parts):
        return value
    major, minor, patch = (int(part) for part in [*parts, "0", "0"][:3])
    return major * 1_000_000 + minor * 1000 + patch


def _order(order: Any) -> list[tuple[str, bool]]:
    pairs = order if isinstance(order, list) else []
    found = []
    for pair in pairs:
        if not isinstance(pair, list) or not pair or not isinstance(pair[0], str):
            raise invalid_request("Invalid order")
        name = _RENAMED.get(pair[0], pair[0])
        found.append((name, len(pair) > 1 and str(pair[1]).lower() == "desc"))
    return found


def gpu_names(call: Call) -> dict[str, Any]:
    return {"gpu_names": sorted({model.name for model in MODELS})}


ROUTES = [
    Route("POST", "/api/v0/bundles/", "search", search_post, public=True),
    Route("GET", "/api/v0/bundles/", "search", search_get, public=True),
    Route("PUT", "/api/v0/search/asks/", "search", search_put, public=True),
    Route("GET", "/api/v0/gpu_names/unique/", "gpu_names", gpu_names, public=True),
]
