"""The gateway itself: tokens, literal paths, envelopes (Vast.ai contract, section 7.1).

A token is ``at_`` and the key of the account that its owner has linked; ``at_unlinked`` has linked none. Everything
behind the gateway is the Vast.ai face: its rate limits, its faults and its ledger are the same.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from providers.sandbox.engine import Engine
from providers.sandbox.ledger import Account
from providers.sandbox.lowcodeapi import instances, market, own
from providers.sandbox.lowcodeapi.routes import GatewayRoute
from providers.sandbox.replies import json_reply
from providers.sandbox.ssh import Farm
from providers.sandbox.vast.errors import VastError, error_page
from providers.sandbox.vast.gateway import Call, body_of, through

#: Below it lie the paths of the seed, as they lie below https://api.lowcodeapi.com/vastai.
PREFIX = "/lowcodeapi/vastai"
ROUTES: tuple[GatewayRoute, ...] = (*instances.ROUTES, *market.ROUTES, *own.ROUTES)
NAME = "lowcodeapi"
TOKEN = "at_"  # noqa: S105 - how every token begins
UNLINKED = "at_unlinked"
#: What the gateway's HTTP library asks the vendor for, whatever was asked of the gateway.
_ACCEPT = "application/json, text/plain, */*"


class Refused(Exception):
    """The gateway's own no, before the vendor hears of the call."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def add_routes(app: web.Application, engine: Engine, farm: Farm) -> None:
    for route in ROUTES:
        app.router.add_route(route.method, PREFIX + route.pattern, _endpoint(engine, farm, route))
    app.router.add_route("*", PREFIX + "/{rest:.*}", _unknown)


async def _unknown(_: web.Request) -> web.Response:
    return json_reply({"message": "The requested API is not found."}, status=404)


def _endpoint(
    engine: Engine, farm: Farm, route: GatewayRoute
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        try:
            account = _account(engine, request)
        except Refused as refused:
            return _refusal(request, refused)
        call = Call(request, engine, farm, route.operation, {}, account, envelope=envelope, accept=_ACCEPT, face=NAME)
        try:
            call.body = await body_of(request)
            call.query = {name: text for name, text in request.query.items() if name != "api_token"}
            call.path = _named(request, route)
            route.translate(call)
            return await through(call, route.upstream)
        except VastError as error:
            return envelope(error.answer())

    return endpoint


def _account(engine: Engine, request: web.Request) -> Account:
    """Whose credentials the gateway adds for this token."""
    token = request.query.get("api_token", "")
    if not token.startswith(TOKEN):
        raise Refused(401, "A valid API token is required to access this API.")
    if token == UNLINKED:
        words = "No access token is associated with this api_token, authorize your vastai with LowCodeAPI."
        raise Refused(403, words)
    account = engine.ledger.account_by_key(token.removeprefix(TOKEN))
    if account is None:
        raise Refused(403, "Invalid api_token")
    return account


def _refusal(request: web.Request, refused: Refused) -> web.Response:
    """With the gateway's whole error object, which repeats the request and with it the token."""
    logging = {"method": request.method, "path": request.path, "query": dict(request.query)}
    error = {"code": refused.status, "logging": logging}
    return json_reply({"message": refused.message, "provider": "vastai", "error": error}, status=refused.status)


def _named(request: web.Request, route: GatewayRoute) -> dict[str, str]:
    """The id, from the query where the path has the literal word, else from the path (the newer form)."""
    if not route.id_name:
        return {}
    in_path = request.match_info[route.id_name]
    value = request.query.get(route.id_name, "") if in_path == route.id_name else in_path
    if not value.isdigit():
        # The vendor has no such path.
        page = error_page(404, _ACCEPT, request.method, request.path)
        raise _Page(page)
    return {"id": value}


class _Page(VastError):
    """An answer that the vendor's framework gives, not its application."""

    def __init__(self, page: web.Response) -> None:
        super().__init__(page.status, None, "")
        self._page = page

    def answer(self) -> web.Response:
        return self._page


def envelope(answer: web.Response) -> web.Response:
    """The vendor's answer as the gateway hands it on: always 200 when it went well, else with the vendor's status."""
    body, headers = _content(answer), dict(answer.headers)
    if answer.status < 300:
        return json_reply(
            {"message": "Request completed", "provider": "vastai", "result": body, "response_headers": headers}
        )
    message = f"Request failed with status code {answer.status}"
    return json_reply(
        {"message": message, "provider": "vastai", "error": body, "headers": headers}, status=answer.status
    )


def _content(answer: web.Response) -> Any:
    text = answer.text or ""
    try:
        return json.loads(text)
    except ValueError:
        return text
