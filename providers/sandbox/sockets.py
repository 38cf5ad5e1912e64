"""A machine's SSH connections as its kernel lists them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
_REST = "00000000:00000000 00:00000000 00000000     0        0"


@dataclass(frozen=True, slots=True)
class Socket:
    """One established connection: the client's address and port, then the machine's."""

    client: tuple[str, int]
    server: tuple[str, int]

    def in_environment(self) -> str:
        """``SSH_CONNECTION`` of whoever came in by it."""
        return f"{self.client[0]} {self.client[1]} {self.server[0]} {self.server[1]}"


def proc_net_tcp(sockets: Sequence[Socket]) -> str:
    """``/proc/net/tcp``: addresses as a little-endian machine prints them, ports in hexadecimal, 01 is established."""
    rows = [
        f"{place:>4}: {_end(socket.server)} {_end(socket.client)} 01 {_REST} {20_000 + place} 1 0000000000000000\n"
        for place, socket in enumerate(sockets)
    ]
    return _HEAD + "".join(rows)


def _end(address: tuple[str, int]) -> str:
    packed = ipaddress.ip_address(address[0]).packed
    return f"{packed[::-1].hex().upper()}:{address[1]:04X}"
