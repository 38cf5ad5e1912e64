"""The promises at scale, on the embedded stack against a sandbox of its own; books and marketplace are filled at once.

* A thousand machines' SSH servers open in the same moment: from the last one's opening to the last session running.
* A thousand sessions expire in the same second: from then to each destroy in the provider's own ledger, with calls as
  quick as they come, and spaced as the vendor wants them.
* One tick of the driver over ten thousand running sessions, some of them due; one sweep of their machines.

``SCALE`` in the environment sets another number than a thousand.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.lifecycle import call, until
from benchmarks.report import Result, show
from gpubroker.common import ids, sshkeys
from providers.labels import make_label
from tests.sandbox import SandboxProcess
from tests.stack import ROOT, Stack, environment, gpubroker, running

MANY = int(os.environ.get("SCALE", "1000"))
DEPLOYMENT = "benchmark"
#: Sandbox seconds until a machine's SSH answers; they pass at once when the benchmark says so.
BOOT_SECONDS = 3600.0
#: The first sweep meets everybody for the first time.
READY_SECONDS = 180.0


def machines(market: SandboxProcess) -> dict[str, Any]:
    """``MANY`` machines with our labels, which accept one key."""
    pair = sshkeys.generate("ed25519", comment="benchmark")
    status, answer = market.api("POST", "/api/v0/ssh/", {"ssh_key": pair.public})
    if status != 200:
        raise RuntimeError(f"no account key: {answer}")
    for _ in range(MANY):
        market.foreign(make_label(DEPLOYMENT, ids.new_session_id(), 1))
    contracts = [{"id": each["id"], "label": each["label"]} for each in market.alive()]
    return {"contracts": contracts, "public_key": pair.public, "private_key": pair.private}


def books(what: str, data_dir: Path, given: Any = None, **settings: str) -> str:
    """Run :mod:`benchmarks.books` in the environment of a stack that is not running; what it printed."""
    data_dir.mkdir(exist_ok=True)
    migrated = gpubroker("migrate", data_dir=data_dir, port=8080, prefix=(), **settings)
    if migrated.returncode:
        raise RuntimeError(migrated.stderr)
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.books", what],
        env=environment(data_dir, 8080, **settings),
        cwd=ROOT,
        input=json.dumps(given),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def count(stack: Stack, status: str) -> int:
    with sqlite3.connect(stack.data_dir / "gpubroker.sqlite3", timeout=20) as rows:
        found: int = rows.execute("SELECT count(*) FROM sessions_app_session WHERE status = ?", [status]).fetchone()[0]
    return found


def boots(stack: Stack, market: SandboxProcess) -> float:
    """Seconds from the last SSH server's opening to the last session running."""
    market.advance(BOOT_SECONDS)
    until(lambda: len(market.admin("GET", "health")["ssh"]) == MANY, "all SSH servers to open", 60)
    opened = time.monotonic()
    until(lambda: count(stack, "running") == MANY, f"{MANY} sessions to run", 240, 0.2)
    return time.monotonic() - opened


def ends(stack: Stack, market: SandboxProcess, seconds: float) -> list[float]:
    """Let all of them expire in two seconds; how long after that each destroy is in the ledger."""
    at = time.time() + 2
    moment = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    with sqlite3.connect(stack.data_dir / "gpubroker.sqlite3", timeout=20) as rows:
        rows.execute(
            "UPDATE sessions_app_session SET expires_at = ?, next_check_at = ? WHERE status = 'running'",
            [moment, moment],
        )
    # Seldom: the ledger of a thousand machines is work for the marketplace too.
    until(lambda: not market.alive(), f"{MANY} machines to be destroyed", seconds, 2.0)
    shift = market.admin("GET", "health")["now"] - time.time()
    return sorted(each["destroyed_at"] - shift - at for each in market.ledger())


