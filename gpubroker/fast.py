"""The inventory in front of Django: lists that this process can make from its memory are answered here.

What a query string means is read by the view's own form, the bytes are those that the view would send
(:attr:`offers.snapshot.Snapshot.rendered`), the headers are learnt from Django (:mod:`gpubroker.front`). This thread
has no database connection: what would need one goes on to Django, and so does a long answer that is not printed yet, as
these threads are many.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from gpubroker import front
from gpubroker.common import clock
from gpubroker.front import Headers, Kind
from offers import pages, snapshot
from offers.pages import Page
from offers.selectors import InventoryQuery
from offers.serializers import InventoryParams
from offers.snapshot import Snapshot
from offers.views import inventory_query
from sessions_app.catalog_views import rendered_inventory

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

PATH = "/api/v1/inventory"
#: Offers of a page that is printed here when nobody has asked for it before.
SHORT = 200
#: Answers that wait to be given again, so many and of so many bytes at most, and how long all may be that a caller has
#: said: found without a look at what it means.
READY, SMALL, SAID = 64, 64 * 1024, 2 * front.LONGEST


class Answer(NamedTuple):
    """All of an answer but the request's id."""

    status: int
    headers: Headers
    body: bytes


class _Moment(NamedTuple):
    """One inventory while none of its answers changes, and those that are ready, by all that the caller has said. The
    next moment has its own, so that no old inventory is kept in memory by what was once asked of it."""

    inventory: Snapshot | None
    step: tuple[float, ...]
    ready: dict[tuple[str, ...], Answer]


class Fast:
    """WSGI: answers what it can, and lets ``application`` do the rest."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application
        self.learnt = front.Learnt(pages.ASKED, _kind)
        self.questions = front.Questions(InventoryParams)
        self._moment = _Moment(None, (), {})

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH or not front.plain(environ):
            return self.application(environ, start_response)
        began = time.perf_counter()
        answer = self._answer(environ)
        if answer is not None:
            request_id = front.request_id(environ)
            if front.caller(environ, request_id) is not None:
                start_response(front.STATUS[answer.status], [*answer.headers, ("X-Request-ID", request_id)])
                front.count(PATH, answer.status, time.perf_counter() - began)
                return [answer.body]
        return self.learnt.ask(self.application, environ, start_response)

    def _answer(self, environ: dict[str, Any]) -> Answer | None:
        inventory = snapshot.at_hand()
        if inventory is None:
            return None
        now = clock.now()
        moment, step = self._moment, inventory.step(now)
        if moment.inventory is not inventory or moment.step != step or len(moment.ready) > READY:
            moment = self._moment = _Moment(inventory, step, {})
        said = (
            environ.get("QUERY_STRING", ""),
            environ.get("HTTP_ACCEPT_ENCODING", ""),
            environ.get("HTTP_IF_NONE_MATCH", ""),
            *front.manner(environ),
        )
        answer = moment.ready.get(said)
        if answer is None:
            answer = self._made(environ, inventory, now)
            if answer is not None and len(answer.body) <= SMALL and sum(map(len, said)) <= SAID:
                moment.ready[said] = answer
        return answer

    def _made(self, environ: dict[str, Any], inventory: Snapshot, now: datetime) -> Answer | None:
        query = self.questions.read(environ.get("QUERY_STRING", ""), _meaning)
        page = None if query is None else _printed(inventory, query, now)
        if page is None:
            return None
        chosen = pages.choose(page, environ.get("HTTP_ACCEPT_ENCODING", ""), environ.get("HTTP_IF_NONE_MATCH", ""))
        headers = self.learnt.headers(front.manner(environ), (chosen.status, chosen.coding))
        if headers is None:
            return None
        own = [("Content-Length", str(len(chosen.body))), ("ETag", chosen.etag)]
        return Answer(chosen.status, headers + own, chosen.body)


def _printed(inventory: Snapshot, query: InventoryQuery, now: datetime) -> Page | None:
    page = inventory.rendered.kept(inventory.key(now, query))
    if page is None and query.limit is not None and query.limit <= SHORT:
        page = rendered_inventory(inventory, query, None, None)
    return page


def _meaning(params: dict[str, Any]) -> InventoryQuery | None:
    """A template's filters compare the vendors' own rows, which may have to be loaded."""
    return None if "template_hash_id" in params else inventory_query(params)


def _kind(status: int, headers: Headers) -> Kind:
    named = {name.lower(): value for name, value in headers}
    if status == front.NOT_MODIFIED:
        # It carries no coding, but is chosen by one.
        return status, pages.GZIP if named.get("etag", "").endswith(f'-{pages.GZIP}"') else pages.IDENTITY
    return status, named.get("content-encoding", pages.IDENTITY)
