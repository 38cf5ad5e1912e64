"""Sessions in front of Django: one, and pages of them, are read and printed here by what the views use.

It stands behind the threads that have a database connection (:class:`gpubroker.common.bodies.Workers`). What it cannot
answer with 200 (an unknown session, another consumer's, a database that is away) goes on to Django, which says why.
Headers are learnt from Django (:mod:`gpubroker.front`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db import Error

from gpubroker import front
from gpubroker.common.errors import ApiError
from gpubroker.front import Kind
from sessions_app import pages
from sessions_app.serializers import ListParams
from sessions_app.shown import printed

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

LIST, ONE = "/api/v1/sessions", "/api/v1/sessions/{session_id}"
_ID = re.compile(re.escape(LIST) + "/(sess-[0-9a-z-]{1,64})")
#: Its answers are never compressed and never 304.
_KIND: Kind = (front.OK, "")


class Reads:
    """WSGI: answers what it can, and lets ``application`` do the rest."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application
        self.learnt = {route: front.Learnt(pages.ASKED, lambda *_: _KIND) for route in (LIST, ONE)}
        self.questions = front.Questions(ListParams)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        single = _ID.fullmatch(path)
        if (single is None and path != LIST) or not front.plain(environ):
            return self.application(environ, start_response)
        began = time.perf_counter()
        route = LIST if single is None else ONE
        headers = self.learnt[route].headers(front.manner(environ), _KIND)
        if headers is not None:
            request_id = front.request_id(environ)
            body = self._body(environ, request_id, None if single is None else single[1])
            if body is not None:
                own = [("Content-Length", str(len(body))), ("X-Request-ID", request_id)]
                start_response(front.STATUS[front.OK], headers + own)
                front.count(route, front.OK, time.perf_counter() - began)
                return [body]
        return self.learnt[route].ask(self.application, environ, start_response)

    def _body(self, environ: dict[str, Any], request_id: str, session_id: str | None) -> bytes | None:
        who = front.caller(environ, request_id)
        if who is None:
            return None
        try:
            if session_id is not None:
                return printed(pages.one(session_id, who))
            params = self.questions.read(environ.get("QUERY_STRING", ""), dict)
            return None if params is None else pages.page(pages.wanted(params, who), who)
        except (ApiError, Error):
            return None
