"""The real web server on a raw socket: what no HTTP library would send. And what of it all is in the log."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpubroker.supervisor import ports
from tests.fixtures import WithSchema
from tests.stack import environment, gpubroker

# All of it on one worker: what the module's fixture starts is dear.
pytestmark = pytest.mark.xdist_group("wire")

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
#: Whatever else a log may hold, none of these in raw form.
RAW = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


class Server:
    """A web process alone, closed by key, and what it logs."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.port = ports.free_port()
        settings: dict[str, Any] = {"API_AUTH": "key", "SANDBOX": "off", "LOG_LEVEL": "debug"}
        self.key = gpubroker("key", "create", "--consumer", "me", data_dir=data, **settings).stdout.strip()
        assert self.key.startswith("gpb_")
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpubroker.roles", "web"],
                env=environment(data, self.port, LOG_FORMAT="text", **settings),
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def __call__(self, sent: bytes) -> list[tuple[int, bytes]]:
        """Every answer on one connection, until the server closes it, of itself or as our last request wants."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            connection.settimeout(30)
            connection.sendall(sent)
            received = b""
            try:
                while piece := connection.recv(65_536):
                    received += piece
            except ConnectionResetError:
                pass  # it hung up on what we were still sending
        parts = re.split(rb"(?=HTTP/1\.1 \d\d\d )", received)
        return [(int(part[9:12]), part) for part in parts if part and not part.startswith(b"HTTP/1.1 100")]

    def statuses(self, sent: bytes) -> list[int]:
        return [status for status, _ in self(sent)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, with_schema: WithSchema) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("wire")
    made = Server(folder, with_schema(folder / "data"))
    yield made
    made.process.terminate()
    made.process.wait(30)


def last(server: Server, method: str = "GET", path: str = "/api/v1/sessions", *, key: bool = True) -> bytes:
    """A plain request, after which the server closes: what comes of it shows where the one before it ended."""
    auth = f"X-API-Key: {server.key}\r\n" if key else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{auth}\r\n".encode()


SMUGGLED = b"DELETE /api/v1/smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
#: Lengths that two servers might read differently: the next request must not come out of the body of this one.
LENGTHS = {
    "both": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, other order": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 70\r\n\r\n",
    "a list of lengths": b"Content-Length: 0, 70\r\n\r\n",
    "plus": b"Content-Length: +0\r\n\r\n",
    "minus": b"Content-Length: -1\r\n\r\n",
    "hexadecimal": b"Content-Length: 0x0\r\n\r\n",
    "space before colon": b"Content-Length : 0\r\n\r\n",
    "folded": b"Content-Length:\r\n 0\r\n\r\n",
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\n\r\n",
    "chunked not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "tab": b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "nul": b"Content-Length: 0\x00\r\n\r\n",
    "return in a header": b"X: a\rContent-Length: 0\r\n\r\n",
    "negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n",
    "size of no chunk": b"Transfer-Encoding: chunked\r\n\r\nG\r\n\r\n0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_no_request_comes_out_of_the_body_of_another(server: Server, length: bytes) -> None:
    head = b"POST /api/v1/sessions/none/done HTTP/1.1\r\n" + HOST + JSON + f"X-API-Key: {server.key}\r\n".encode()
    answers = server(head + length + SMUGGLED)
    assert len(answers) == 1
    status, text = answers[0]
    assert status in (400, 404)
    assert b"smuggled" not in text


def test_what_follows_a_body_of_the_said_length_is_the_next_request(server: Server) -> None:
    """GET with a body, and one that is refused unread."""
    inner = b"GET /api/v1/smuggled HTTP/1.1\r\n\r\n"
    head = b"GET /api/v1/templates HTTP/1.1\r\n" + HOST + f"Content-Length: {len(inner)}\r\n\r\n".encode()
    answers = server(head + inner + last(server, path="/api/v1/templates"))
    assert [status for status, _ in answers] == [401, 200]
    large = b"POST /api/v1/sessions HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 2000000\r\n\r\n"
    answers = server(large + SMUGGLED)
    assert [status for status, _ in answers] == [413]


BROKEN = {
    "no version": b"GET /api/v1/sessions\r\n\r\n",
    "binary": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
    "nul in a path": b"GET /api/v1/\x00 HTTP/1.1\r\n\r\n", "escape in a path": b"GET /api/v1/\x1b[31m HTTP/1.1\r\n\r\n",
    "nul in a header": b"GET / HTTP/1.1\r\nX-Request-ID: a\x00b\r\n\r\n",
    "escape in a header": b"GET / HTTP/1.1\r\nUser-Agent: \x1b[31m\r\n\r\n",
    "return in a header": b"GET / HTTP/1.1\r\nX-Request-ID: a\rb\r\n\r\n", "no name": b"GET / HTTP/1.1\r\n: x\r\n\r\n",
    "endless header": b"GET / HTTP/1.1\r\nX: " + b"a" * 600_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 500 + b"\r\n",
    "endless path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", "odd method": b"GE<T / HTTP/1.1\r\n\r\n",
    "version": b"GET / HTTP/9.9\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_what_is_no_request_is_refused_and_hung_up_on(server: Server, sent: bytes) -> None:
    assert server.statuses(sent)[:1] in ([400], [414], [431], [])
    assert server.statuses(last(server)) == [200]


def headers_of(server: Server, *lines: bytes, path: bytes = b"/api/v1/sessions") -> tuple[int, bytes]:
    head = b"GET " + path + b" HTTP/1.1\r\nConnection: close\r\n"
    ((status, text),) = server(head + b"".join(line + b"\r\n" for line in lines) + b"\r\n")
    return status, text


def test_two_keys_are_none(server: Server) -> None:
    good, bad = f"X-API-Key: {server.key}".encode(), b"X-API-Key: gpb_aaaaaaaa_" + b"a" * 40
    assert headers_of(server, HOST[:-2], good)[0] == 200
    for pair in ((good, bad), (bad, good), (good, good), (good, f"Authorization: Bearer {server.key}".encode())):
        status, text = headers_of(server, HOST[:-2], *pair)
        assert status == 401
        assert server.key.encode() not in text


def test_hosts_on_the_wire(server: Server) -> None:
    key = f"X-API-Key: {server.key}".encode()
    for lines in (
        [],
        [b"Host: evil.example"],
        [HOST[:-2], b"Host: evil.example"],
        [b"Host: \xe2\x80\xaeevil"],
        [b"Host:"],
    ):
        status, text = headers_of(server, key, *lines)
        assert status == 400
        assert b"ALLOWED_HOSTS" in text
    status, text = headers_of(server, key, HOST[:-2], path=b"http://evil.example/api/v1/none")
    assert status == 404
    assert b"evil.example" not in text


def test_no_header_is_split(server: Server) -> None:
    key = f"X-API-Key: {server.key}".encode()
    for path in (
        b"/api/v1/sessions/a%0d%0aX-Evil:%201",
        b"/api/v1/sessions/a%0aX-Evil:1",
        b"/%0d%0aX-Evil:1",
        b"//evil.example/%2f..",
    ):
        status, text = headers_of(server, key, HOST[:-2], b"X-Request-ID: a%0d%0aX-Evil: 1", path=path)
        assert status == 404
        assert b"x-evil" not in text.partition(b"\r\n\r\n")[0].lower()


def test_a_charset_does_not_reach_the_server(server: Server) -> None:
    """Any of these was a bare 500 without request id."""
    key = f"X-API-Key: {server.key}".encode()
    for media in (
        b"a; charset=rot13",
        b"a; charset=undefined",
        b"a; charset*=bogus''x",
        b"a; charset*=utf-8''%00",
        b"a; charset=utf-7",
    ):
        status, text = headers_of(server, key, HOST[:-2], b"Content-Type: " + media, path=b"/api/v1/sessions?limit=1")
        assert status == 200
        assert b"x-request-id: " in text.lower()


def test_the_log_of_it_all(server: Server) -> None:
    """Last of this file: what the attacks above, and some that aim at the log, have written."""
    forged = b"%0a21:00:00%20CRITICAL%20billing:%20forged%0d%0a%1b[31m%e2%80%ae%c2%9b31m%e2%80%a8"
    key = f"X-API-Key: {server.key}".encode()
    for path in (
        b"/" + forged,
        b"/api/v1/sessions/" + forged,
        b"/api/v1/sessions?consumer_id=" + forged,
        b"/admin/" + forged,
    ):
        headers_of(server, key, HOST[:-2], b"Referer: https://" + forged, b"User-Agent: " + forged, path=path)
    body = b'{"consumer_id": "\\u001b[31m\\nforged"}'
    lengths = f"Content-Length: {len(body)}\r\nX-API-Key: {server.key}\r\nConnection: close\r\n\r\n".encode()
    assert server.statuses(b"POST /api/v1/sessions HTTP/1.1\r\n" + HOST + JSON + lengths + body) == [400]
    csrf = (
        b"POST /admin/login/ HTTP/1.1\r\n"
        + HOST
        + b"Referer: https://%1b[31m\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert server.statuses(csrf) == [403]
    written = server.log.read_bytes()
    assert b"CSRF" in written  # what is logged of such requests was logged
    assert RAW.findall(written) == []
    assert [line for line in written.splitlines() if b"CRITICAL" in line[:30]] == []
    assert server.key.encode() not in written
    assert server.key[13:].encode() not in written
    assert b"Traceback" not in written
    assert server.process.poll() is None
