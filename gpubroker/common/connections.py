"""Connections that the web server would listen on for ever: it has no time limit for a request's body, and does not say
which connection a request came on. Linux only; elsewhere a slow body keeps its thread and holds back nobody else."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys

#: Of Linux's ``struct tcp_info``: eight bytes, then numbers; the tenth is milliseconds since data was last sent.
_TCP_INFO = struct.Struct("8x10I")


def stop_receiving(port: int, address: str, seconds: float) -> int:
    """End what still comes from that address on connections where we have sent nothing for so long; how many.

    Such a connection is in the middle of a request: an idle one is closed by the server itself. Beside the slow senders
    it can be one that waits so long for a verdict; its work goes on, as after any broken connection.
    """
    if sys.platform != "linux":
        return 0
    count = 0
    for name in os.listdir("/proc/self/fd"):
        # It may have been closed since, and its number may be another file's now: we look at a duplicate of our own.
        with contextlib.suppress(OSError), _duplicate(int(name)) as one:
            if _is_from(one, port, address) and _unsent_for(one) >= seconds:
                one.shutdown(socket.SHUT_RD)
                count += 1
    return count


def _duplicate(descriptor: int) -> socket.socket:
    """``OSError`` where it is no socket, or closed; the duplicate does not stay behind then."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _is_from(one: socket.socket, port: int, address: str) -> bool:
    is_tcp = one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM
    # A listening socket has no peer: OSError.
    return is_tcp and one.getsockname()[1] == port and one.getpeername()[0] == address


def _unsent_for(one: socket.socket) -> float:
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    return float(_TCP_INFO.unpack(info)[9]) / 1000
