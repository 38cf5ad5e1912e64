"""Request bodies are read here, before anything works on the request, and within a time.

A web process has a thread for every connection that it accepts, so a body that is sent slowly holds back nobody: its
thread reads and has no database connection. The work is done by a few other threads, once a request is complete. The
server's own read cannot be given a time; when it is up, the connection's receiving side is shut, the read ends and the
answer is 408 (docs/adr/0005-slow-clients.md).

A body whose length is not said (chunked) is given one; one beyond the limit keeps a length beyond the limit, by which
``BodyMiddleware`` refuses it.
"""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings

from gpubroker.common import connections

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

#: Why there is no whole body, for ``BodyMiddleware``: its time is up, or its sender hung up.
PROBLEM = "gpubroker.body_problem"
LATE, CUT = "late", "cut"


class Bodies:
    """WSGI: whatever is behind gets a whole body in memory, or what came of it and the reason in ``PROBLEM``."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        # Both given is how requests are smuggled past proxies: what is on the wire counts, not what is said.
        chunked = bool(environ.pop("HTTP_TRANSFER_ENCODING", ""))
        declared = _declared(environ.get("CONTENT_LENGTH"))
        if chunked or 0 < declared <= most:
            with watched.reading(environ) as reading:
                body = _read(environ["wsgi.input"], most + 1 if chunked else declared)
            # The end of a chunked body that was broken off looks like any other.
            if chunked or len(body) < declared:
                broken = None if chunked else CUT
                problem = LATE if watched.stopped(reading) else broken
                environ |= {PROBLEM: problem} if problem else {}
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        return self.application(environ, start_response)


def _read(stream: Any, most: int) -> bytes:
    body = b""
    while len(body) < most and (piece := stream.read(most - len(body))):
        body += piece
    return body


def _declared(length: str | None) -> int:
    """0 for none and for what is no length, which ``BodyMiddleware`` refuses."""
    text = length or "0"
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else 0


@dataclass(frozen=True, eq=False, slots=True)
class Reading:
    """One body on its way: the port of ours and the address that it comes from."""

    origin: tuple[int, str]
    began: float


class Watched:
    """The bodies on their way, and the thread that ends those whose time is up."""

    LOOK_EVERY_SECONDS = 0.5
    #: A request whose headers were in when we stopped receiving begins to be read no later.
    SLACK_SECONDS = 5.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: set[Reading] = set()
        self._stopped: dict[tuple[int, str], float] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def reading(self, environ: dict[str, Any]) -> Iterator[Reading]:
        origin = int(environ.get("SERVER_PORT") or 0), str(environ.get("REMOTE_ADDR"))
        with self._lock:
            # Not before the first body: this module may be loaded before the web server forks.
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="bodies", daemon=True)
                self._thread.start()
            reading = Reading(origin, time.monotonic())
            self._readings.add(reading)
        try:
            yield reading
        finally:
            with self._lock:
                self._readings.discard(reading)

    def stopped(self, reading: Reading) -> bool:
        """Did we stop receiving from there, so that what came may be only a part?"""
        with self._lock:
            return reading.began - self._stopped.get(reading.origin, -math.inf) < self.SLACK_SECONDS

    def end_late(self, seconds: float) -> None:
        """Stop receiving where a body has been on its way for so long."""
        with self._lock:
            now = time.monotonic()
            late = {reading.origin for reading in self._readings if now - reading.began >= seconds}
            recent = {origin: at for origin, at in self._stopped.items() if now - at < 60 * self.SLACK_SECONDS}
            self._stopped = recent | dict.fromkeys(late, now)
            for port, address in late:
                connections.stop_receiving(port, address, seconds)

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self.LOOK_EVERY_SECONDS)
            self.end_late(settings.REQUEST_BODY_SECONDS)


watched = Watched()


class Workers:
    """WSGI: what is behind works in a few threads of its own, each with its database connection."""

    def __init__(self, application: WSGIApplication, threads: int) -> None:
        self.application = application
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="request")

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return self.pool.submit(self._work, environ, start_response).result()

    def _work(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        parts = self.application(environ, start_response)
        try:
            return [b"".join(parts)]
        finally:
            # Django takes this for the request's end and looks after this thread's database connection.
            if (close := getattr(parts, "close", None)) is not None:
                close()
