"""Bodies without a length, bodies that are cut short, and clients that send as slowly as they can."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import RequestFactory

from gpubroker.common import bodies, connections
from gpubroker.common.bodies import Bodies
from gpubroker.common.middleware import BodyMiddleware
from tests.fixtures import WithSchema
from tests.stack import Stack, gpubroker, running

LIMIT = 1_048_576


class Unread(io.BytesIO):
    """A body that nobody may touch."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("the body was read")


class Pieces(io.BytesIO):
    """Gives less than was asked for, as a network does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size if size is not None and size > 0 else 7, 100_000))


def behind(environ: dict[str, Any]) -> dict[str, Any]:
    """What the application behind sees."""
    seen: dict[str, Any] = {}

    def inner(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        return []

    Bodies(inner)({**environ}, lambda *_: lambda _: None)
    return seen


@pytest.mark.parametrize("said", [{}, {"CONTENT_LENGTH": "3"}])
def test_a_chunked_body_is_given_its_length(said: dict[str, str]) -> None:
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", **said}
    seen = behind({**chunked, "wsgi.input": Pieces(b'{"a": 1}' * 50_000)})
    assert (seen["CONTENT_LENGTH"], seen["wsgi.input"].read()) == ("400000", b'{"a": 1}' * 50_000)
    assert {"HTTP_TRANSFER_ENCODING", bodies.PROBLEM} & set(seen) == set()
    seen = behind({**chunked, "wsgi.input": Pieces(b"x" * (3 * LIMIT))})
    assert (seen["CONTENT_LENGTH"], len(seen["wsgi.input"].read())) == (str(LIMIT + 1), LIMIT + 1)


def test_no_more_than_the_length_said_is_read() -> None:
    stream = Pieces(b"x" * LIMIT)
    seen = behind({"CONTENT_LENGTH": "300000", "wsgi.input": stream})
    assert (seen["CONTENT_LENGTH"], len(seen["wsgi.input"].read()), stream.tell()) == ("300000", 300_000, 300_000)


@pytest.mark.parametrize("length", ["", "0", "-1", "ten", "٣", str(LIMIT + 1), "9" * 40])
def test_without_a_body_or_with_one_that_is_refused_nothing_is_read(length: str) -> None:
    stream = Unread()
    seen = behind({"CONTENT_LENGTH": length, "wsgi.input": stream})
    assert (seen["CONTENT_LENGTH"], seen["wsgi.input"]) == (length, stream)


def test_a_body_that_is_cut_short_is_half_a_wish_and_refused() -> None:
    seen = behind({"CONTENT_LENGTH": "10", "wsgi.input": io.BytesIO(b'{"a": 1}')})
    assert seen[bodies.PROBLEM] == bodies.CUT
    assert refusal(seen) == (400, "the request body ended before its Content-Length", "close")


def refusal(seen: dict[str, Any]) -> tuple[int, str, str]:
    """What the middleware answers with, without asking anything behind it."""

    def nobody(request: Any) -> Any:
        raise AssertionError("the view was asked")

    answer = BodyMiddleware(nobody)(RequestFactory().post("/api/v1/sessions", **{bodies.PROBLEM: seen[bodies.PROBLEM]}))
    return answer.status_code, json.loads(answer.content)["error"], answer.headers["Connection"]


@pytest.mark.parametrize("said", [{"CONTENT_LENGTH": "10"}, {"HTTP_TRANSFER_ENCODING": "chunked"}])
def test_a_body_whose_time_is_up_is_late_even_where_what_came_looks_whole(said: dict[str, str]) -> None:
    class Slow(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            bodies.watched.end_late(0)
            return super().read(*_)

    environ = {"REMOTE_ADDR": "10.1.1.1", "SERVER_PORT": "1", **said, "wsgi.input": Slow(b'{"a": 1}')}
    assert refusal(behind(environ)) == (408, "the request body did not come in time", "close")
    # Where we have just stopped receiving, what comes next may have been broken off; elsewhere it was not.
    again = behind({**environ, "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": io.BytesIO(b"{}")})
    assert again[bodies.PROBLEM] == bodies.LATE
    whole = behind({**environ, "HTTP_TRANSFER_ENCODING": "", "CONTENT_LENGTH": "2", "wsgi.input": io.BytesIO(b"{}")})
    assert bodies.PROBLEM not in whole
    others = {
        **environ,
        "REMOTE_ADDR": "10.1.1.2",
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input": io.BytesIO(b"{}"),
    }
    assert bodies.PROBLEM not in behind(others)


def test_a_look_at_connections_leaves_nothing_open(tmp_path: Path) -> None:
    """Files are no sockets: the duplicate of each must be closed again."""
    with (tmp_path / "a file").open("w"):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            assert connections.stop_receiving(1, "127.0.0.1", 0) == 0
        assert len(os.listdir("/proc/self/fd")) == before


def test_receiving_stops_only_where_nothing_was_sent_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        port = listener.getsockname()[1]

        def pair() -> tuple[socket.socket, socket.socket]:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            server = stack.enter_context(listener.accept()[0])
            client.settimeout(20)
            server.settimeout(20)
            return client, server

        (slow, slowed), (client, server) = pair(), pair()
        time.sleep(2.1)
        server.sendall(b"lively")
        assert connections.stop_receiving(port, "127.0.0.2", 2) == 0
        assert connections.stop_receiving(port + 1, "127.0.0.1", 0) == 0
        assert connections.stop_receiving(port, "127.0.0.1", 2) == 1
        assert slowed.recv(1) == b""
        slowed.sendall(b"408")
        assert slow.recv(3) == b"408"
        client.sendall(b"still")
        assert (server.recv(5), client.recv(6)) == (b"still", b"lively")


# --- the real server ----------------------------------------------------------------------------

PATHS = ("/admin/login/", "/api/v1/sessions", "/api/v1/keys")
LENGTHS = ("Content-Length: 100000", "Transfer-Encoding: chunked")
START = {"Content-Length: 100000": b"{", "Transfer-Encoding: chunked": b"400\r\n{"}
BODY_SECONDS = 2


class Crowd:
    """Clients that send a byte now and then."""

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self.bodies: list[socket.socket] = []
        self.headers: list[socket.socket] = []
        self.gone = threading.Event()
        for number in range(160):
            length = LENGTHS[number % 2]
            auth = ("", f"X-API-Key: {key}\r\n")[number // 2 % 2]
            head = f"POST {PATHS[number // 4 % 3]} HTTP/1.1\r\nHost: localhost\r\n{auth}{length}\r\n"
            kind = "Content-Type: application/json\r\n\r\n"
            self.bodies.append(self._open((head + kind).encode() + START[length]))
        self.headers += [self._open(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ") for _ in range(60)]
        self.thread = threading.Thread(target=self._dribble, daemon=True)
        self.thread.start()

    def _open(self, first: bytes) -> socket.socket:
        one = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        one.sendall(first)
        return one

    def _dribble(self) -> None:
        while not self.gone.wait(0.5):
            for one in [*self.bodies, *self.headers]:
                with contextlib.suppress(OSError):
                    one.send(b"x")

    def answers(self) -> list[int]:
        """The statuses that the senders of bodies get, each before its connection's time is up."""
        return [int(one.recv(4096).split(b" ", 2)[1]) for one in self.bodies]

    def leave(self) -> None:
        self.gone.set()
        self.thread.join(20)
        for one in [*self.bodies, *self.headers]:
            one.close()


