"""Listing and looking at instances (Vast.ai contract, sections 4.1 and 4.2)."""

from __future__ import annotations

import base64
import json
from typing import Any

from providers.sandbox.engine import Engine
from providers.sandbox.filters import BadFilter, Test, compile_filter, keep, sort_rows
from providers.sandbox.instances import Contract
from providers.sandbox.vast.errors import VastError, invalid_request
from providers.sandbox.vast.gateway import Call, Route
from providers.sandbox.vast.rows import instance_row

MAX_PAGE = 25
#: Columns that the server stores, and therefore filters and orders by; the others are computed.
STORED = frozenset(
    {
        "id", "label", "actual_status", "cur_state", "next_state", "intended_status", "gpu_name", "verification",
        "machine_id", "host_id", "start_date", "end_date", "image_uuid", "image_runtype", "geolocation", "country_code",
        "is_bid", "hosting_type", "template_hash_id", "template_id", "disk_space", "ssh_host", "ssh_port",
        "public_ipaddr",
    }
)  # fmt: skip
#: Enough to count, order and page by.
_BRIEF = frozenset({"id", "label"})


def list_instances(call: Call) -> dict[str, Any]:
    """One page of the caller's instances; those that a listing does not show yet are left out of everything."""
    tests, order = _tests(call.json_query("select_filters", {})), _order(call.json_query("order_by", []))
    contracts = {contract.id: contract for contract in _visible(call)}
    brief = not tests and {column for column, _ in order} <= _BRIEF
    # Of thousands, only those of the page are worth a whole row.
    made = _brief_row if brief else instance_row
    rows = keep([made(call.engine, contract) for contract in contracts.values()], tests)
    sort_rows(rows, order)
    lie = call.engine.faults.take({"empty_listing", "partial_listing"}, "list", api_key=call.account.api_key)
    total, labels = len(rows), _label_counts(rows)
    page, token = _page(call, rows, order)
    if lie:
        page, token = page[: int(lie.params.get("keep", 1))] if lie.kind == "partial_listing" else [], None
        if lie.kind == "empty_listing" or lie.params.get("consistent"):
            total, labels = len(page), _label_counts(page)
    if brief:
        page = [instance_row(call.engine, contracts[row["id"]]) for row in page]
    columns = call.json_query("select_cols", ["*"])
    if isinstance(columns, list) and "*" not in columns:
        page = [{name: row.get(name) for name in columns} for row in page]
    return {
        "success": True,
        "instances_found": len(page),
        "total_instances": total,
        "label_counts": labels,
        "next_token": token,
        "instances": page,
    }


def _visible(call: Call) -> list[Contract]:
    now = call.engine.clock.now()
    return [contract for contract in call.engine.ledger.live_of(call.account.id) if contract.visible_at <= now]


def _brief_row(_: Engine, contract: Contract) -> dict[str, Any]:
    return {"id": contract.id, "label": contract.label}


def _tests(filters: Any) -> list[Test]:
    if not isinstance(filters, dict):
        raise invalid_request("Error in query parameters: select_filters is not an object")
    tests: list[Test] = []
    for column, conditions in filters.items():
        if column not in STORED:
            raise invalid_request(f"Error in query parameters: {column} is not a valid search key")
        try:
            tests += compile_filter(column, conditions)
        except BadFilter as error:
            raise invalid_request(f"Error in query parameters: {error}") from None
    return tests


def _order(wanted: Any) -> list[tuple[str, bool]]:
    """``[{"col", "dir"}]``; a strange direction means ascending, and the id breaks ties."""
    found: list[tuple[str, bool]] = []
    for entry in wanted if isinstance(wanted, list) else []:
        column = entry.get("col") if isinstance(entry, dict) else None
        if column not in STORED:
            raise invalid_request(f"Error in query parameters: {column} is not a valid search key")
        found.append((column, str(entry.get("dir", "asc")).lower() == "desc"))
    if "id" not in [column for column, _ in found]:
        found.append(("id", False))
    return found


def _label_counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        label = row["label"] or ""
        counts[label] = counts.get(label, 0) + 1
    return counts


def _page(
    call: Call, rows: list[dict[str, Any]], order: list[tuple[str, bool]]
) -> tuple[list[dict[str, Any]], str | None]:
    """The rows after the token's row. The token names values, so it survives rows that come and go."""
    size = _limit(call.query.get("limit"))
    token = call.query.get("after_token")
    if token:
        last = _read_token(token, order)
        marked = [*(row for row in rows if row["id"] != last["id"]), {**last, "_mark": True}]
        sort_rows(marked, order)
        place = next(index for index, row in enumerate(marked) if "_mark" in row)
        rows = marked[place + 1 :]
    page = rows[:size]
    if len(rows) <= size:
        return page, None
    values = {"values": {column: page[-1][column] for column, _ in order}}
    return page, base64.b64encode(json.dumps(values).encode()).decode()


def _limit(text: str | None) -> int:
    if text is None or text == "":
        return MAX_PAGE
    try:
        limit = int(float(text))
    except ValueError:
        raise invalid_request("Error in query parameters: limit is not a number") from None
    return 5 if limit <= 0 else min(limit, MAX_PAGE)


def _read_token(token: str, order: list[tuple[str, bool]]) -> dict[str, Any]:
    try:
        values = json.loads(base64.b64decode(token, validate=True))["values"]
        return {column: values[column] for column, _ in order}
    except (ValueError, KeyError, TypeError):
        raise VastError(400, "invalid_token", "Invalid pagination token") from None


def get_instance(call: Call) -> dict[str, Any]:
    """One instance under a plural key; one that is not (or no longer) there is null, not an error."""
    found = call.engine.find(call.account, call.number())
    return {"instances": instance_row(call.engine, found) if found else None}


def old_list(call: Call) -> dict[str, Any]:
    """Retired; but only a caller who is known is told so."""
    message = "/api/v0/instances/ is deprecated. Use /api/v1/instances/ instead."
    raise VastError(410, "deprecated_endpoint", message)


def list_filters(call: Call) -> dict[str, Any]:
    """The values that the caller's instances have in the usual filter columns."""
    rows = [instance_row(call.engine, contract) for contract in _visible(call)]
    columns = ("actual_status", "gpu_name", "label", "verification")
    return {"filters": [{"column": name, "values": sorted({str(row[name] or "") for row in rows})} for name in columns]}


ROUTES = [
    Route("GET", "/api/v1/instances/", "list", list_instances),
    Route("GET", "/api/v0/instances/", "list", old_list),
    Route("GET", "/api/v0/instances/filters/", "filters", list_filters),
    Route("GET", r"/api/v0/instances/{id:\d+}/", "get", get_instance),
]
