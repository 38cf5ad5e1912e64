"""Connections that give up at a set moment, however slowly the other side drips.

A socket timeout only bounds the pause between two bytes: a server that sends one byte a second, in its headers
or in its body, would hold a thread for hours. Here every read checks the moment that the request must be over.
The moment and the note "bytes have left us" are per thread, because a request runs in one thread from end to end.
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class _Flight(threading.local):
    """The request that the current thread is making."""

    ends_at: float = 0.0
    pause: float = 0.0
    connecting: bool = False
    sent: bool = False
    #: When whoever asked waits no longer, whatever the request's own limit is.
    patience_ends_at: float = math.inf


_flight = _Flight()


def begin(total: float, pause: float) -> None:
    """From now on this thread's reads end after ``total`` seconds, and none waits more than ``pause``."""
    _flight.ends_at = min(time.monotonic() + total, _flight.patience_ends_at)
    _flight.pause = pause
    _flight.connecting = False
    _flight.sent = False


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """This thread's requests in the block, with their waits for a slot of the gate, end after ``seconds`` in all."""
    before = _flight.patience_ends_at
    _flight.patience_ends_at = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _flight.patience_ends_at = before


def left() -> float:
    """Seconds that are left of :func:`within`, not less than 0; infinite outside of it."""
    return max(_flight.patience_ends_at - time.monotonic(), 0.0)


def never_sent() -> bool:
    """Whether this thread's request is known not to have left us: connecting was tried and nothing was written."""
    return _flight.connecting and not _flight.sent


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # Through the socket's own file, because that counts how many users keep the descriptor open.
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = _flight.ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the whole answer took too long")
        self._sock.settimeout(min(left, _flight.pause))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Source:
    """What ``http.client`` takes for a socket: it only asks for a file."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(_Source(sock), *args, **kwargs)  # type: ignore[arg-type]


class _Plain(HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        _flight.connecting = True
        super().connect()

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        _flight.sent = True
        super().send(data)


class _Encrypted(HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        _flight.connecting = True
        super().connect()

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        _flight.sent = True
        super().send(data)


class PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class EncryptedPool(HTTPSConnectionPool):
    ConnectionCls = _Encrypted
