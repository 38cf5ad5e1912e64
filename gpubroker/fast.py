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
from typing import TYPE_CHECKING, Any

from gpubroker import front
from gpubroker.common import clock
from gpubroker.front import Headers, Kind
from offers import pages, snapshot
from offers.pages import Choice, Page
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
#: Answers to questions as they were last asked, so many and of so many bytes at most: found without a look at what the
#: question means.
RECENT, SMALL = 64, 64 * 1024


class Fast:
    """WSGI: answers what it can, and lets ``application`` do the rest."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application
        self.learnt = front.Learnt(pages.ASKED, _kind)
        self.questions = front.Questions(InventoryParams)
        #: Of one inventory only, so that no old one is kept in memory by what was once asked of it.
        self._recent: tuple[Snapshot | None, dict[str, tuple[tuple[float, ...], Page]]] = (None, {})

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH or not front.plain(environ):
            return self.application(environ, start_response)
        began = time.perf_counter()
        chosen = self._choose(environ)
        if chosen is not None:
            headers = self.learnt.headers(front.manner(environ), (chosen.status, chosen.coding))
            if headers is not None:
                request_id = front.request_id(environ)
                if front.caller(environ, request_id) is not None:
                    body = chosen.body
                    own = [("Content-Length", str(len(body))), ("ETag", chosen.etag), ("X-Request-ID", request_id)]
                    start_response(front.STATUS[chosen.status], headers + own)
                    front.count(PATH, chosen.status, time.perf_counter() - began)
                    return [body]
        return self.learnt.ask(self.application, environ, start_response)

    def _choose(self, environ: dict[str, Any]) -> Choice | None:
        page = self._page(environ.get("QUERY_STRING", ""))
        if page is None:
            return None
        return pages.choose(page, environ.get("HTTP_ACCEPT_ENCODING", ""), environ.get("HTTP_IF_NONE_MATCH", ""))

    def _page(self, asked: str) -> Page | None:
        inventory = snapshot.at_hand()
        if inventory is None:
            return None
        now = clock.now()
        step = inventory.step(now)
        of, recent = self._recent
        if of is not inventory or len(recent) > RECENT:
            recent = {}
            self._recent = inventory, recent
        found = recent.get(asked)
        if found is not None and found[0] == step:
            return found[1]
        query = self.questions.read(asked, _meaning)
        page = None if query is None else _printed(inventory, query, now)
        if page is not None and len(page) <= SMALL:
            recent[asked] = step, page
        return page


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
