"""The user, what was paid in and what was spent (Vast.ai contract, sections 5.2 to 5.4)."""

from __future__ import annotations

import base64
import json
from typing import Any

from providers.sandbox import billing
from providers.sandbox.engine import Engine
from providers.sandbox.ledger import Account
from providers.sandbox.vast.errors import VastError
from providers.sandbox.vast.gateway import Call, Route

#: What a user may change of itself.
_USERS_OWN = frozenset(
    {
        "username", "email", "fullname", "balance_threshold", "balance_threshold_enabled", "autobill_threshold",
        "autobill_amount",
    }
)  # fmt: skip


def current_user(call: Call) -> dict[str, Any]:
    """``credit`` is what can be spent; ``balance`` is something else and stays at zero for prepaid users."""
    return user_row(call.engine, call.account)


def user_row(engine: Engine, account: Account) -> dict[str, Any]:
    credit = engine.credit(account)
    return {
        "id": account.id,
        "key_id": account.id + 1,
        "username": f"sandbox-{account.id}",
        "email": f"sandbox-{account.id}@example.invalid",
        "email_verified": True,
        "fullname": None,
        "api_key": account.api_key,
        "sid": "V",
        "ssh_key": None,
        "balance": min(0.0, credit),
        "credit": credit,
        "balance_threshold": 0.0,
        "balance_threshold_enabled": False,
        "autobill_threshold": None,
        "autobill_amount": None,
        "can_pay": True,
        "has_billing": True,
        "has_payout": False,
        **json.loads(engine.ledger.get_meta(f"user:{account.id}") or "{}"),
    }


def update_user(call: Call) -> dict[str, Any]:
    """Write some of one's own fields; the money and the keys are not among them."""
    if not call.body:
        raise VastError(400, "missing_input", "No input was given.")
    for name, value in call.body.items():
        if name not in _USERS_OWN:
            raise VastError(400, "nonexistent_key", f"{name} cannot be changed.")
        if value == "":
            raise VastError(400, "empty_input", f"{name} is empty.")
        if len(str(value)) > 256:
            raise VastError(400, "input_too_long", f"{name} is longer than 256 characters.")
    name = f"user:{call.account.id}"
    kept = json.loads(call.engine.ledger.get_meta(name) or "{}")
    call.engine.ledger.set_meta(name, json.dumps({**kept, **call.body}))
    return {"success": True, **user_row(call.engine, call.account)}


def _range(filters: Any, column: str) -> tuple[float, float] | None:
    bounds = filters.get(column) if isinstance(filters, dict) else None
    if not isinstance(bounds, dict):
        return None
    low, high = bounds.get("gte"), bounds.get("lte")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or low > high:
        return None
    return float(low), float(high)


def _page(call: Call, rows: list[dict[str, Any]], default: int, most: int) -> tuple[list[dict[str, Any]], str | None]:
    """A page by offset, which is all that the token holds."""
    text = call.query.get("limit", "")
    size = min(most, int(text)) if text.isdigit() and int(text) else default
    token, start = call.query.get("after_token"), 0
    if token:
        try:
            start = int(json.loads(base64.b64decode(token, validate=True))["offset"])
        except (ValueError, KeyError, TypeError):
            raise VastError(400, "invalid_token", "Invalid pagination token") from None
    following = base64.b64encode(json.dumps({"offset": start + size}).encode()).decode()
    return rows[start : start + size], following if start + size < len(rows) else None


def _newest_first(call: Call, rows: list[dict[str, Any]], default: bool) -> list[dict[str, Any]]:
    text = call.query.get("latest_first", str(default)).lower()
    return sorted(rows, key=lambda row: float(row["start"]), reverse=text in ("true", "1"))


def charges(call: Call) -> dict[str, Any]:
    """What each instance cost in a stretch of days; the label is still there after the destroy."""
    filters = call.json_query("select_filters", {})
    bounds = _range(filters, "day")
    if bounds is None:
        raise VastError(400, None, "Must provide both 'day' gte and lte filters for instance charges")
    kinds = filters.get("type", {}).get("in", ["instance"]) if isinstance(filters.get("type"), dict) else ["instance"]
    until = min(bounds[1], call.engine.clock.now())
    found = billing.charges(call.engine.ledger, call.account, bounds[0], until) if "instance" in kinds else []
    rows = _newest_first(call, [_charge_row(charge) for charge in found], True)
    page, token = _page(call, rows, 100, 500)
    return {"success": True, "count": len(page), "total": len(rows), "next_token": token, "results": page}


def _charge_row(charge: billing.Charge) -> dict[str, Any]:
    contract = charge.contract
    items = []
    for kind, amount, rate in (("gpu", charge.gpu, contract.gpu_rate), ("disk", charge.disk, contract.disk_rate)):
        if amount:
            hours = amount / rate if rate else 0.0
            item = {"type": kind, "description": f"{hours:.3f} hours at ${rate:.3f}/hour", "amount": round(amount, 3)}
            items.append({**item, "start": charge.start, "end": charge.end, "source": f"instance-{contract.id}"})
    if charge.traffic:
        price = contract.offer.get("inet_cost") or 0.01
        gigabytes = f"{charge.traffic / price:.3f} GB at ${price:.3f}/GB"
        items.append({"type": "bwd", "description": gigabytes, "amount": round(charge.traffic, 3)})
    return {
        "start": charge.start,
        "end": charge.end,
        "type": "instance",
        "source": f"instance-{contract.id}",
        "description": f"{contract.num_gpus}x {contract.offer['model']['name']}",
        "amount": round(charge.total, 3),
        "metadata": {"label": contract.label, "machine_id": contract.machine_id},
        "items": items,
    }


def invoice_rows(call: Call) -> list[dict[str, Any]]:
    return [
        {
            "start": at,
            "end": None,
            "type": "credit",
            "source": service.split("_")[0],
            "description": f"{service.split('_')[0].capitalize()} credit purchase",
            "amount": -amount,
            "metadata": {"invoice_id": number, "service": service},
            "items": [],
        }
        for number, at, amount, service in call.engine.ledger.top_ups(call.account)
    ]


def invoices(call: Call) -> dict[str, Any]:
    """Top-ups, as negative amounts. Without a range: 200, and no."""
    bounds = _range(call.json_query("select_filters", {}), "when")
    if bounds is None:
        empty: dict[str, Any] = {"count": 0, "total": 0, "results": [], "next_token": None}
        return {"success": False, "error": "Invalid date range", **empty}
    rows = [row for row in invoice_rows(call) if bounds[0] <= row["start"] <= bounds[1]]
    rows = _newest_first(call, rows, False)
    page, token = _page(call, rows, 60, 100)
    return {"success": True, "count": len(page), "total": len(rows), "next_token": token, "results": page}


ROUTES = [
    Route("GET", "/api/v0/users/current/", "user", current_user),
    Route("GET", "/api/v0/charges/", "charges", charges),
    Route("GET", "/api/v1/invoices/", "invoices", invoices),
    Route("PUT", "/api/v0/users/", "user_update", update_user),
]
