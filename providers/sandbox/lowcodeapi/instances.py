"""Instances and bids behind the gateway (Vast.ai contract, section 7.2, rows 2 to 13)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from providers.sandbox.lowcodeapi.routes import GatewayRoute, add_filter, cut
from providers.sandbox.vast import actions, create, keys
from providers.sandbox.vast.errors import VastError
from providers.sandbox.vast.gateway import Call
from providers.sandbox.vast.instances import get_instance, list_instances
from providers.sandbox.vast.launch import invalid_args
from providers.sandbox.vast.offers import search
from providers.sandbox.vast.rows import instance_row

#: What a bid runs, as it names no image.
_BID_IMAGE = "vastai/base-image:@vastai-automatic-tag"


def _owner_and_state(call: Call) -> None:
    """``offset`` has no counterpart at the vendor and is not looked at."""
    if call.query.get("state"):
        add_filter(call, "actual_status", {"eq": call.query["state"]})
    if call.query.get("owner_id", str(call.account.id)) != str(call.account.id):
        add_filter(call, "id", {"eq": 0})


def _offer_into_path(call: Call) -> None:
    offer_id = str(call.body.pop("offer_id", ""))
    if not offer_id.isdigit():
        raise invalid_args("offer_id is required")
    call.path["id"] = offer_id


def _update(call: Call) -> dict[str, Any]:
    """Label and state as the vendor has them, and a key for it (which the vendor has elsewhere)."""
    if "ssh_key" in call.body:
        return keys.attach(call)
    return actions.update(call)


def _stop(call: Call) -> None:
    call.body = {"state": "stopped"}


def _start(call: Call) -> None:
    call.body = {"state": "running"}


def _list_bids(call: Call) -> dict[str, Any]:
    """The vendor has no bids of their own: they are the instances that have one."""
    own = call.engine.ledger.live_of(call.account.id)
    wanted = call.query.get("owner_id", str(call.account.id)) == str(call.account.id)
    rows = [instance_row(call.engine, contract) for contract in own if contract.bid is not None and wanted]
    return {"success": True, "instances": cut(call, rows)}


def _seek_offer(call: Call) -> None:
    """The cheapest interruptible offer of that size; the vendor takes no bid without one."""
    price, gpus, hours = (call.body.get(name) for name in ("price", "num_gpus", "duration"))
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in (price, gpus, hours)):
        raise invalid_args("price, duration and num_gpus are numbers")
    filters = {"num_gpus": {"eq": gpus}, "duration": {"gte": hours}}
    rows = search(call.engine, {"type": "bid", "order": [["dph_total", "asc"]], "limit": 1, **filters})
    if not rows:
        raise VastError(404, "no_such_ask", "error 404/3603: no_such_ask  No such offer is available.")
    call.path["id"] = str(rows[0]["id"])
    call.body = {"image": _BID_IMAGE, "runtype": "ssh_direct", "label": call.body.get("label"), "price": price}


def _create(call: Call) -> web.Response | dict[str, Any]:
    """A key that comes with the order is on the machine from the start."""
    answer = create.create(call)
    if isinstance(answer, dict) and call.body.get("ssh_key"):
        contract = call.engine.ledger.live[answer["new_contract"]]
        for line in str(call.body["ssh_key"]).splitlines():
            call.engine.attach_key(contract, line)
    return answer


ROUTES = (
    GatewayRoute("GET", "/instances", "list", list_instances, _owner_and_state),
    GatewayRoute("POST", "/instances", "create", _create, _offer_into_path, half=create.rent_stopped),
    GatewayRoute("GET", "/instances/instance_id", "get", get_instance),
    GatewayRoute("PUT", "/instances/instance_id", "update", _update),
    GatewayRoute("DELETE", "/instances/instance_id", "destroy", actions.destroy),
    GatewayRoute("POST", "/instances/instance_id/stop", "update", actions.update, _stop),
    GatewayRoute("POST", "/instances/instance_id/start", "update", actions.update, _start),
    GatewayRoute("GET", "/bids", "list", _list_bids),
    GatewayRoute("POST", "/bids", "create", create.create, _seek_offer),
    GatewayRoute("GET", "/bids/bid_id", "get", get_instance),
    GatewayRoute("PUT", "/bids/bid_id", "bid", actions.change_bid),
    GatewayRoute("DELETE", "/bids/bid_id", "destroy", actions.destroy),
)
