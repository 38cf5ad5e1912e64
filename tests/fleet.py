"""The broker's roles as processes over one PostgreSQL and one Valkey, as on several machines: every process has a data
folder of its own and leads a process group of its own. For tests and benchmarks of what a deployment survives."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from cryptography.fernet import Fernet

from gpubroker.supervisor import ports
from gpubroker.supervisor.child import tie_to_parent
from tests import servers
from tests.sandbox import SandboxProcess
from tests.stack import ROOT, command, environment

API = "/api/v1"
#: More than any answer may take.
SECONDS = 90.0


def until(check: Callable[[], bool], what: str, seconds: float = 180.0, pause: float = 0.05) -> float:
    """Wait for it; how long that took."""
    began = time.monotonic()
    while not check():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
    return time.monotonic() - began


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """One request on a connection of its own: status, and what is in the answer. Raises ``OSError`` or
    ``http.client.HTTPException`` when there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named["Content-Type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), named)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


class Fleet:
    """Processes by a name that tells role and host, such as ``worker-b``."""

    def __init__(
        self, folder: Path, database_url: str, redis_url: str, market: SandboxProcess, **settings: str
    ) -> None:
        self.folder = folder
        self.market = market
        self.settings = {
            "DATABASE_URL": database_url, "REDIS_URL": redis_url, "SECRET_KEY": "x" * 50, "API_AUTH": "open",
            "ENCRYPTION_KEYS": Fernet.generate_key().decode(), "DEPLOYMENT_ID": "fleet", "LOG_LEVEL": "warning",
            "VASTAI_API_KEY": market.api_key, "VASTAI_BASE_URL": market.url, "MALLOC_ARENA_MAX": "2", **settings,
        }  # fmt: skip
        self.ports: dict[str, int] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str = "tools") -> dict[str, str]:
        data_dir = self.folder / name
        data_dir.mkdir(parents=True, exist_ok=True)
        return environment(data_dir, self.ports.get(name, 8080), **self.settings)

    def run(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """One command in the fleet's environment, to its end."""
        return subprocess.run(
            words, env=self.environment(), cwd=ROOT, input=given, capture_output=True, text=True, check=False
        )

    def migrate(self) -> None:
        done = self.run(*command("migrate"))
        if done.returncode:
            raise RuntimeError(done.stderr)

    def start(self, name: str, *options: str) -> None:
        """``name`` is a role and a host: ``web-a``. A web process keeps its port when it is started again."""
        role = name.partition("-")[0]
        if role == "web":
            self.ports.setdefault(name, ports.free_port())
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command(role, *options), env=self.environment(name), cwd=ROOT, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=tie_to_parent(),
            )  # fmt: skip

    def wait_ready(self, name: str, seconds: float = 180.0) -> float:
        """A web process, until it says that it is ready; the seconds that it took."""
        return until(lambda: self.status(name, "/ready") == 200, f"{name} is ready\n{self.log(name)}", seconds)

    def ask(self, name: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        return ask(self.ports[name], method, path, body, **headers)

    def status(self, name: str, path: str) -> int:
        """Of a GET; 0 when nobody answers."""
        try:
            return self.ask(name, "GET", path)[0]
        except (OSError, http.client.HTTPException):
            return 0

    def offers(self, name: str, count: int) -> list[str]:
        """Cheap ones on different machines: renting one slice of a machine withdraws the others."""
        until(lambda: self.ask(name, "GET", f"{API}/inventory?limit=1")[1].get("total", 0) >= count, "an inventory")
        listed = self.ask(name, "GET", f"{API}/inventory?provider=vastai")[1]["offers"]
        roomy = (offer for offer in reversed(listed) if (offer["disk_gb"] or 0) > 100)
        return list({offer["machine_id"]: offer["id"] for offer in roomy}.values())[-count:]

    def stop(self, name: str, seconds: float = 90.0) -> int:
        """SIGTERM, as a deploy does; the exit code."""
        process = self.processes.pop(name)
        process.terminate()
        try:
            return process.wait(seconds)
        finally:
            self._bury(process)

    def kill(self, name: str) -> None:
        """SIGKILL, with all that it has started."""
        self._bury(self.processes.pop(name))

    @staticmethod
    def _bury(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def destroy(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
                         for path in sorted(self.folder.glob("*.log")))  # fmt: skip

    def open_rows(self) -> str:
        """What is not over, from the books: for a failing test."""
        with psycopg.connect(self.settings["DATABASE_URL"]) as books:
            found = books.execute(
                "SELECT s.id, s.status, s.next_check_at - now(), r.state, r.next_check_at - now(), r.last_error "
                "FROM sessions_app_session s LEFT JOIN sessions_app_rental r ON r.session_id = s.id "
                "WHERE s.status NOT IN ('running', 'stopped', 'failed') OR r.state NOT IN ('live', 'closed')"
            )
            return "\n".join(" ".join(map(str, row)) for row in found)

    def broken_rules(self, *, over: bool = True) -> str:
        """Of those that never bend, held against the marketplace's ledger; empty when none is."""
        given = json.dumps({"contracts": self.market.ledger(), "over": over})
        done = self.run(sys.executable, "-m", "tests.judge", given=given)
        return done.stdout + done.stderr if done.returncode else ""


@contextlib.contextmanager
def fleet(
    folder: Path, database: servers.Postgres, queue: servers.Valkey, market: SandboxProcess, **settings: str
) -> Iterator[Fleet]:
    """Migrated, and no process started yet."""
    made = Fleet(folder, database.url, queue.url, market, **settings)
    made.migrate()
    try:
        yield made
    finally:
        made.destroy()
