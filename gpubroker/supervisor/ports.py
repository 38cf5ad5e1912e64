"""Ports: is the wanted one free, find a free one, and keep one over restarts."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

from gpubroker.failures import StartFailure


def _bind(host: str, port: int) -> int:
    """Bind for a moment and let go; returns the port, or raises ``OSError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do, or a connection that the last run left in TIME_WAIT would look like a taken port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        # Two sockets that both allow reuse may be bound to one port; only one of them may listen.
        probe.listen(1)
        return int(probe.getsockname()[1])


def free_port(host: str = "127.0.0.1") -> int:
    return _bind(host, 0)


def require_free(host: str, port: int) -> None:
    """Refuse, by the names of the settings, an address where we could not listen."""
    try:
        _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartFailure(
                f"SERVER_PORT={port} on {host} is in use by another program: stop that one, or choose another port, "
                f"e.g. SERVER_PORT={port + 1 if port < 65535 else 8081}.",
                code=2,
            ) from None
        if error.errno == errno.EACCES:
            raise StartFailure(
                f"SERVER_PORT={port} needs rights that this user lacks; choose a port above 1023.", code=2
            ) from None
        raise StartFailure(
            f"SERVER_HOST={host}: this machine cannot listen there ({error.strerror or error}).", code=2
        ) from None


def kept_port(path: Path) -> int:
    """The port named in the file when it is still free, else a new one that is written there."""
    with contextlib.suppress(OSError, ValueError, OverflowError):
        return _bind("127.0.0.1", int(path.read_text()))
    port = free_port()
    path.write_text(f"{port}\n")
    return port
