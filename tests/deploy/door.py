"""What stands before a published container: Docker's proxy of a port, and the clients of the Caddy in front of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from gpubroker.supervisor import ports
from tests.deploy.operations import NAME

#: Where those outside come from.
ADDRESS = "127.0.0.2"


class PublishedPort:
    """As ``docker-proxy``: while the container runs it takes every connection, and closes it where nobody answers in
    the container. Before and after, connections are refused."""

    def __init__(self, target: int) -> None:
        self.port, self.target = ports.free_port(), target
        self._listener: socket.socket | None = None

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                there = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            with there:
                back = threading.Thread(target=_pass_on, args=(there, client), daemon=True)
                back.start()
                _pass_on(client, there)
                back.join()


def _pass_on(origin: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := origin.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Outside:
    """Somebody on the other side of Caddy, who trusts its certificates: status, headers and body."""

    def __init__(self, port: int, authority: Path, key: str = "") -> None:
        self.port, self.key = port, key
        self._trust = ssl.create_default_context(cafile=str(authority))

    def __call__(
        self, method: str, path: str, body: bytes | None = None, *, name: str = NAME, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        plain = socket.create_connection(("127.0.0.1", self.port), 120, source_address=(ADDRESS, 0))
        sent = {"Host": name, "Content-Type": "application/json"}
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        try:
            connection.sock = self._trust.wrap_socket(plain, server_hostname=NAME)
            connection.request(method, path, body, {**sent, **{k.replace("_", "-"): v for k, v in headers.items()}})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()
            plain.close()

    def json(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        status, _, text = self(method, path, None if body is None else json.dumps(body).encode(), **headers)
        return status, json.loads(text)


class Visitors:
    """Several kinds of request, five times a second each, until everybody has an answer."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._over = threading.Event()
        self._asked: list[threading.Thread] = []
        self.seen: list[tuple[str, float, float, int]] = []
        self._began = time.monotonic()
        self._clock = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        number = 0
        while not self._over.wait(0.2):
            number += 1
            for kind, method, headers in (
                ("GET", "GET", {}), ("DELETE", "DELETE", {}), ("POST", "POST", {}),
                ("POST with a key", "POST", {"Idempotency_Key": f"visitor-{number}"}),
            ):  # fmt: skip
                one = threading.Thread(target=self._ask, args=(kind, method, headers), daemon=True)
                one.start()
                self._asked.append(one)

    def _ask(self, kind: str, method: str, headers: dict[str, str]) -> None:
        path = "/api/v1/sessions" + ("/nobody" if method == "DELETE" else "")
        at = time.monotonic()
        # What the broker refuses without doing anything, with a status that no proxy uses here.
        status = self._outside(method, path, b"{}" if method == "POST" else None, **headers)[0]
        self.seen.append((kind, at - self._began, time.monotonic() - at, status))

    def __enter__(self) -> Visitors:
        self._clock.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._clock.join()
        for one in self._asked:
            one.join(150)

    def statuses(self) -> dict[str, Counter[int]]:
        kinds = dict.fromkeys(kind for kind, *_ in self.seen)
        return {kind: Counter(status for name, _, _, status in self.seen if name == kind) for kind in kinds}
