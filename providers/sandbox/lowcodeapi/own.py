"""What belongs to the account, behind the gateway: user, money, keys, templates (Vast.ai contract, section 7.2)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from providers.sandbox.lowcodeapi.routes import GatewayRoute, add_filter, cut, query_object
from providers.sandbox.vast import account, keys, templates
from providers.sandbox.vast.errors import VastError, error_page
from providers.sandbox.vast.gateway import Call


def _some_user(call: Call) -> web.Response | dict[str, Any]:
    """The vendor has no such path; what it tells of oneself is all there is."""
    if call.number() == call.account.id:
        return account.current_user(call)
    return error_page(404, call.accept, "GET", "/api/v0/users/")


def _all_time(call: Call) -> None:
    """The vendor wants a range; without one the gateway asks for everything. ``offset`` has no counterpart."""
    if "when" not in query_object(call, "select_filters"):
        add_filter(call, "when", {"gte": 0, "lte": call.engine.clock.now() + 1})


def _one_invoice(call: Call) -> dict[str, Any]:
    rows = [row for row in account.invoice_rows(call) if row["metadata"]["invoice_id"] == call.number()]
    if not rows:
        raise VastError(404, "not_found", f"Invoice {call.number()} not found.")
    return {"success": True, "count": 1, "total": 1, "next_token": None, "results": rows}


def _public_key(call: Call) -> None:
    """The vendor's keys have no names."""
    call.body = {"ssh_key": call.body.get("public_key")}


def _owner(call: Call) -> None:
    if call.query.get("owner_id"):
        add_filter(call, "creator_id", {"eq": call.query["owner_id"]})


def _list_templates(call: Call) -> dict[str, Any]:
    found = templates.search(call)
    rows = cut(call, found["templates"])
    return {**found, "templates_found": len(rows), "templates": rows}


def _this_template(call: Call) -> None:
    add_filter(call, "id", {"eq": call.number()})


def _by_id(call: Call) -> None:
    """The vendor wants a template's number in the body, as a number."""
    call.body = {**call.body, "id": call.number(), "template_id": call.number()}


ROUTES = (
    GatewayRoute("GET", "/balance", "user", account.current_user),
    GatewayRoute("GET", "/users/me", "user", account.current_user),
    GatewayRoute("PUT", "/users/me", "user_update", account.update_user),
    GatewayRoute("GET", "/users/user_id", "user", _some_user),
    GatewayRoute("GET", "/invoices", "invoices", account.invoices, _all_time),
    GatewayRoute("GET", "/invoices/invoice_id", "invoices", _one_invoice),
    GatewayRoute("GET", "/ssh_keys", "ssh_list", keys.list_account_keys),
    GatewayRoute("POST", "/ssh_keys", "ssh_add", keys.add_account_key, _public_key),
    GatewayRoute("DELETE", "/ssh_keys/ssh_key_id", "ssh_delete", keys.remove_account_key),
    GatewayRoute("GET", "/templates", "templates", _list_templates, _owner),
    GatewayRoute("POST", "/templates", "template_create", templates.create),
    GatewayRoute("GET", "/templates/template_id", "templates", templates.search, _this_template),
    GatewayRoute("PUT", "/templates/template_id", "template_update", templates.edit, _by_id),
    GatewayRoute("DELETE", "/templates/template_id", "template_delete", templates.delete, _by_id),
)
