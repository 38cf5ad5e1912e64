"""Loopback ports for the machines' SSH servers, kept reserved from create to destroy."""

from __future__ import annotations

import random
import socket

#: Below what Linux hands out to outgoing connections, so that a port is still ours after a restart.
FIRST, LAST = 20_000, 32_000


class PortPool:
    """Bound but silent sockets: a client is refused until the SSH server takes the socket over.

    ``address`` is for machines that have one of their own; without it, a port is at ``host``.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._held: dict[tuple[str, int], socket.socket] = {}

    def reserve(self, address: str = "") -> int:
        """Hold some free port."""
        start = random.randint(FIRST, LAST)  # noqa: S311 - two sandboxes should not begin at the same port
        for offset in range(LAST - FIRST):
            port = FIRST + (start - FIRST + offset) % (LAST - FIRST)
            if self.is_free(port, address) and self.hold(port, address):
                return port
        raise OSError("no free port for an SSH server")

    def hold(self, port: int, address: str = "") -> bool:
        """Hold this very port (again); False if somebody else has it."""
        place = (address or self.host, port)
        if place in self._held:
            return True
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(place)
        except OSError:
            sock.close()
            return False
        self._held[place] = sock
        return True

    def take(self, port: int, address: str = "") -> socket.socket | None:
        """Hand the held socket over to who listens on it."""
        return self._held.pop((address or self.host, port), None)

    def release(self, port: int, address: str = "") -> None:
        sock = self.take(port, address)
        if sock:
            sock.close()

    def close(self) -> None:
        for address, port in list(self._held):
            self.release(port, address)

    def is_free(self, port: int, address: str = "") -> bool:
        """Stricter than ``hold``: without address reuse, another sandbox's silent socket counts as taken."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((address or self.host, port))
            except OSError:
                return False
        return True
