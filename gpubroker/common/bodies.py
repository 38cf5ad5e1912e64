"""Request bodies that do not say how long they are: chunked HTTP/1.1, and HTTP/2 without a Content-Length.

Django takes such a body for an empty one. Here it is read up to the limit and given its length; one beyond the limit
keeps a length beyond the limit, by which ``BodySizeMiddleware`` refuses it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.conf import settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication


class KnownLength:
    """WSGI: gives every body a length."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        # Both given is how requests are smuggled past proxies: what is on the wire counts, not what is said.
        chunked = bool(environ.pop("HTTP_TRANSFER_ENCODING", ""))
        if chunked or (not environ.get("CONTENT_LENGTH") and environ.get("SERVER_PROTOCOL") == "HTTP/2"):
            body = _read(environ["wsgi.input"], settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        return self.application(environ, start_response)


def _read(stream: Any, most: int) -> bytes:
    body = b""
    while len(body) < most and (piece := stream.read(most - len(body))):
        body += piece
    return body
