"""What every call goes through: who asks, how often, which fault strikes, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from providers.sandbox.engine import Engine
from providers.sandbox.faults import AFTER, BEFORE, Fault
from providers.sandbox.instances import Contract
from providers.sandbox.ledger import TENSORDOCK, Account
from providers.sandbox.limits import Quota, Standing
from providers.sandbox.replies import json_reply
from providers.sandbox.spoil import proxy_error, spoil
from providers.sandbox.ssh import Farm
from providers.sandbox.tensordock.errors import (
    GONE_TEXTS,
    TOO_POOR,
    Refused,
    embedded,
    no_such_instance,
    plain,
    unauthorized,
)
from providers.sandbox.tensordock.stock import Stock

log = logging.getLogger("sandbox.tensordock")
PREFIX = "/tensordock"
V2 = f"{PREFIX}/api/v2"
#: Calls per minute and organisation (TensorDock contract, section 2).
CALLS_PER_MINUTE = 100
#: The vendor's real seconds, by operation; the setting ``latency`` scales them.
LATENCY: Mapping[str, float] = {"search": 4.5, "create": 20.0, "destroy": 15.0, "list": 0.6, "get": 0.4, "update": 1.0}


@dataclass(slots=True)
class World:
    """What the face works with."""

    engine: Engine
    farm: Farm
    stock: Stock
    quota: Quota


@dataclass(slots=True)
class Call:
    """One request, read and authenticated."""

    request: web.Request
    world: World
    operation: str
    body: Any
    caller: Account | None

    @property
    def engine(self) -> Engine:
        return self.world.engine

    @property
    def stock(self) -> Stock:
        return self.world.stock

    @property
    def account(self) -> Account:
        if self.caller is None:
            raise unauthorized()
        return self.caller

    @property
    def attributes(self) -> dict[str, Any]:
        """``data.attributes`` of the body; empty where there is no such thing."""
        data = self.body.get("data") if isinstance(self.body, dict) else None
        found = data.get("attributes") if isinstance(data, dict) else None
        return found if isinstance(found, dict) else {}

    def contract(self) -> Contract:
        """The instance in the path, if it is the caller's."""
        found = self.engine.named(self.request.match_info["id"])
        if found is None or found.account_id != self.account.id:
            raise no_such_instance(self.engine.settings.gone_as_200)
        return found


Handler = Callable[[Call], Any]


@dataclass(frozen=True, slots=True)
class Route:
    """A path below the API's base and what answers it. ``public``: no token needed; ``denied``: status without one."""

    method: str
    path: str
    operation: str
    handler: Handler
    public: bool = False
    denied: int = 401


def mount(app: web.Application, world: World, routes: list[Route]) -> None:
    for route in routes:
        app.router.add_route(route.method, V2 + route.path, _endpoint(world, route))


