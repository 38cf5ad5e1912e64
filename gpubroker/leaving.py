"""How a web process leaves and drops no request.

A web server that stops closes its listening socket. The kernel then resets every connection that is complete and not
yet accepted, and the server closes every one whose request it has not begun to read: requests without an answer. So a
moment before the server is told to stop, on :data:`SIGNAL`,

* new connections are not completed any more: the kernel ignores their first packet (Linux). Whoever sent it sends
  it again a second later, and is refused by then, as by a server that is down, which every proxy knows how to handle;
* answers carry ``Connection: close``, so that those who keep connections make their next one elsewhere.

Within :data:`SECONDS` whatever was on its way is being answered, and the server waits for that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication

SIGNAL = signal.SIGUSR1
SECONDS = 1.0
#: Linux: attach a packet filter to a socket, and a filter of one instruction, "let through nothing".
_SO_ATTACH_FILTER = 26
_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)


class Leaving:
    """WSGI: passes on to ``application``, and from the signal on asks clients not to come back on this connection."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application
        self.begun = False

    def listen(self) -> None:
        """From now on the signal begins it. In the main thread of the process that answers requests."""
        signal.signal(SIGNAL, self.begin)

    def begin(self, *_: object) -> None:
        self.begun = True
        for listener in _listeners():
            with listener:
                _ignore_new(listener)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if not self.begun:
            return self.application(environ, start_response)

        def last(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, ("Connection", "close")], *rest)

        return self.application(environ, last)


def _listeners() -> Iterable[socket.socket]:
    """The server's own objects are out of reach: duplicates of this process's listening sockets."""
    if sys.platform != "linux":
        return
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed since
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            one = socket.socket(fileno=os.dup(int(name)))
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield one
            else:
                one.close()


def _ignore_new(listener: socket.socket) -> None:
    program = ctypes.create_string_buffer(_NOTHING, len(_NOTHING))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