def cpu_seconds(pid: int) -> float:
    """Of one process so far, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Spent:
    """CPU seconds of the worker and of the marketplace since it was made: what a loaded machine does not change."""

    def __init__(self, stack: Stack, market: SandboxProcess) -> None:
        self._pids = {"worker": stack.child("worker"), "marketplace": market.pid}
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}

    def results(self, what: str) -> list[Result]:
        return [
            Result(f"{what}: CPU of the {name}", cpu_seconds(pid) - self._before[name], "s")
            for name, pid in self._pids.items()
        ]


def at_once(folder: Path) -> list[Result]:
    """Boots, then ends, with nothing that spaces the calls."""
    options = {"boot_seconds": BOOT_SECONDS, "pace": 0, "credit": 1_000_000, "offers": 2 * MANY}
    with SandboxProcess(folder / "market", **options) as market:
        settings = of(market, "0")
        books("boots", folder / "data", machines(market), **settings)
        with running(folder / "data", 0, LOG_LEVEL="warning", **settings) as stack:
            stack.wait_for("GPU Broker is ready", READY_SECONDS)
            until(lambda: call(stack, "GET", "/inventory")["total"] > 100, "an inventory")
            spent = Spent(stack, market)
            booted = boots(stack, market)
            cpu = spent.results(f"{MANY} boots at once")
            spent = Spent(stack, market)
            ended = ends(stack, market, 120)
            cpu += spent.results(f"{MANY} expiring at once")
    in_time = ended[int(len(ended) * 0.99) - 1]
    return [
        Result(f"{MANY} boots at once: SSH answers to the last running", booted, "s", 30.0),
        Result(f"{MANY} expiring at once, no pace: destroyed, median", statistics.median(ended), "s"),
        Result(f"{MANY} expiring at once, no pace: destroyed, 99 %", in_time, "s", 3.0),
        Result(f"{MANY} expiring at once, no pace: destroyed, last", ended[-1], "s"),
        *cpu,
    ]


def at_the_vendors_pace(folder: Path) -> list[Result]:
    """Ends of running sessions, every call spaced as published."""
    options = {"boot_seconds": 0.1, "pace": 1, "credit": 1_000_000, "offers": 2 * MANY}
    with SandboxProcess(folder / "market", **options) as market:
        settings = of(market, "1")
        books("runs", folder / "data", machines(market), **settings)
        with running(folder / "data", 0, LOG_LEVEL="warning", **settings) as stack:
            stack.wait_for("GPU Broker is ready", READY_SECONDS)
            ended = ends(stack, market, 180)
    return [Result(f"{MANY} expiring at once, vendor's pace: destroyed, last", ended[-1], "s", 90.0)]


def of(market: SandboxProcess, pace: str) -> dict[str, str]:
    return {
        "VASTAI_API_KEY": market.api_key,
        "VASTAI_BASE_URL": market.url,
        "PROVIDER_PACE": pace,
        "DEPLOYMENT_ID": DEPLOYMENT,
        "ORPHAN_GRACE_SECONDS": "3600",
    }


def ticks(folder: Path) -> list[Result]:
    settings = {"VASTAI_API_KEY": "none", "DEPLOYMENT_ID": DEPLOYMENT, "LOG_LEVEL": "warning"}
    both: list[list[float]] = json.loads(books("ticks", folder / "data", **settings))
    spent = [seconds for seconds, _ in both]
    return [
        Result("tick over 10,000 live sessions, median", statistics.median(spent) * 1000, "ms", 200.0),
        Result("tick over 10,000 live sessions, worst", max(spent) * 1000, "ms", 200.0),
        Result("tick over 10,000 live sessions: CPU, median", statistics.median(cpu for _, cpu in both) * 1000, "ms"),
    ]


def sweeps(folder: Path) -> list[Result]:
    settings = {"VASTAI_API_KEY": "none", "DEPLOYMENT_ID": DEPLOYMENT, "LOG_LEVEL": "warning"}
    (first, _), *others = json.loads(books("sweeps", folder / "data", **settings))
    return [
        Result("sweep of 10,000 live machines, the first", first, "s"),
        Result("sweep of 10,000 live machines, median of the others", statistics.median(s for s, _ in others), "s"),
        Result("sweep of 10,000 live machines: CPU, median", statistics.median(cpu for _, cpu in others), "s"),
    ]


def main() -> None:
    results: list[Result] = []
    for part in (ticks, sweeps, at_once, at_the_vendors_pace):
        with tempfile.TemporaryDirectory(prefix="gpubroker-scale-") as folder:
            results += part(Path(folder))
    show("scale", results)
