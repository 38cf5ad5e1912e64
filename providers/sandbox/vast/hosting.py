"""The host's side: machines that an account puts up for rent (Vast.ai contract, section 5.5).

An account becomes a host through ``POST /_sandbox/machines`` (the vendor's own way is a daemon on the computer): a
machine of the market is made its own. What it then asks for it is what the market sells it for.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from aiohttp import web

from providers.sandbox import catalog
from providers.sandbox.catalog import Machine
from providers.sandbox.engine import Engine
from providers.sandbox.ledger import Account
from providers.sandbox.replies import json_reply
from providers.sandbox.vast.errors import VastError
from providers.sandbox.vast.gateway import Call, Route

_META = "hosting"
#: What a listing may set, all in dollars or whole numbers.
_TERMS = (
    *("price_gpu", "price_disk", "price_inetu", "price_inetd", "price_min_bid"),
    *("min_chunk", "end_date", "credit_discount_max", "duration", "vol_size", "vol_price"),
)


def _read(engine: Engine) -> dict[str, Any]:
    """``{machine id: {"account": id, "terms": {...} or None}}`` of the market as it now is."""
    saved = json.loads(engine.ledger.get_meta(_META) or "{}")
    found: dict[str, Any] = saved.get("machines", {}) if saved.get("epoch") == engine.market.epoch else {}
    return found


def _write(engine: Engine, machines: dict[str, Any]) -> None:
    engine.ledger.set_meta(_META, json.dumps({"epoch": engine.market.epoch, "machines": machines}))


def restore(engine: Engine) -> None:
    """After a start: the prices that hosts asked. After a reset: the machines as they were made."""
    saved = json.loads(engine.ledger.get_meta(_META) or "{}")
    kept = _read(engine)
    made = catalog.machines(engine.options.seed, engine.options.offers) if saved.get("machines") else {}
    for number in saved.get("machines", {}):
        machine = made.get(int(number))
        if machine is None:
            continue
        engine.market.machines[machine.id] = machine
        if number in kept:
            listed = engine.market.machines[machine.id] = _as_listed(machine, kept[number]["terms"])
            own = [ask for ask in engine.market.asks.values() if ask.machine.id == machine.id]
            # Nothing was sold yet, so the same offers go on under the same ids.
            engine.market.asks.update({ask.id: replace(ask, machine=listed) for ask in own})
        else:
            engine.market.deal(machine.id)
    _write(engine, kept)


def _as_listed(machine: Machine, terms: dict[str, Any] | None) -> Machine:
    """The machine at its host's price; one that is not listed sells nothing."""
    if terms is None:
        return replace(machine, slices=())
    smallest = int(terms.get("min_chunk") or 1)
    return replace(
        machine,
        gpu_price=float(terms["price_gpu"]),
        bid_price=float(terms.get("price_min_bid") or machine.bid_price),
        storage_price=float(terms.get("price_disk") or machine.storage_price),
        slices=tuple(size for size in machine.slices if size >= smallest),
    )


def _put_up(engine: Engine, machine_id: int, account: Account, terms: dict[str, Any] | None) -> None:
    """Sell the machine on these terms from now on; ``None`` takes it off the market. Rented GPUs stay rented."""
    made = catalog.machines(engine.options.seed, engine.options.offers)[machine_id]
    _write(engine, {**_read(engine), str(machine_id): {"account": account.id, "terms": terms}})
    engine.market.machines[machine_id] = _as_listed(made, terms)
    engine.market.deal(machine_id)


def _own(call: Call) -> dict[int, dict[str, Any] | None]:
    """The caller's machines and their terms."""
    rows = _read(call.engine).items()
    return {int(number): row["terms"] for number, row in rows if row["account"] == call.account.id}


def _terms_of(call: Call, wanted: Any) -> tuple[int, dict[str, Any] | None]:
    """The caller's machine of this number, given as a number or as digits, and the terms it is listed on."""
    own = _own(call)
    machine_id = int(str(wanted)) if str(wanted).isdigit() else 0
    if machine_id not in own:
        raise VastError(403, "not_authorized", f"Machine {wanted} is not yours.")
    return machine_id, own[machine_id]


