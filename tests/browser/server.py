"""The broker's pages over real HTTP, from threads of the test process: they share its clock, settings and database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application

#: An answer takes no longer, on a loaded machine.
PATIENCE = 30.0


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...


class _Answer:
    """An answer's parts, and who is told when it is over."""

    def __init__(self, parts: Iterable[bytes], over: Callable[[], None]) -> None:
        self.parts, self.over = parts, over

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        try:
            getattr(self.parts, "close", lambda: None)()
        finally:
            self.over()


class Server:
    """Serves until it is stopped; knows whether a request is being answered."""

    def __init__(self) -> None:
        self._django = get_wsgi_application()
        self._changed = threading.Condition()
        self._inside = 0
        self._server = ThreadedWSGIServer(("127.0.0.1", 0), _Quiet, allow_reuse_address=False)
        self._server.set_app(self._serve)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._changed:
            self._inside += 1
        try:
            return _Answer(self._django(environ, start_response), self._over)
        except BaseException:
            self._over()
            raise

    def _over(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def settle(self) -> None:
        """Until nothing is being answered: the tables may be emptied now."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._inside == 0, PATIENCE), f"{self._inside} requests hang"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.stop()
