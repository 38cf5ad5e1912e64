"""A proxy that hands every request on and writes down how it arrived."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Arrived:
    """One request as it came over the wire; ``body`` is ``None`` where there was none."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


class Recorder:
    """``url`` stands for the server behind it."""

    def __init__(self, behind: str) -> None:
        self.arrived: list[Arrived] = []
        recorder, host = self, urlsplit(behind).netloc

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size)
                parts = urlsplit(self.path)
                recorder.arrived.append(
                    Arrived(
                        self.command,
                        parts.path,
                        dict(parse_qsl(parts.query, keep_blank_values=True)),
                        json.loads(body) if body else None,
                        dict(self.headers),
                    )
                )
                onward = http.client.HTTPConnection(host, timeout=30)
                with contextlib.closing(onward):
                    onward.request(self.command, self.path, body or None, {"Accept": self.headers.get("Accept", "")})
                    answer = onward.getresponse()
                    content = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.getheader("Content-Type", ""))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = handle_one

            def log_message(self, format: str, *args: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def last(self) -> Arrived:
        return self.arrived[-1]

    @classmethod
    @contextlib.contextmanager
    def in_front_of(cls, behind: str) -> Iterator[Recorder]:
        recorder = cls(behind)
        recorder._thread.start()
        try:
            yield recorder
        finally:
            recorder._server.shutdown()
            recorder._server.server_close()
            recorder._thread.join(timeout=10)
