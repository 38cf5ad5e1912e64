"""What every call goes through: who asks, how often, which fault strikes, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from providers.sandbox.engine import Engine
from providers.sandbox.faults import AFTER, BEFORE, Fault
from providers.sandbox.instances import Contract
from providers.sandbox.ledger import Account
from providers.sandbox.limits import Held
from providers.sandbox.replies import json_reply
from providers.sandbox.spoil import proxy_error, spoil
from providers.sandbox.ssh import Farm
from providers.sandbox.vast.errors import (
    VastError,
    error_page,
    invalid_request,
    no_such_instance,
    offer_gone,
)
from providers.sandbox.vast.intervals import INTERVALS

log = logging.getLogger("sandbox.vast")
Envelope = Callable[[web.Response], web.Response]
#: What the key of one instance may do, with that instance (Vast.ai contract, section 1.2).
_INSTANCE_KEY_MAY = frozenset({"get", "update", "destroy"})


@dataclass(slots=True)
class Call:
    """One request, read and authenticated. ``query`` and ``path`` (what the route's path named) are a copy: a face
    with other words for the same things fills in its own."""

    request: web.Request
    engine: Engine
    farm: Farm
    operation: str
    body: dict[str, Any]
    caller: Account | None
    #: Set when the caller came with the key of one instance.
    only_instance: int | None = None
    query: dict[str, str] = field(default_factory=dict)
    path: dict[str, str] = field(default_factory=dict)
    #: The form in which the framework's own errors are wanted.
    accept: str = ""
    #: What the vendor makes of an answer before the network gets it.
    envelope: Envelope = field(default=lambda answer: answer)
    #: By which way it came.
    face: str = "vastai"

    @property
    def account(self) -> Account:
        if self.caller is None:
            raise VastError(403, "auth_error", "This action requires login.")
        return self.caller

    def number(self, name: str = "id") -> int:
        return int(self.path[name])

    def ids(self, name: str) -> list[int]:
        """A list of ids in the body."""
        wanted = self.body.get(name)
        if not isinstance(wanted, list) or not all(str(one).isdigit() for one in wanted):
            raise VastError(400, "invalid_args", f"error 400/3467: Invalid args: {name} is not a list of ids")
        return [int(one) for one in wanted]

    def json_query(self, name: str, default: Any) -> Any:
        """A query argument that carries JSON."""
        text = self.query.get(name)
        if not text:
            return default
        try:
            return json.loads(text)
        except ValueError:
            raise invalid_request(f"Error in query parameters: {name} is not valid JSON") from None

    def contract(self, error: VastError | None = None) -> Contract:
        """The instance in the path, if it is the caller's."""
        found = self.engine.find(self.account, self.number())
        if found is None:
            raise error or no_such_instance(self.number())
        return found


Handler = Callable[[Call], Any]


@dataclass(frozen=True, slots=True)
class Route:
    """A path (with and without the last slash) and what answers it. ``public``: no key needed.

    ``half`` does the half of the work that a refusal with a contract leaves behind (a ``success_false`` fault).
    """

    method: str
    path: str
    operation: str
    handler: Handler
    public: bool = False
    half: Callable[[Call], dict[str, Any]] | None = None

    @property
    def about_instance(self) -> bool:
        """Whether the id in the path is an instance's."""
        return "/instances/" in self.path


def mount(app: web.Application, engine: Engine, farm: Farm, routes: list[Route]) -> None:
    for route in routes:
        endpoint = _endpoint(engine, farm, route)
        for path in {route.path.rstrip("/"), route.path.rstrip("/") + "/"}:
            app.router.add_route(route.method, path, endpoint)


def _endpoint(engine: Engine, farm: Farm, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        try:
            body = await body_of(request)
            call = Call(request, engine, farm, route.operation, body, None)
            call.query, call.path = dict(request.query), dict(request.match_info)
            call.accept = request.headers.get("Accept", "")
            call.caller, call.only_instance = _authenticate(call, route)
            return await through(call, route)
        except VastError as error:
            return error.answer()

    return endpoint


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body; none at all is an empty one."""
    text = await request.text()
    if not text.strip():
        return {}
    try:
        body = json.loads(text)
    except ValueError:
        raise invalid_request("Invalid json body") from None
    if not isinstance(body, dict):
        raise invalid_request("Invalid json body")
    return body


def _authenticate(call: Call, route: Route) -> tuple[Account | None, int | None]:
    """The caller's account (sections 1.2 and 1.4): header or query; searching needs none, but a wrong key fails."""
    header = call.request.headers.get("Authorization", "")
    key = header.removeprefix("Bearer ").strip() if header else call.query.get("api_key", "")
    if not key:
        if route.public:
            return None, None
        raise VastError(403, "auth_error", "This action requires login.")
    account = call.engine.ledger.account_by_key(key)
    if account:
        return account, None
    named = call.path.get("id", "")
    instance = call.engine.ledger.live.get(int(named)) if route.operation in _INSTANCE_KEY_MAY and named else None
    if instance and instance.instance_key == key:
        return call.engine.ledger.account(instance.account_id), instance.id
    raise VastError(call.engine.settings.bad_key_status, "auth_error", "Invalid user key")


async def through(call: Call, route: Route) -> web.StreamResponse:
    """Carry out an authenticated call, with the faults that are armed for it."""
    engine, facts = call.engine, _facts(call, route)
    identity = call.caller.api_key if call.caller else str(call.request.remote)
    interval = INTERVALS.get(route.operation, 0.0)
    held = engine.limits.check(route.operation, identity, interval, engine.settings.pace)
    if held:
        engine.too_many[f"{call.face} {route.operation}"] += 1
        return call.envelope(too_many(call, held))
    engine.calls[f"{call.face} {route.operation}"] += 1
    slow = engine.faults.take({"slow"}, route.operation, **facts)
    if slow and not slow.params.get("after"):
        await asyncio.sleep(float(slow.params.get("seconds", 5.0)))
    engine.tick()
    before = engine.faults.take(BEFORE, route.operation, **facts)
    spoiled = None if before else engine.faults.take(AFTER, route.operation, **facts)
    answer = call.envelope(_instead(call, before, route) if before else _carry_out(call, route))
    await call.farm.sync()
    if slow and slow.params.get("after"):
        await asyncio.sleep(float(slow.params.get("seconds", 5.0)))
    return await _spoil(call, spoiled, answer) if spoiled else answer


def _facts(call: Call, route: Route) -> dict[str, Any]:
    """What faults select calls by."""
    facts: dict[str, Any] = {"label": call.body.get("label")}
    if call.caller:
        facts["api_key"] = call.caller.api_key
    if "id" in call.path and route.about_instance:
        facts["instance_id"] = call.number()
        contract = call.engine.ledger.live.get(call.number())
        facts["label"] = contract.label if contract else facts["label"]
    return facts


def _carry_out(call: Call, route: Route) -> web.Response:
    try:
        result = route.handler(call)
    except VastError as error:
        return error.answer()
    return result if isinstance(result, web.Response) else json_reply(result)


def too_many(call: Call, held: Held) -> web.Response:
    """429 in the forms of section 1.5."""
    detail = f"API requests too frequent: endpoint threshold={held.interval}*{held.pace}"
    if call.operation == "destroy":
        body = {"success": False, "error": "rate_limit_exceeded", "msg": detail}
        answer = json_reply(body, status=429)
    else:
        answer = error_page(429, call.accept, call.request.method, detail)
    if call.engine.settings.retry_after:
        answer.headers["Retry-After"] = str(max(1, round(held.wait)))
        answer.headers["X-RateLimit-Limit"] = "1"
        answer.headers["X-RateLimit-Remaining"] = "0"
        answer.headers["X-RateLimit-Reset"] = str(max(1, round(held.wait)))
    return answer


def _instead(call: Call, fault: Fault, route: Route) -> web.Response:
    """The answer of a fault that strikes before the effect."""
    params = fault.params
    status = int(params.get("status", 0))
    if fault.kind == "error_5xx":
        return proxy_error(status or 502)
    if fault.kind == "rate_limited":
        interval = float(params.get("threshold", INTERVALS.get(call.operation, 1.0)))
        return too_many(call, Held(interval, 1.0, interval))
    if fault.kind == "auth_error":
        return VastError(status or 404, "auth_error", "Invalid user key").answer()
    if fault.kind == "insufficient_credit":
        return VastError(400, "insufficient_credit", "Your account lacks credit; see the billing page.").answer()
    if fault.kind == "offer_gone":
        call.engine.market.withdraw(call.number())
        return offer_gone(call.number(), str(params.get("shape", call.engine.settings.gone_shape))).answer()
    if fault.kind == "ssh_attach_fail":
        return VastError(status or 500, "server_error", "Something went wrong on the server").answer()
    body: dict[str, Any] = {"success": False, "msg": params.get("message", "Something went wrong.")}
    if params.get("contract") and route.half:
        try:
            body.update(route.half(call))
        except VastError as error:
            return error.answer()
    return json_reply(body, status=status or 200)


async def _spoil(call: Call, fault: Fault, answer: web.Response) -> web.StreamResponse:
    """What a proxy behind the envelope, or the network before it, makes of a good answer."""
    spoilt = await spoil(call.request, fault, answer)
    behind = fault.kind in ("error_after", "malformed")
    return call.envelope(spoilt) if behind and isinstance(spoilt, web.Response) else spoilt
