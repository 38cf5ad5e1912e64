"""``/_sandbox/``: the side of the sandbox that no vendor has. JSON, guarded by nothing but the loopback address."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from aiohttp import web

from providers.sandbox import billing, rivals
from providers.sandbox.engine import Engine
from providers.sandbox.faults import QUIRKS
from providers.sandbox.instances import Contract
from providers.sandbox.ledger import Account
from providers.sandbox.orders import Order
from providers.sandbox.replies import json_reply
from providers.sandbox.ssh import Farm


class BadAdminRequest(Exception):
    """Something about the request is wrong; the text says what."""


class OtherMarket(Protocol):
    """The market of a vendor that has its own: how things happen there without any client of ours."""

    def take(self, offer: str) -> bool:
        """Somebody else rents what this vendor's id means; False: nothing of it was free."""

    def make(self, account: Account, body: dict[str, Any]) -> Contract: ...


class Admin:
    """The handlers. Each returns what is sent as JSON."""

    def __init__(
        self, engine: Engine, farm: Farm, after_reset: Callable[[], None], markets: Mapping[str, OtherMarket]
    ) -> None:
        self._engine = engine
        self._farm = farm
        self._after_reset = after_reset
        self._markets = markets

    def add_routes(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", "health", self.health),
            ("GET", "ledger", self.ledger),
            ("GET", "faults", self.list_faults),
            ("POST", "faults", self.arm),
            ("DELETE", "faults", self.clear_faults),
            ("GET", "settings", self.get_settings),
            ("POST", "settings", self.change_settings),
            ("POST", "reset", self.reset),
            ("POST", "credit", self.credit),
            ("POST", "time", self.time),
            ("POST", "offers/{id}/take", self.take_offer),
            ("POST", "instances", self.make_instance),
            ("POST", "instances/{id}/kill", self.kill),
            ("POST", "instances/{id}/interrupt", self.interrupt),
            ("POST", "instances/{id}/outbid", self.outbid),
            ("POST", "instances/{id}/win", self.win),
            ("POST", "instances/{id}/wipe-keys", self.wipe_keys),
            ("POST", "instances/{id}/move", self.move),
            ("POST", "instances/{id}/load", self.load),
            ("POST", "instances/{id}/traffic", self.traffic),
        ):
            app.router.add_route(method, f"/_sandbox/{path}", _json_endpoint(handler))

    # -- looking -------------------------------------------------------------------------------------

    async def health(self, _: web.Request, __: dict[str, Any]) -> dict[str, Any]:
        engine = self._engine
        engine.tick()
        return {
            "status": "ok",
            "now": engine.clock.now(),
            "speed": engine.clock.speed,
            "offers": len(engine.market.asks),
            "instances": len(engine.ledger.live),
            "ssh": self._farm.listening(),
            "too_many": dict(engine.too_many),
            "calls": dict(engine.calls),
            "accounts": [
                {"id": a.id, "api_key": a.api_key, "vendor": a.vendor, "credit": engine.credit(a)}
                for a in engine.ledger.accounts()
            ],
        }

    async def ledger(self, _: web.Request, __: dict[str, Any]) -> dict[str, Any]:
        """Every contract ever made: the truth that a broker's books are held against."""
        self._engine.tick()
        owners = {account.id: account for account in self._engine.ledger.accounts()}
        contracts = [self._view(contract, owners) for contract in self._engine.ledger.all_contracts()]
        return {"now": self._engine.clock.now(), "contracts": contracts}

    def _view(self, contract: Contract, owners: dict[int, Account]) -> dict[str, Any]:
        now = self._engine.clock.now()
        dead = contract.destroyed_at is not None
        gpu, disk, traffic = (contract.dollars(kind, now) for kind in ("gpu", "disk", "bwd"))
        return {
            "id": contract.name,
            "label": contract.label,
            "ask_id": contract.ask_id,
            "machine_id": contract.machine_id,
            "vendor": owners[contract.account_id].vendor,
            "api_key": owners[contract.account_id].api_key,
            "created_at": contract.created_at,
            "destroyed_at": contract.destroyed_at,
            "alive": not dead,
            "state": "destroyed" if dead else self._engine.phase(contract).status,
            "intended": contract.intended,
            "gpu_dollars": gpu,
            "disk_dollars": disk,
            "traffic_dollars": traffic,
            "total_dollars": gpu + disk + traffic,
            "gpu_rate": contract.gpu_rate,
            "disk_rate": contract.disk_rate,
            "gpu_name": contract.offer["model"]["name"],
            "num_gpus": contract.num_gpus,
            "image": contract.image,
            "is_bid": contract.bid is not None,
            "bid": contract.bid,
            "rival_bid": contract.rival_bid,
            "runtype": contract.runtype,
            "args": contract.args,
            "onstart": contract.onstart,
            "env": dict(contract.env),
            "disk": contract.disk,
            "template_hash_id": contract.template.get("hash_id"),
            "ports": contract.ports,
            "quirks": contract.quirks,
            "ssh_ports": list(contract.ssh_ports),
            "user": contract.user,
            "keys": [] if dead else self._engine.authorized_keys(contract.id),
            "more_keys": contract.more_keys,
            "address": contract.address,
            "details": contract.details,
        }

    # -- faults and settings ---------------------------------------------------------------------------

    async def list_faults(self, _: web.Request, __: dict[str, Any]) -> dict[str, Any]:
        book = self._engine.faults
        return {"armed": [fault.view() for fault in book.armed], "spent": [fault.view() for fault in book.spent]}

    async def arm(self, _: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("kind") in QUIRKS and body.get("instance_id") is not None:
            return await self._turn_bad(body)
        return {"armed": self._engine.faults.arm(body).view()}

    async def _turn_bad(self, body: dict[str, Any]) -> dict[str, Any]:
        """A fault of machines on one that exists: it boots anew with it, or just has it from now on."""
        contract = self._contract(str(body["instance_id"]))
        params = {
            name: value for name, value in body.items() if name not in ("kind", "operation", "times", "instance_id")
        }
        contract.quirks[str(body["kind"])] = params
        now = self._engine.clock.now()
        if str(body["kind"]).startswith("boot_"):
            billing.close_spans(contract, ("gpu",), now)
            contract.boot_at = now
        elif body["kind"] == "listing_lag":
            contract.visible_at = now + float(params.get("seconds", 5.0))
        self._engine.ledger.save(contract)
        await self._farm.sync()
        return {"instance_id": contract.name, "quirks": contract.quirks}

    async def clear_faults(self, _: web.Request, __: dict[str, Any]) -> dict[str, Any]:
        self._engine.faults.clear()
        return {"armed": []}

    async def get_settings(self, _: web.Request, __: dict[str, Any]) -> dict[str, Any]:
        return asdict(self._engine.settings)

    async def change_settings(self, _: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._engine.settings.update(body)
        return asdict(self._engine.settings)

    # -- the world ---------------------------------------------------------------------------------------

    async def reset(self, _: web.Request, __: dict[str, Any]) -> dict[str, Any]:
        self._farm.close()
        self._engine.reset()
        self._after_reset()
        return {"status": "ok"}

    async def credit(self, _: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """``credit``: set to; ``add``: put in (negative takes out)."""
        account = self._account(body.get("api_key"))
        have = self._engine.credit(account)
        add = float(body["credit"]) - have if "credit" in body else float(body.get("add", 0.0))
        self._engine.ledger.top_up(account, add, self._engine.clock.now())
        self._engine.tick()
        await self._farm.sync()
        return {"api_key": account.api_key, "credit": self._engine.credit(account)}

    async def time(self, _: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        self._engine.advance(float(body.get("advance_seconds", 0)))
        await self._farm.sync()
        return {"now": self._engine.clock.now()}

    async def take_offer(self, request: web.Request, _: dict[str, Any]) -> dict[str, Any]:
        """Somebody else rents it."""
        offer = request.match_info["id"]
        if offer.isdigit():
            return {"taken": self._engine.market.withdraw(int(offer))}
        return {"taken": any(market.take(offer) for market in self._markets.values())}

    # -- single machines -----------------------------------------------------------------------------------

    async def make_instance(self, _: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """A machine that no broker made: ``label``, ``api_key``, ``ask_id``, ``image``, ``disk``, ``runtype``,
        ``direct``. ``labels``: many at once, on Vast.ai's face."""
        account = self._account(body.get("api_key"))
        if "labels" in body:
            if account.vendor in self._markets or not isinstance(body["labels"], list):
                raise BadAdminRequest("labels is a list of texts, for an account on Vast.ai's face")
            made = [self._rent(account, body | {"label": str(label)}) for label in body["labels"]]
            await self._farm.sync()
            host = self._engine.options.address
            return {
                "instances": [
                    {"id": contract.name, "label": contract.label, "ssh_host": host, "ssh_port": contract.proxy_port}
                    for contract in made
                ]
            }
        if account.vendor in self._markets:
            contract = self._markets[account.vendor].make(account, body)
        else:
            contract = self._rent(account, body)
        await self._farm.sync()
        return {"id": contract.name, "label": contract.label}

    def _rent(self, account: Account, body: dict[str, Any]) -> Contract:
        asks = self._engine.market.asks
        visible = (a for a in asks.values() if a.machine.visible and a.machine.facts["direct_port_count"])
        ask = asks.get(int(body["ask_id"])) if "ask_id" in body else min(visible, key=lambda a: (a.num_gpus, a.id))
        if ask is None:
            raise BadAdminRequest(f"no such offer: {body['ask_id']}")
        order = Order(
            image=str(body.get("image", "ubuntu:22.04")),
            runtype=str(body.get("runtype", "ssh ssh_direc ssh_proxy")),
            disk=float(body.get("disk", 10.0)),
            label=body.get("label"),
            ports=["22/tcp"] if body.get("direct", True) else [],
        )
        return self._engine.rent(account, ask, order)

    async def kill(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """``status``: offline (default), exited, unknown, ...; ``message``."""
        contract = self._contract(request.match_info["id"])
        self._engine.halt(contract, str(body.get("status", "offline")), body.get("message"))
        await self._farm.sync()
        return {"id": contract.name, "status": contract.halted}

    async def outbid(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """Somebody bids ``price`` dollars per hour (default: a quarter more than its bid) and has its GPUs.
        ``intended``: running, or stopped (default), and then it must be started to come back."""
        contract, intended = self._contract(request.match_info["id"]), str(body.get("intended", "stopped"))
        price = None if body.get("price") is None else float(body["price"])
        if contract.bid is None:
            raise BadAdminRequest(f"{contract.name} is not interruptible")
        if intended not in ("stopped", "running") or (price is not None and price <= contract.bid):
            raise BadAdminRequest("intended is stopped or running, and price more than the machine's bid")
        rivals.outbid(self._engine, contract, price, intended)
        await self._farm.sync()
        return {"id": contract.name, "status": "stopped", "winning_bid": self._engine.winning_bid(contract)}

    async def win(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """Whoever bid more is gone. ``move``: the machine has other ports from now on."""
        contract = self._contract(request.match_info["id"])
        if contract.current == "running":
            raise BadAdminRequest(f"{contract.name} runs")
        rivals.win(self._engine, contract, move=bool(body.get("move")))
        await self._farm.sync()
        return {"id": contract.name, "status": self._engine.phase(contract).status}

    async def interrupt(self, request: web.Request, _: dict[str, Any]) -> dict[str, Any]:
        """Stopped by its host."""
        contract = self._contract(request.match_info["id"])
        self._engine.stop(contract)
        await self._farm.sync()
        return {"id": contract.name, "status": "stopped"}

    async def wipe_keys(self, request: web.Request, _: dict[str, Any]) -> dict[str, Any]:
        contract = self._contract(request.match_info["id"])
        return {"id": contract.name, "wiped": self._engine.wipe_keys(contract)}

    async def move(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """It gets other outside ports. ``address``: there, too (127.0.0.0/8); ``port``: this one; ``new_key``: and
        another host key."""
        contract = self._contract(request.match_info["id"])
        self._farm.close_one(contract.id)
        port, address = int(body.get("port", 0)), str(body.get("address", ""))
        self._engine.move(contract, port=port, address=address, new_key=bool(body.get("new_key")))
        await self._farm.sync()
        return {"id": contract.name, "address": contract.address, "ssh_ports": list(contract.ssh_ports)}

    async def load(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """What nvidia-smi shows: ``utilization`` in per cent, ``memory_used`` in MiB."""
        contract = self._contract(request.match_info["id"])
        contract.load.update({name: float(body[name]) for name in ("utilization", "memory_used") if name in body})
        self._engine.ledger.save(contract)
        return {"id": contract.name, **contract.load}

    async def traffic(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """It has received something that costs ``dollars``."""
        contract = self._contract(request.match_info["id"])
        billing.use_traffic(contract, float(body["dollars"]), self._engine.clock.now())
        self._engine.ledger.save(contract)
        return {"id": contract.name, "traffic_dollars": contract.dollars("bwd", self._engine.clock.now())}

    # -- helpers ---------------------------------------------------------------------------------------------

    def _contract(self, name: str) -> Contract:
        contract = self._engine.named(name)
        if contract is None:
            raise BadAdminRequest(f"no such instance: {name}")
        return contract

    def _account(self, api_key: str | None) -> Account:
        """Of any vendor; a key opens one account only."""
        key = api_key or self._engine.options.api_keys[0]
        account = next((one for one in self._engine.ledger.accounts() if one.api_key == key), None)
        if account is None:
            raise BadAdminRequest("no such api_key")
        return account


Handler = Callable[[web.Request, dict[str, Any]], Awaitable[dict[str, Any]]]


def _json_endpoint(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def endpoint(request: web.Request) -> web.Response:
        try:
            text = await request.text()
            body = json.loads(text) if text.strip() else {}
            if not isinstance(body, dict):
                raise BadAdminRequest("the body must be a JSON object")
            return json_reply(await handler(request, body))
        except (BadAdminRequest, ValueError, TypeError) as error:
            return json_reply({"error": str(error)}, status=400)

    return endpoint
