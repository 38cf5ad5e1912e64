"""The old API, as far as clients of the new one still use it (TensorDock contract, section 11).

Forms instead of JSON, the token in the form, ``success`` in every answer. Machines are not deployed or changed here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import gmtime, strftime
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from providers.sandbox.instances import Contract
from providers.sandbox.ledger import TENSORDOCK
from providers.sandbox.tensordock import instances
from providers.sandbox.tensordock.errors import Refused, plain
from providers.sandbox.tensordock.gateway import PREFIX, Call, World, through
from providers.sandbox.tensordock.status import word_of
from providers.sandbox.tensordock.stock import Hostnode

V0 = f"{PREFIX}/api/v0"
_CASES = {"stoppeddisassociated": "StoppedDisassociated"}


def _no(text: str, status: int = 400) -> Refused:
    return Refused(status, {"success": False, "error": text})


def auth_test(_: Call) -> dict[str, Any]:
    return {"success": True}


def balance(call: Call) -> dict[str, Any]:
    engine = call.engine
    live = engine.ledger.live_of(call.account.id)
    hourly = sum(span.rate for contract in live for span in contract.spans if span.end is None)
    return {"success": True, "balance": round(engine.credit(call.account), 6), "hourly_cost": round(hourly, 6)}


def hostnodes(call: Call) -> dict[str, Any]:
    free = [node for node in call.stock.nodes if call.stock.free(node).gpus]
    rows = [] if call.engine.settings.hostnodes_empty else free
    return {"success": True, "hostnodes": {node.id: _node(call, node) for node in rows}}


def hostnode(call: Call) -> dict[str, Any]:
    node = call.stock.node(call.request.match_info["id"])
    if node is None:
        raise _no("Hostnode not found", 404)
    return {"success": True, "hostnode": _node(call, node)}


def _node(call: Call, node: Hostnode) -> dict[str, Any]:
    free, place = call.stock.free(node), node.place
    gpu = {"amount": free.gpus, "price": node.row.price, "vram": int(node.row.v0.rsplit("-", 1)[-1][:-2])}
    return {
        "location": {
            "id": place.id,
            "city": place.city,
            "region": place.state,
            "country": place.country,
            "dc": {"tier": place.tier} if place.tier >= 3 else None,
        },
        "networking": {"ports": call.stock.open_ports(node), "receive": 1000, "send": 1000},
        "specs": {
            "cpu": {"amount": free.vcpus, "price": place.per_vcpu, "type": "AMD EPYC"},
            "gpu": {node.row.v0: {**gpu, "pcie": "pcie" in node.row.v0, "gtx": False, "rtx": "rtx" in node.row.v0}},
            "ram": {"amount": int(free.ram_gb), "price": place.per_ram_gb},
            "storage": {"amount": int(free.storage_gb), "price": place.per_storage_gb},
        },
        "status": {"online": True, "listed": True, "reserved": False, "uptime": 0.997},
    }


def list_machines(call: Call) -> dict[str, Any]:
    live = call.engine.ledger.live_of(call.account.id)
    return {"success": True, "virtualmachines": {contract.uid: _machine(call, contract) for contract in live}}


def get_machine(call: Call) -> dict[str, Any]:
    return {"success": True, "virtualmachines": _machine(call, _contract(call))}


def _machine(call: Call, contract: Contract) -> dict[str, Any]:
    """Prices are texts here."""
    word, details = word_of(call.engine, contract), contract.details
    return {
        "name": contract.label or "",
        "status": _CASES.get(word, word.capitalize()),
        "ip_address": contract.address or call.engine.options.address,
        "default_user": contract.user,
        "hostname": details["hostnode_id"],
        "operating_system": contract.image,
        "port_forwards": {}
        if contract.address
        else {str(out): int(i.split("/")[0]) for i, out in contract.ports.items()},
        "specs": {
            "gpu": {"type": details["v0Name"], "amount": contract.num_gpus},
            "vcpus": details["vcpus"],
            "ram": details["ram_gb"],
            "storage": int(contract.disk),
        },
        "cost": {
            "compute_price": f"{contract.gpu_rate:.6f}",
            "storage_price": f"{contract.disk_rate:.6f}",
            "total_price": f"{contract.gpu_rate + contract.disk_rate:.6f}",
        },
        "timestamp_creation": strftime("%a, %d %b %Y %H:%M:%S GMT", gmtime(contract.created_at)),
    }


def _contract(call: Call) -> Contract:
    found = call.engine.named(str(call.body.get("server", "")))
    if found is None or found.account_id != call.account.id:
        raise _no("Server not found", 404)
    return found


def _as_new(handler: Callable[[Call, Contract], dict[str, Any]]) -> Callable[[Call], dict[str, Any]]:
    """What the new API does, with the old one's answers: refusals come with HTTP 200."""

    def old(call: Call) -> dict[str, Any]:
        contract = _contract(call)
        try:
            handler(call, contract)
        except Refused as error:
            raise _no(str(error.body["error"]), 200) from None
        return {"success": True}

    return old


def stop_machine(call: Call) -> dict[str, Any]:
    contract = _contract(call)
    if word_of(call.engine, contract) != "running":
        raise _no("Server is not running", 200)
    if str(call.body.get("disassociate_resources", "")).lower() in ("true", "1"):
        call.engine.stop(contract)
    else:
        instances.stop_contract(call, contract)
    return {"success": True}


#: method, path, operation, handler, public
_ROUTES: tuple[tuple[str, str, str, Callable[[Call], dict[str, Any]], bool], ...] = (
    ("POST", "/auth/test", "user", auth_test, False),
    ("POST", "/billing/balance", "user", balance, False),
    ("GET", "/client/deploy/hostnodes", "search", hostnodes, True),
    ("GET", "/client/deploy/hostnodes/{id}", "search", hostnode, True),
    ("POST", "/client/list", "list", list_machines, False),
    ("POST", "/client/get/single", "get", get_machine, False),
    ("POST", "/client/start/single", "update", _as_new(instances.start_contract), False),
    ("POST", "/client/stop/single", "update", stop_machine, False),
    ("POST", "/client/delete/single", "destroy", _as_new(instances.delete_contract), False),
)


def mount(app: web.Application, world: World) -> None:
    for method, path, operation, handler, public in _ROUTES:
        app.router.add_route(method, V0 + path, _endpoint(world, operation, handler, public))


def _endpoint(
    world: World, operation: str, handler: Callable[[Call], dict[str, Any]], public: bool
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        if world.engine.settings.v0_gone:
            return plain(404, "Not found").answer()
        form = dict(parse_qsl(await request.text(), keep_blank_values=True))
        caller = world.engine.ledger.account_by_key(form.get("api_token", ""), TENSORDOCK)
        if not public and (caller is None or not form.get("api_key")):
            return _no("Invalid API key or token", 401).answer()
        return await through(Call(request, world, operation, form, caller), handler)

    return endpoint
