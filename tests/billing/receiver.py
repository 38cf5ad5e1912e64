"""A receiver of webhooks on this machine that behaves as told, and what the tests of webhooks share."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from django.test import Client

from billing import services, webhooks
from billing.models import WebhookDelivery
from billing.outbox import emit

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "webhooks.md"
#: ``genuine(secret, header, body, now)``
Genuine = Callable[..., bool]


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Receiver:
    """``plan``: what comes next, afterwards ``usual``: a status, or ``hang``, ``drip``, ``drip body``, ``close``,
    ``garbage``, ``big``."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.plan: list[int | str] = []
        self.usual: int | str = 200
        self.answer = b"thanks"
        self.received: list[Received] = []
        self.release = threading.Event()
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver._take(self, Received(self.path, dict(self.headers.items()), body))

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = int(self.server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hook?for=gpu"

    def _take(self, handler: BaseHTTPRequestHandler, request: Received) -> None:
        with self._changed:
            self.received.append(request)
            behaviour = self.plan.pop(0) if self.plan else self.usual
            self._changed.notify_all()
        try:
            self._behave(handler, behaviour)
        except OSError:
            handler.close_connection = True  # the sender had enough

    def _behave(self, handler: BaseHTTPRequestHandler, behaviour: int | str) -> None:
        if behaviour == "hang":
            self.release.wait(30)
            behaviour = 200
        if behaviour == "close":
            handler.close_connection = True
        elif behaviour == "garbage":
            handler.wfile.write(b"\x00\x01 what is HTTP?\r\n\r\n")
            handler.close_connection = True
        elif behaviour in ("drip", "drip body"):
            start = (
                b"HTTP/1.1 200 OK\r\n" if behaviour == "drip" else b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
            )
            handler.wfile.write(start)
            while not self.release.wait(0.02):
                handler.wfile.write(b"X")
        else:
            body = b"y" * 5_000_000 if behaviour == "big" else self.answer
            handler.send_response(200 if isinstance(behaviour, str) else behaviour)
            handler.send_header("Location", "http://127.0.0.1/elsewhere")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= count, 20), f"{len(self.received)} came"


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver(context)
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.release.set()
        receiver.server.shutdown()
        thread.join(10)
        receiver.server.server_close()


def documented_check() -> Genuine:
    """The check of a signature that the documentation gives to receivers."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102
    check: Genuine = found["genuine"]
    return check


def lab() -> int:
    return services.ensure_consumer("lab").pk


def hook(receiver: Receiver, consumer: str | None = "lab", **more: Any) -> webhooks.MadeEndpoint:
    return webhooks.make(consumer, receiver.url, by="test", **more)


def tell(kind: str = "session.running", subject: str = "sess-1", **data: Any) -> None:
    emit(kind, lab(), data, subject=subject)


def only() -> WebhookDelivery:
    return WebhookDelivery.objects.select_related("endpoint", "message").get()


def counted(outcome: str) -> float:
    """``gpu_webhook_deliveries_total`` as it is scraped."""
    text = Client().get("/metrics").content.decode()
    return sum(map(float, re.findall(rf'^gpu_webhook_deliveries_total{{outcome="{outcome}"}} (\S+)$', text, re.M)))
