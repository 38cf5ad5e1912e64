"""What no broker can beat here: Granian as the broker runs it, with a program that does nothing but send some bytes.

``python -m benchmarks.floor PORT BYTES WORKERS`` serves them; ``python -m benchmarks read`` measures it, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gpubroker.roles import CONNECTIONS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

#: For the processes that the server starts, which load this module by name.
SIZE = "FLOOR_BYTES"
BODY = b"x" * int(os.environ.get(SIZE, "0"))
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", HEADERS)
    return [BODY]


def main(port: str, size: str, workers: str) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.log import LogLevels
    from granian.server import Server

    os.environ[SIZE] = size
    Server(
        "benchmarks.floor:application", address="127.0.0.1", port=int(port), interface=Interfaces.WSGI,
        http=HTTPModes.http1, workers=int(workers), blocking_threads=CONNECTIONS, runtime_threads=1,
        backpressure=CONNECTIONS, websockets=False, log_level=LogLevels.error,
    ).serve()  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
