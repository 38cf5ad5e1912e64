"""A server that says exactly the bytes it is told to, and the doubles that every provider test needs."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from providers.base import GateHeld

#: Answers for one connection after another: bytes to send, a pause in seconds, or "reset" / "close".
Step = bytes | float | str


class RawServer:
    """Takes connections one at a time; each request on it plays the next script. Counts the requests."""

    def __init__(self, *scripts: Sequence[Step], certificate: tuple[str, str] | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._scripts = list(scripts)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._tls = _server_context(*certificate) if certificate else None
        self._stop = threading.Event()
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        self._stop.set()
        for each in (self._socket, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while self._scripts:
                connection, _ = self._socket.accept()
                self.connections += 1
                with contextlib.suppress(OSError), self._encrypted(connection) as connection:
                    self._open.append(connection)
                    while self._scripts and (request := self._read_request(connection)):
                        self.requests.append(request)
                        if not self._play(connection, self._scripts.pop(0)):
                            break

    def _encrypted(self, connection: socket.socket) -> socket.socket:
        if self._tls is None:
            return connection
        connection.settimeout(5)
        return self._tls.wrap_socket(connection, server_side=True)

    def _read_request(self, connection: socket.socket) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            part = connection.recv(65_536)
            if not part:
                return b""
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += connection.recv(65_536)
        return head + b"\r\n\r\n" + body

    def _play(self, connection: socket.socket, script: Sequence[Step]) -> bool:
        for step in script:
            if self._stop.is_set():
                return False
            if isinstance(step, bytes):
                connection.sendall(step)
            elif isinstance(step, float):
                self._stop.wait(step)
            elif step == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                return False
            else:
                return False
        return True


@contextlib.contextmanager
def serving(*scripts: Sequence[Step], certificate: tuple[str, str] | None = None) -> Iterator[RawServer]:
    server = RawServer(*scripts, certificate=certificate)
    try:
        yield server
    finally:
        server.close()


def _server_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def http_bytes(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Something", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class RecordingGate:
    """Lets everything through and remembers; holds the keys in ``held``."""

    taken: list[tuple[str, float, float]] = field(default_factory=list)
    pushed: list[tuple[str, float]] = field(default_factory=list)
    held: dict[str, float] = field(default_factory=dict)

    def acquire(self, key: str, interval: float, *, wait: float = 0.0) -> None:
        if key in self.held:
            raise GateHeld(self.held[key])
        self.taken.append((key, interval, wait))

    def push_out(self, key: str, seconds: float) -> None:
        self.pushed.append((key, seconds))


@dataclass
class RecordingObserver:
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def observe(self, provider: str, operation: str, seconds: float, error: str) -> None:
        assert seconds >= 0
        self.seen.append((provider, operation, error))
