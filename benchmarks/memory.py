"""``python -m benchmarks memory``: what one worker process weighs with ten thousand live sessions and a thousand boots.

PostgreSQL, Valkey, a sandbox marketplace and a real SSH server for every machine; books and marketplace are filled
before the worker starts, and offers are not listed meanwhile. Read from the kernel: the resident set (VmRSS), its peak
since the start (VmHWM), and the part that is not shared with others (PSS). Other numbers: ``--live``, ``--boots``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.report import Result, show
from benchmarks.startup_memory import pss_mb
from gpubroker.common import ids, sshkeys
from providers.labels import make_label
from tests import servers
from tests.fleet import Fleet, fleet, until
from tests.sandbox import SandboxProcess

BUDGET_MB = 300.0
#: Sandbox seconds until a machine's SSH answers; they pass at once when the benchmark says so.
BOOT_SECONDS = 3600.0
#: A complete listing of so many machines has hundreds of pages, which the provider wants spaced.
SWEEP_SECONDS = 900.0
DEPLOYMENT = "memory"
#: The marketplace needs minutes to list its offers, beside which nothing else would be measured.
NO_OFFERS = """
from datetime import timedelta
from gpubroker.common import clock
from offers import services
services.ensure_inventories(["vastai"], clock.now() + timedelta(days=1))
"""
#: Machines that the marketplace makes at a time.
TOGETHER = 200
SETTINGS = {"PROVIDER_PACE": "0.1", "DEPLOYMENT_ID": DEPLOYMENT, "ORPHAN_GRACE_SECONDS": "86400"}


def kernel_mb(pid: int, field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def machines(market: SandboxProcess, count: int, pair: sshkeys.KeyPair) -> dict[str, Any]:
    """So many more machines with our labels, as :mod:`benchmarks.books` takes them."""
    labels = [make_label(DEPLOYMENT, ids.new_session_id(), 1) for _ in range(count)]
    contracts = [
        each for first in range(0, count, TOGETHER) for each in market.foreign_all(labels[first : first + TOGETHER])
    ]
    return {"contracts": contracts, "public_key": pair.public, "private_key": pair.private}


def fill(made: Fleet, market: SandboxProcess, live: int, boots: int) -> None:
    pair = sshkeys.generate("ed25519", comment="benchmark")
    status, answer = market.api("POST", "/api/v0/ssh/", {"ssh_key": pair.public})
    if status != 200:
        raise RuntimeError(f"no account key: {answer}")
    for what, count in (("runs", live), ("boots", boots)):
        given = json.dumps(machines(market, count, pair))
        written = made.run(sys.executable, "-m", "benchmarks.books", what, given=given)
        if written.returncode:
            raise RuntimeError(written.stderr)
        if what == "runs":
            market.advance(BOOT_SECONDS)
            until(lambda: len(market.admin("GET", "health")["ssh"]) >= live, "their SSH servers", 900, 2.0)
    put_off = made.run(sys.executable, "manage.py", "shell", "-c", NO_OFFERS)
    if put_off.returncode:
        raise RuntimeError(put_off.stderr)


def running(url: str) -> int:
    with psycopg.connect(url) as books:
        row = books.execute("SELECT count(*) FROM sessions_app_session WHERE status = 'running'").fetchone()
    return int(row[0]) if row else 0


def swept(url: str) -> float:
    """Wait for a sweep of everything that begins after now; how long that took."""
    began = time.time()

    def done() -> bool:
        with psycopg.connect(url) as books:
            row = books.execute(
                "SELECT extract(epoch FROM max(last_sweep_at)) FROM sessions_app_providerwatch"
            ).fetchone()
        return bool(row and row[0] and row[0] > began)

    return until(done, "a complete sweep", SWEEP_SECONDS, 1.0)


def measure(live: int, boots: int, folder: Path) -> list[Result]:
    # Renting a machine's slice withdraws its others.
    options = {"boot_seconds": BOOT_SECONDS, "pace": 0, "credit": 10_000_000, "offers": 2 * (live + boots)}
    with (
        servers.postgres_server() as database,
        servers.valkey_server() as queue,
        SandboxProcess(folder / "market", **options) as market,
        fleet(folder, database, queue, market, **SETTINGS) as made,
    ):
        fill(made, market, live, boots)
        made.start("worker-a")
        made.start("beat-a")
        pid = made.processes["worker-a"].pid
        results = []

        def note(what: str, budget: float | None = None) -> None:
            results.append(Result(f"{what}: VmRSS", kernel_mb(pid, "VmRSS"), "MB", budget))
            results.append(Result(f"{what}: PSS", pss_mb(pid), "MB"))
            print(f"  {what}: {results[-2].value:.0f} MB, peak {kernel_mb(pid, 'VmHWM'):.0f} MB", flush=True)

        results.append(Result("a sweep, the first", swept(database.url), "s"))
        note(f"{live:,} live, {boots:,} booting, swept")
        market.advance(BOOT_SECONDS)
        began = time.monotonic()
        until(lambda: running(database.url) >= live + boots, "all of them run", 1800, 1.0)
        results.append(Result(f"{boots:,} boots at once, to the last running", time.monotonic() - began, "s"))
        note(f"{boots:,} boots just verified", BUDGET_MB)
        results.append(Result("a sweep, from one to the next's end", swept(database.url), "s"))
        note(f"{live + boots:,} live, swept", BUDGET_MB)
        results.append(Result("worker: VmHWM, the most it ever was", kernel_mb(pid, "VmHWM"), "MB", BUDGET_MB))
        return results


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory")
    parser.add_argument("--live", type=int, default=10_000)
    parser.add_argument("--boots", type=int, default=1_000)
    asked = parser.parse_args(arguments or [])
    with tempfile.TemporaryDirectory(prefix="gpubroker-memory-") as folder:
        show("memory", measure(asked.live, asked.boots, Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
