"""Django alone, and Django behind a layer that answers in its place: what both say to the same question."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core import signals
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections

from gpubroker.common.mediatype import PlainMediaType

ID = {"HTTP_X_REQUEST_ID": "the-same-for-both"}
Answer = tuple[str, list[tuple[str, str]], bytes]


class World:
    """``asked`` counts what reached Django through the layer."""

    def __init__(self, layer: Callable[[Any], Any], path: str) -> None:
        self.django = PlainMediaType(get_wsgi_application())
        self.path = path
        self.asked = 0
        self.layer = layer(self._counted)

    def _counted(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked += 1
        return self.django(environ, start_response)

    def alone(self, query: str = "", **headers: str) -> Answer:
        return self.answer(self.django, query, **headers)

    def through(self, query: str = "", **headers: str) -> Answer:
        return self.answer(self.layer, query, **headers)

    def both(self, query: str = "", **headers: str) -> Answer:
        """What Django says, which the layer says as well: when it learns it, and when it knows it."""
        expected = self.alone(query, **headers)
        for _ in range(3):
            assert self.through(query, **headers) == expected
        return expected

    def at_once(self, query: str = "", **headers: str) -> Answer:
        """The layer's own answer. It lets Django look when a second has passed since the last look, hence the tries."""
        for _ in range(20):
            before = self.asked
            found = self.through(query, **headers)
            if self.asked == before:
                return found
        raise AssertionError(f"Django was asked every time: {found}")

    def answer(self, application: Callable[..., Iterable[bytes]], query: str = "", **changes: Any) -> Answer:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET", "PATH_INFO": self.path, "SCRIPT_NAME": "", "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8080", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "localhost",
            "REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(), "wsgi.version": (1, 0), "wsgi.multithread": True, "wsgi.multiprocess": True,
            "wsgi.run_once": False, **ID, **changes,
        }  # fmt: skip
        said: list[tuple[str, list[tuple[str, str]]]] = []
        parts = application(environ, lambda status, headers, *_: said.append((status, headers)))
        body = b"".join(parts)
        if (close := getattr(parts, "close", None)) is not None:
            close()
        return said[0][0], sorted((name.lower(), value) for name, value in said[0][1]), body


def header(found: Answer, name: str) -> str:
    return dict(found[1]).get(name, "")


@contextmanager
def kept_connection() -> Iterator[None]:
    """As Django's own test client does: the end of a request must not close the test's connection."""
    ends = (signals.request_started, signals.request_finished)
    for end in ends:
        end.disconnect(close_old_connections)
    try:
        yield
    finally:
        for end in ends:
            end.connect(close_old_connections)
