"""Does a machine without SSH answer? TCP, and the beginning of an HTTP answer, whatever its status."""

from __future__ import annotations

import socket
import time

from sessions_app.verify import CONNECT_SECONDS, NotYet

TOTAL_SECONDS = 10.0
_BEGIN = b"HTTP/"


def answer(host: str, port: int) -> str:
    """The answer's status line. Raises :class:`NotYet` with how far it got; never takes longer than ``TOTAL_SECONDS``.

    Redirects and bodies are nobody's business here: we ask once, and read no further than the first line.
    """
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as sock:
            name = f"[{host}]" if ":" in host else host
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode("ascii"))
            return _first_line(sock, deadline)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise NotYet(f"{host}:{port} does not answer: {reason}") from None


def _first_line(sock: socket.socket, deadline: float) -> str:
    read = b""
    while b"\n" not in read and len(read) < 1000:
        left = deadline - time.monotonic()
        if left <= 0:
            raise NotYet("HTTP answer takes too long")
        sock.settimeout(left)
        chunk = sock.recv(1000)
        if not chunk:
            break
        read += chunk
    if not read.startswith(_BEGIN):
        raise NotYet("what answers does not speak HTTP")
    return read.split(b"\r\n")[0].split(b"\n")[0][:100].decode("ascii", "replace")
