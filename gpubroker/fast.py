"""The layer in front of Django: inventory lists that this process has at hand are answered here, all else by Django.

It learns from Django and repeats it. When Django has answered ``GET /api/v1/inventory`` with some query string, this
layer knows what the string means and which headers the answer has. The next request with that string gets the bytes
that Django would send, from the same memory (:attr:`offers.snapshot.Snapshot.rendered`), with its own request id, after
its key was looked at and its request counted. Whatever is unusual, refused, or would need the database goes on to
Django: this thread has no connection (docs/adr/0012-reading-fast.md).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.conf import settings

from billing.authentication import presented_key
from billing.keys import keyring
from gpubroker.common import clock, gathered, logs, principal, ratelimit
from gpubroker.common.middleware import REQUEST_ID
from gpubroker.common.permissions import holds
from offers import pages, snapshot
from offers.selectors import InventoryQuery

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

PATH = "/api/v1/inventory"
#: Query strings that are remembered, and the longest: a few megabytes at most.
REMEMBERED = 4096
LONGEST = 1024
STATUS = {200: "200 OK", 304: "304 Not Modified"}
#: What each answer has of its own; the rest depends on the request's :func:`_question` only.
OWN = frozenset({"content-length", "etag", "x-request-id"})
Headers = list[tuple[str, str]]
Question = tuple[str, ...]


class Known:
    """What one query string means, and the headers of its answers by status and coding."""

    __slots__ = ("headers", "query")

    def __init__(self, query: InventoryQuery) -> None:
        self.query = query
        self.headers: dict[tuple[int, str], Headers] = {}


class Fast:
    """WSGI: answers what it knows, and learns the rest from ``application``."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application
        self._known: dict[Question, Known] = {}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        question = _question(environ)
        if question is None:
            return self.application(environ, start_response)
        began = time.perf_counter()
        known = self._known.get(question)
        if known is not None and (answer := self._answer(known, environ)) is not None:
            status, headers, body = answer
            start_response(STATUS[status], headers)
            _count(status, time.perf_counter() - began)
            return [body]
        return self._learn(question, environ, start_response)

    def _answer(self, known: Known, environ: dict[str, Any]) -> tuple[int, Headers, bytes] | None:
        inventory = snapshot.at_hand()
        page = None if inventory is None else inventory.rendered.kept(inventory.key(clock.now(), known.query))
        if page is None:
            return None
        chosen = pages.choose(page, environ.get("HTTP_ACCEPT_ENCODING", ""), environ.get("HTTP_IF_NONE_MATCH", ""))
        headers = known.headers.get((chosen.status, chosen.coding))
        if headers is None:
            return None
        given = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        if not _may_pass(environ, request_id):
            return None
        own = [("Content-Length", str(len(chosen.body))), ("ETag", chosen.etag), ("X-Request-ID", request_id)]
        return chosen.status, headers + own, chosen.body

    def _learn(self, question: Question, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Let Django answer, and remember what it understood and which headers it sent."""
        sent: list[tuple[str, Headers]] = []

        def remember(status: str, headers: Headers, *rest: Any) -> Any:
            sent.append((status, headers))
            return start_response(status, headers, *rest)

        body = self.application(environ, remember)
        query = environ.get(pages.ASKED)
        if isinstance(query, InventoryQuery) and sent and sent[0][0] in STATUS.values():
            status, headers = int(sent[0][0][:3]), sent[0][1]
            coding = next((value for name, value in headers if name.lower() == "content-encoding"), pages.IDENTITY)
            if status == 304:
                # It carries no coding, but is chosen by one.
                coding = pages.GZIP if _tag(headers).endswith(f'-{pages.GZIP}"') else pages.IDENTITY
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known.setdefault(question, Known(query))
            known.headers[status, coding] = [pair for pair in headers if pair[0].lower() not in OWN]
        return body


def _tag(headers: Headers) -> str:
    return next((value for name, value in headers if name.lower() == "etag"), "")


def _question(environ: dict[str, Any]) -> Question | None:
    """All that Django's answer depends on, apart from the caller's key and the inventory; ``None``: not for us.

    A cookie may be answered with another cookie, and a body may be refused: Django sees to both."""
    if (
        environ["PATH_INFO"] != PATH
        or environ["REQUEST_METHOD"] != "GET"
        or "HTTP_COOKIE" in environ
        or "HTTP_TRANSFER_ENCODING" in environ
        or environ.get("CONTENT_LENGTH", "") not in ("", "0")
    ):
        return None
    question = (
        environ.get("QUERY_STRING", ""),
        environ.get("HTTP_ACCEPT", "*/*"),
        environ.get("HTTP_HOST", ""),
        environ.get("HTTP_X_FORWARDED_PROTO", ""),
        environ.get("wsgi.url_scheme", ""),
    )
    return question if sum(map(len, question)) <= LONGEST else None


def _may_pass(environ: dict[str, Any], request_id: str) -> bool:
    """Whether Django would let this caller read, and the call is counted. ``False``: let Django say so, or ask."""
    presented = presented_key(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_X_API_KEY"))
    who: principal.Principal | None = principal.OPEN if settings.API_AUTH == "open" else None
    if presented is not None:
        who = keyring.recall(presented)
    if who is None or not holds(who, principal.READ):
        return False
    try:
        with logs.context(request_id=request_id):
            ratelimit.count_caller(who.key_prefix, environ)
    except ratelimit.TooMany:
        return False
    return True


def _count(status: int, seconds: float) -> None:
    """As ``TrafficMiddleware`` counts."""
    gathered.count("gpu_http_requests_total", status=str(status), method="GET", route=PATH)
    gathered.observe("gpu_http_request_duration_seconds", seconds, method="GET", route=PATH)