def _row(engine: Engine, machine_id: int, terms: dict[str, Any] | None) -> dict[str, Any]:
    machine, listed = engine.market.machines[machine_id], terms or {}
    taken = machine.gpus - engine.market.free_gpus(machine_id)
    return {
        "id": machine.id,
        "machine_id": machine.id,
        "hostname": f"host-{machine.host_id}",
        "num_gpus": machine.gpus,
        "gpu_name": machine.model.name,
        "disk_space": machine.facts["disk_space"],
        "driver_version": machine.facts["driver_version"],
        "reliability2": machine.facts["reliability"],
        "verification": machine.verification,
        "public_ipaddr": machine.facts["address"],
        "geolocation": machine.place,
        "num_reports": 0,
        "listed": terms is not None,
        "listed_gpu_cost": listed.get("price_gpu"),
        "min_bid_price": listed.get("price_min_bid"),
        "listed_inet_up_cost": listed.get("price_inetu"),
        "listed_inet_down_cost": listed.get("price_inetd"),
        "credit_discount_max": listed.get("credit_discount_max"),
        "gpu_occupancy": "D " * taken + "x " * (machine.gpus - taken),
    }


def list_machines(call: Call) -> dict[str, Any]:
    """Only those of the caller; most accounts are no host."""
    return {"machines": [_row(call.engine, number, terms) for number, terms in _own(call).items()]}


def get_machine(call: Call) -> web.Response:
    """A list of one."""
    own = _own(call)
    if call.number() not in own:
        raise VastError(404, "not_found", f"Machine {call.number()} not found.")
    return json_reply([_row(call.engine, call.number(), own[call.number()])])


def list_for_rent(call: Call) -> dict[str, Any]:
    """Terms that are not named stay as they were."""
    machine_id, before = _terms_of(call, call.body.get("machine"))
    given = {name: call.body[name] for name in _TERMS if call.body.get(name) is not None}
    terms = {**(before or {}), **given}
    if any(isinstance(value, bool) or not isinstance(value, int | float) or value < 0 for value in terms.values()):
        raise VastError(400, "invalid_args", "error 400/3467: Invalid args: every price is a number")
    if not terms.get("price_gpu"):
        raise VastError(400, "invalid_args", "error 400/3467: Invalid args: price_gpu is required")
    _put_up(call.engine, machine_id, call.account, terms)
    return {"success": True, "extended": 0 if before is None else 1}


def change_min_bid(call: Call) -> dict[str, Any]:
    machine_id, before = _terms_of(call, call.number())
    price = call.body.get("price")
    if before is None or isinstance(price, bool) or not isinstance(price, int | float) or price <= 0:
        raise VastError(422, "invalid_args", "A listed machine and a price are needed.")
    _put_up(call.engine, machine_id, call.account, {**before, "price_min_bid": price})
    return {"success": True, "you_sent": {"price": price}}


def unlist(call: Call) -> dict[str, Any]:
    machine_id, _ = _terms_of(call, call.number())
    _put_up(call.engine, machine_id, call.account, None)
    return {"success": True}


def add_admin_route(app: web.Application, engine: Engine) -> None:
    """``POST /_sandbox/machines``: the account (``api_key``, else the first) becomes the host of one more machine."""

    async def adopt(request: web.Request) -> web.Response:
        key = json.loads(await request.text() or "{}").get("api_key")
        account = engine.ledger.account_by_key(key) if key else engine.ledger.accounts()[0]
        taken = _read(engine)
        # From the end of the market, where no test or demonstration looks for its offers.
        free = [number for number in sorted(engine.market.machines, reverse=True) if str(number) not in taken]
        if account is None or not free:
            return json_reply({"error": "no such account, or no machine left"}, status=400)
        _put_up(engine, free[0], account, None)
        return json_reply({"id": free[0]})

    app.router.add_post("/_sandbox/machines", adopt)


ROUTES = [
    Route("GET", "/api/v0/machines/", "machines", list_machines),
    Route("GET", r"/api/v0/machines/{id:\d+}/", "machines", get_machine),
    Route("PUT", "/api/v0/machines/create_asks/", "machine_list", list_for_rent),
    Route("PUT", r"/api/v0/machines/{id:\d+}/minbid/", "machine_minbid", change_min_bid),
    Route("DELETE", r"/api/v0/machines/{id:\d+}/asks/", "machine_unlist", unlist),
]
