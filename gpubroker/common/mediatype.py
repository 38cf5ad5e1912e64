"""Content-Type as far as it matters here: its type, and the boundary of a form.

Django believes a ``charset`` in it, whatever it names, for the query as well, and before any of its own error handling
is in place: ``rot13``, ``undefined`` or a broken RFC 2231 value took the request down with a bare 500, and ``utf-7``
gave the same query another meaning than a proxy in front of us had read. All that we read is UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_BOUNDARY = re.compile(r";\s*(boundary=(?:\"[^\"\\;]{1,200}\"|[^\s\";]{1,200}))\s*(?:;|$)", re.IGNORECASE)


class PlainMediaType:
    """WSGI: takes every parameter but a form's boundary out of Content-Type."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        given = environ.get("CONTENT_TYPE") or ""
        kind, parameters, _ = given.partition(";")
        if parameters:
            boundary = _BOUNDARY.search(given)
            environ["CONTENT_TYPE"] = f"{kind.strip()}; {boundary[1]}" if boundary else kind.strip()
        return self.application(environ, start_response)
