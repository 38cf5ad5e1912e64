"""Offers and the host's machines behind the gateway (Vast.ai contract, section 7.2, rows 16 to 22)."""

from __future__ import annotations

from typing import Any

from providers.sandbox.lowcodeapi.routes import GatewayRoute, cut, number_in_query, query_object
from providers.sandbox.vast import hosting
from providers.sandbox.vast.gateway import Call
from providers.sandbox.vast.offers import search


def _search(call: Call) -> None:
    """``q`` is the vendor's own search as JSON; the other words win over it. ``offset`` has no counterpart."""
    wanted = query_object(call, "q")
    if call.query.get("type"):
        wanted["type"] = call.query["type"]
    if call.query.get("sort_option"):
        wanted["order"] = [[call.query["sort_option"], call.query.get("order", "asc")]]
    limit = number_in_query(call, "limit")
    call.body = wanted if limit is None else {**wanted, "limit": limit}


def _list_offers(call: Call) -> dict[str, Any]:
    return {"offers": search(call.engine, call.body)}


def _one_offer(call: Call) -> dict[str, Any]:
    """The vendor shows one offer only by a search for it."""
    wanted: dict[str, Any] = {"ask_contract_id": {"eq": call.number()}, "verified": {"eq": "any"}}
    return {"offers": search(call.engine, {**wanted, "rentable": {"eq": "any"}, "rented": {"eq": "any"}})}


def _list_machines(call: Call) -> dict[str, Any]:
    if call.query.get("owner_id", str(call.account.id)) != str(call.account.id):
        return {"machines": []}
    return {"machines": cut(call, hosting.list_machines(call)["machines"])}


def _machine_and_price(call: Call) -> None:
    """The gateway's ``price`` is the price of a GPU; what else is said goes along."""
    if "machine_id" in call.body:
        call.body["machine"] = call.body.pop("machine_id")
    if "id" in call.path:
        call.body["machine"] = call.number()
    if "price" in call.body:
        call.body["price_gpu"] = call.body.pop("price")


ROUTES = (
    GatewayRoute("GET", "/offers", "search", _list_offers, _search),
    GatewayRoute("GET", "/offers/offer_id", "search", _one_offer),
    GatewayRoute("GET", "/machines", "machines", _list_machines),
    GatewayRoute("POST", "/machines", "machine_list", hosting.list_for_rent, _machine_and_price),
    GatewayRoute("GET", "/machines/machine_id", "machines", hosting.get_machine),
    GatewayRoute("PUT", "/machines/machine_id", "machine_list", hosting.list_for_rent, _machine_and_price),
    GatewayRoute("DELETE", "/machines/machine_id", "machine_unlist", hosting.unlist),
)
