"""What the layers in front of Django share: whom they may answer, in which words, and that they are counted.

Such a layer (:mod:`gpubroker.fast`, :mod:`gpubroker.reads`) repeats Django's answers without Django. It finds the body
by the same functions as the view, and the headers it has learnt from an answer of Django's to a question that was asked
in the same :data:`Manner`. Whatever is unusual, refused or unknown goes on to Django (docs/adr/0012-reading-fast.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import QueryDict
from rest_framework import serializers

from billing.authentication import presented_key
from billing.keys import keyring
from gpubroker.common import logs, principal, ratelimit, traffic
from gpubroker.common.api import read_query
from gpubroker.common.errors import ApiError
from gpubroker.common.middleware import request_id_of
from gpubroker.common.permissions import holds
from gpubroker.common.principal import Principal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

#: Query strings, and manners of asking, that a layer remembers, and the longest: a few megabytes at most.
REMEMBERED = 4096
LONGEST = 1024
OK, NOT_MODIFIED = 200, 304
STATUS = {OK: "200 OK", NOT_MODIFIED: "304 Not Modified"}
#: What each answer has of its own; the rest depends on the :data:`Manner` only.
OWN = frozenset({"content-length", "etag", "x-request-id"})
Headers = list[tuple[str, str]]
#: All of a request that Django's headers depend on, apart from what is asked.
Manner = tuple[str, str, str, str]
#: Which of one manner's headers: of a 304 or a 200, compressed or not.
Kind = tuple[int, str]
_UNREAD = object()


def plain(environ: Mapping[str, Any]) -> bool:
    """A question without a body or a cookie: a cookie may be answered with another, and a body may be refused."""
    return (
        environ["REQUEST_METHOD"] == "GET"
        and "HTTP_COOKIE" not in environ
        and "HTTP_TRANSFER_ENCODING" not in environ
        and environ.get("CONTENT_LENGTH", "") in ("", "0")
        and len(environ.get("QUERY_STRING", "")) <= LONGEST
    )


def manner(environ: Mapping[str, Any]) -> Manner:
    return (
        environ.get("HTTP_ACCEPT", "*/*"),
        environ.get("HTTP_HOST", ""),
        environ.get("HTTP_X_FORWARDED_PROTO", ""),
        environ.get("wsgi.url_scheme", ""),
    )


class Learnt:
    """The headers of Django's answers by manner and kind. ``left`` is the key under which a view says, in
    ``request.META``, that its answer may be repeated."""

    def __init__(self, left: str, kind: Callable[[int, Headers], Kind]) -> None:
        self._left = left
        self._kind = kind
        self._headers: dict[tuple[Manner, Kind], Headers] = {}

    def __len__(self) -> int:
        return len(self._headers)

    def headers(self, how: Manner, kind: Kind) -> Headers | None:
        return self._headers.get((how, kind))

    def ask(
        self, application: WSGIApplication, environ: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        """Let Django answer, and remember its headers if its view allows it."""
        sent: list[tuple[str, Headers]] = []

        def remember(status: str, headers: Headers, *rest: Any) -> Any:
            sent.append((status, headers))
            return start_response(status, headers, *rest)

        body = application(environ, remember)
        how = manner(environ)
        if self._left in environ and sent and sent[0][0] in STATUS.values() and sum(map(len, how)) <= LONGEST:
            status, headers = int(sent[0][0][:3]), sent[0][1]
            if len(self._headers) >= REMEMBERED:
                self._headers.clear()
            kept = [pair for pair in headers if pair[0].lower() not in OWN]
            self._headers[how, self._kind(status, headers)] = kept
        return body


class Questions:
    """Query strings and what they mean, by the view's own form; ``None``: the form refuses it, or it is not for us."""

    def __init__(self, form: type[serializers.Serializer[Any]]) -> None:
        self._form = form
        self._meant: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._meant)

    def read(self, query: str, meaning: Callable[[dict[str, Any]], Any]) -> Any:
        """``meaning`` of the parameters, remembered."""
        known = self._meant.get(query, _UNREAD)  # one look: another thread may forget all of them at any moment
        if known is not _UNREAD:
            return known
        try:
            # As Django reads it: the server hands on bytes as Latin-1.
            meant = meaning(read_query(self._form, QueryDict(query.encode("latin-1"))))
        except (ApiError, ValueError):  # too many fields is a ValueError
            meant = None
        if len(self._meant) >= REMEMBERED:
            self._meant.clear()
        self._meant[query] = meant
        return meant


def caller(environ: dict[str, Any], request_id: str) -> Principal | None:
    """On whose behalf the request acts, once the call is counted against the limit; Django counts it no second time.
    ``None``: Django would refuse it, or would have to ask the database; let it."""
    presented = presented_key(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_X_API_KEY"))
    who: Principal | None = principal.OPEN if presented is None and settings.API_AUTH == "open" else None
    if presented is not None:
        who = keyring.recall(presented)
    if who is None or not holds(who, principal.READ):
        return None
    try:
        if not ratelimit.use(who.key_prefix, environ):
            with logs.context(request_id=request_id):
                ratelimit.count_caller(who.key_prefix, environ)
    except ratelimit.TooMany:
        return None
    environ[ratelimit.COUNTED] = True
    return who


def request_id(environ: Mapping[str, Any]) -> str:
    return request_id_of(environ.get("HTTP_X_REQUEST_ID", ""))


def count(route: str, status: int, seconds: float) -> None:
    traffic.note("GET", route, status, seconds)