def _endpoint(world: World, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        try:
            caller = _authenticate(world, request, route)
            standing = world.quota.spend(caller.api_key if caller else str(request.remote), world.engine.settings.pace)
            if standing and standing.held:
                world.engine.too_many[f"tensordock {route.operation}"] += 1
                return too_many(standing.reset, standing)
            call = Call(request, world, route.operation, await _body_of(request), caller)
        except Refused as error:
            return error.answer()
        return await through(call, route.handler, standing)

    return endpoint


def _authenticate(world: World, request: web.Request, route: Route) -> Account | None:
    """The bearer's account. A key in the query is not looked at; an open path does not look at any."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    account = world.engine.ledger.account_by_key(token.strip(), TENSORDOCK) if scheme == "Bearer" else None
    if account is None and not route.public:
        raise unauthorized(route.denied)
    return account


async def _body_of(request: web.Request) -> Any:
    text = await request.text()
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise plain(400, "Invalid JSON in request body") from None


async def through(call: Call, handler: Handler, standing: Standing | None = None) -> web.StreamResponse:
    """Carry out a call, with the faults that are armed for it."""
    engine, facts, operation = call.engine, _facts(call), call.operation
    engine.calls[f"tensordock {operation}"] += 1
    slow = engine.faults.take({"slow"}, operation, **facts)
    if slow and not slow.params.get("after"):
        await asyncio.sleep(float(slow.params.get("seconds", 5.0)))
    engine.tick()
    before = engine.faults.take(BEFORE - {"ssh_attach_fail"}, operation, **facts)
    spoiled = None if before else engine.faults.take(AFTER, operation, **facts)
    answer = _instead(call, before, handler) if before else carry_out(call, handler)
    await call.world.farm.sync()
    if slow and slow.params.get("after"):
        await asyncio.sleep(float(slow.params.get("seconds", 5.0)))
    # The effect comes first: a client that gives up meanwhile has rented, or destroyed.
    await asyncio.sleep(LATENCY.get(operation, 0.0) * engine.settings.latency)
    answer.headers.update(_quota_headers(standing))
    return await spoil(call.request, spoiled, answer) if spoiled else answer


def _facts(call: Call) -> dict[str, Any]:
    """What faults select calls by."""
    facts: dict[str, Any] = {
        "label": call.attributes.get("name"),
        "path": call.request.path.removeprefix(V2),
    }
    if call.caller:
        facts["api_key"] = call.caller.api_key
    if call.request.path.startswith(f"{V2}/instances/"):
        facts["instance_id"] = call.request.match_info["id"]
        contract = call.engine.named(facts["instance_id"])
        facts["label"] = contract.label if contract else None
    return facts


def carry_out(call: Call, handler: Handler) -> web.Response:
    try:
        result = handler(call)
    except Refused as error:
        return error.answer()
    return result if isinstance(result, web.Response) else json_reply(result)


def too_many(wait: float, standing: Standing | None, say: bool = True) -> web.Response:
    answer = plain(429, "Too many requests").answer()
    if say:
        answer.headers["Retry-After"] = str(max(1, math.ceil(wait)))
        answer.headers.update(_quota_headers(standing))
    return answer


def _quota_headers(standing: Standing | None) -> dict[str, str]:
    """On every answer. The vendor does not publish their names; these are the usual ones."""
    if standing is None:
        return {}
    return {
        "X-RateLimit-Limit": str(standing.limit),
        "X-RateLimit-Remaining": str(standing.remaining),
        "X-RateLimit-Reset": str(max(1, math.ceil(standing.reset))),
    }


def _instead(call: Call, fault: Fault, handler: Handler) -> web.Response:
    """The answer of a fault that strikes before the effect."""
    params = fault.params
    status = int(params.get("status", 0))
    if fault.kind == "error_5xx":
        return proxy_error(status or 502)
    if fault.kind == "rate_limited":
        return too_many(float(params.get("threshold", 1.0)), None, bool(params.get("headers", True)))
    if fault.kind == "auth_error":
        return unauthorized(status or 401).answer()
    if fault.kind == "insufficient_credit":
        return embedded(400, TOO_POOR).answer()
    if fault.kind == "offer_gone":
        return _gone(call, str(params.get("shape", "nodes")))
    if params.get("contract"):
        made = carry_out(call, handler)
        if made.status >= 400:
            return made
    return embedded(status or 400, str(params.get("message", "Something went wrong"))).answer()


def _gone(call: Call, shape: str) -> web.Response:
    """Somebody was quicker: what was asked for leaves the market."""
    asked = call.attributes
    resources = asked.get("resources")
    gpus = resources.get("gpus") if isinstance(resources, dict) else None
    named = asked.get("hostnode_id") or asked.get("location_id") or ""
    call.stock.take(f"{named} {' '.join(gpus) if isinstance(gpus, dict) else ''}")
    return embedded(400, GONE_TEXTS.get(shape, GONE_TEXTS["nodes"])).answer()
