"""Renting an offer (Vast.ai contract, section 3)."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web

from providers.sandbox.instances import Contract
from providers.sandbox.market import Ask
from providers.sandbox.orders import Order
from providers.sandbox.replies import json_reply
from providers.sandbox.vast.errors import VastError, offer_gone
from providers.sandbox.vast.gateway import Call, Route
from providers.sandbox.vast.launch import read_order

log = logging.getLogger("sandbox.vast")


def create(call: Call) -> web.Response | dict[str, Any]:
    """Rent one offer: the answer names the contract, or says why not."""
    return _create(call, call.number())


def create_bulk(call: Call) -> dict[str, Any]:
    """The same body for several offers; each answers for itself."""
    results = []
    for ask_id in call.ids("ids"):
        try:
            answer = _create(call, ask_id)
        except VastError as error:
            results.append({**error.body, "ask_id": ask_id})
            continue
        results.append(answer if isinstance(answer, dict) else {"success": False, "ask_id": ask_id})
    return {"success": True, "results": results}


def _create(call: Call, ask_id: int) -> web.Response | dict[str, Any]:
    ask, order = _read(call, ask_id)
    engine = call.engine
    if engine.credit(call.account) <= 0:
        raise VastError(400, "insufficient_credit", "Your account lacks credit; see the billing page.")
    if order.bid is not None and order.bid < ask.least_bid:
        return _low_bid(call, ask, order)
    quirks = engine.faults.take_quirks("create", label=order.label, api_key=call.account.api_key)
    contract = engine.rent(call.account, ask, order, quirks)
    log.info("contract %s made: %s x%s, label %r", contract.id, ask.machine.model.name, ask.num_gpus, order.label)
    return {"success": True, "new_contract": contract.id, "instance_api_key": contract.instance_key}


def _read(call: Call, ask_id: int) -> tuple[Ask, Order]:
    ask = call.engine.market.asks.get(ask_id)
    if ask is None:
        raise offer_gone(ask_id, call.engine.settings.gone_shape)
    room = ask.machine.facts["disk_space"] * ask.num_gpus / ask.machine.gpus
    return ask, read_order(call.body, _template(call), round(room, 1))


def _template(call: Call) -> dict[str, Any] | None:
    wanted = call.body.get("template_hash_id")
    if not wanted:
        return None
    for row in call.engine.ledger.templates(call.account.id):
        if row["hash_id"] == wanted:
            return row
    raise VastError(400, "invalid_args", f"error 400/3467: Invalid args: template {wanted} was not found")


def _low_bid(call: Call, ask: Ask, order: Order) -> web.Response:
    """A bid that does not win leaves a stopped machine whose disk is billed, unless the caller forbids it."""
    if call.body.get("cancel_unavail"):
        raise offer_gone(ask.id, "410")
    order.start = False
    contract = call.engine.rent(call.account, ask, order)
    message = f"Your bid of {order.bid} is below the winning price of {ask.least_bid:.4f}; the instance stays stopped."
    body = {"success": False, "error": "bid_too_low", "msg": message, "new_contract": contract.id}
    return json_reply(body, status=call.engine.settings.low_bid_status)


def rent_stopped(call: Call) -> dict[str, Any]:
    """A contract that exists although its create is refused (for the ``success_false`` fault)."""
    ask, order = _read(call, call.number())
    order.start = False
    contract: Contract = call.engine.rent(call.account, ask, order)
    return {"new_contract": contract.id}


ROUTES = [
    Route("PUT", r"/api/v0/asks/{id:\d+}/", "create", create, half=rent_stopped),
    Route("POST", "/api/v0/asks/bulk/", "create", create_bulk),
]
