"""Vast.ai through the LowCodeAPI gateway (Vast.ai contract, section 7).

The gateway takes its token in the query and nowhere else, so this is the one credential that stands in a URL. It goes
no further: the HTTP wrapper shows no URL, takes the token for a secret in every text, and the gateway's own refusals,
which repeat the whole request, are read for their ``message`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from providers import answers
from providers.answers import Answer
from providers.errors import NotSupported, RateLimited
from providers.gates import Clock
from providers.http import HTTPClient
from providers.vastai.lowcodeapi_routes import Sent, route_of
from providers.vastai.reply import Reply
from providers.vastai.transport import as_parameter

T = TypeVar("T")

#: The keys under which the vendor says no; an error object with none of them is the gateway's own.
_VENDORS_WORDS = ("msg", "message", "detail", "success")


class LowCodeAPITransport:
    """The gateway at ``http.base_url``, with ``token`` (``at_...``). ``http`` carries no bearer, and counts the token
    among its secrets. ``ValueError``, which does not show it, for a token that can never work."""

    def __init__(self, http: HTTPClient, token: str) -> None:
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise ValueError("the LowCodeAPI token is empty, or holds blanks or characters that are no ASCII")
        self._http = http
        self._token = token

    def __repr__(self) -> str:
        return f"LowCodeAPITransport({self._http!r})"

    @property
    def provider(self) -> str:
        return self._http.provider

    @property
    def clock(self) -> Clock:
        return self._http.clock

    @property
    def base_url(self) -> str:
        return self._http.base_url

    @property
    def keys_at_create(self) -> bool:
        return True

    def supports(self, operation: str) -> bool:
        return route_of(operation, {"state": "running"}) is not None

    def safe_text(self, text: object) -> str:
        return self._http.safe_text(text)

    def send(
        self,
        operation: str,
        read: Callable[[Reply], T],
        *ids: str,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        wait: float = 0.0,
    ) -> T:
        """Call ``operation``; ``read`` gets the vendor's answer out of the gateway's envelope."""
        route = route_of(operation, json)
        if route is None:
            missing = f"the LowCodeAPI gateway has no operation '{operation}' (VASTAI_TRANSPORT=native has)"
            raise NotSupported(missing, provider=self.provider, operation=operation)
        sent = route.shape(Sent(ids, params or {}, json))
        query = {**dict(zip(route.parameters, sent.ids, strict=True)), **sent.params, "api_token": self._token}

        def read_answer(answer: Answer) -> T:
            return read(self._opened(answer, operation))

        return self._http.request(
            operation,
            route.method,
            route.path,
            read=read_answer,
            params={name: as_parameter(value) for name, value in query.items()},
            json=sent.json,
            gate_key=route.gate or operation,
            interval=route.interval,
            changes=route.changes,
            wait=wait,
        )

    def _opened(self, answer: Answer, operation: str) -> Reply:
        """The vendor's answer; the gateway's own where it never got that far. Raises for what is no envelope."""
        body = answer.json
        if answer.ok:
            closed = self._reply(answer, operation)
            if not isinstance(body, dict) or "result" not in body:
                raise closed.malformed("no 'result' in the gateway's envelope")
            opened = _within(answer, body["result"])
        elif isinstance(body, dict) and _is_vendors(body.get("error")):
            opened = _within(answer, body["error"])
        else:
            # Only the words: the rest of the gateway's own error holds the request with its token.
            words = body.get("message") if isinstance(body, dict) else None
            opened = _within(answer, {"message": words}) if isinstance(words, str) else answer
            if answer.status == 404 and isinstance(body, dict) and "error" not in body:
                raise self._reply(opened, operation).error(NotSupported, f"the gateway does not know '{operation}'")
        reply = self._reply(opened, operation)
        if answers.is_rate_limit(opened):
            # Deep in a good answer, where the HTTP wrapper does not look.
            limited = reply.error(RateLimited)
            limited.retry_after = answers.pause_after_rate_limit(opened, 0.0, self.clock.now())
            raise limited
        return reply

    def _reply(self, answer: Answer, operation: str) -> Reply:
        return Reply(answer, operation, self.provider, self.safe_text)


def _is_vendors(error: object) -> bool:
    """Whether the ``error`` of an envelope is the vendor's body: text, or an object with one of its words in it."""
    if isinstance(error, str):
        return bool(error.strip())
    return isinstance(error, dict) and ("logging" not in error) and any(word in error for word in _VENDORS_WORDS)


def _within(answer: Answer, body: Any) -> Answer:
    """The answer as if ``body`` had come without an envelope."""
    if isinstance(body, str):
        return Answer(answer.status, None, body, answer.headers, is_json=False)
    text = answer.text if answer.ok else as_parameter(body)
    return Answer(answer.status, body, text, answer.headers)