@pytest.fixture
def stack(tmp_path: Path, with_schema: WithSchema) -> Iterator[Stack]:
    with running(with_schema(tmp_path / "data"), API_AUTH="key", REQUEST_BODY_SECONDS=str(BODY_SECONDS)) as found:
        found.wait_ready()
        yield found


def asked(stack: Stack, method: str, path: str, key: str, body: str | None = None) -> tuple[int, float]:
    """Status and seconds of one request on a connection of its own."""
    began = time.monotonic()
    status = stack.ask(method, path, body, {"X-API-Key": key, "Content-Type": "application/json"})
    return status, time.monotonic() - began


def test_two_hundred_slow_clients_keep_nobody_else_waiting(stack: Stack) -> None:
    key = gpubroker("key", "create", "--staff", data_dir=stack.data_dir).stdout.strip()
    estimate = {"consumer_id": "a", "offer_id": "vastai-none", "workload_type": "llm", "reservation_hours": 1}
    crowd = Crowd(stack.port, key)
    try:
        rounds = [
            [
                asked(stack, "GET", "/health", key),
                asked(stack, "GET", "/api/v1/sessions", key),
                asked(stack, "POST", "/api/v1/sessions/estimate", key, json.dumps(estimate)),
            ]
            for _ in range(8)
        ]
        assert [[status for status, _ in each] for each in rounds] == [[200, 200, 404]] * 8
        assert max(seconds for each in rounds for _, seconds in each) < 10
        answers = crowd.answers()
        assert len(answers) == 160
        assert set(answers) == {408}
    finally:
        crowd.leave()
    assert asked(stack, "GET", "/health", key)[0] == 200
