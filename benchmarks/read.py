"""Read paths with ``wrk``: 16 connections, PostgreSQL, Valkey and web processes on this machine.

``python -m benchmarks read [--seconds 5] [--workers 2] [--only PART] [--json FILE]``. Every path is measured with
``API_AUTH=open`` and with a key; limits count in both (a million a minute). Needs ``wrk`` (Debian: apt-get install
wrk).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from gpubroker.supervisor import ports
from tests import servers
from tests.stack import ROOT, command, environment

CONNECTIONS, THREADS = 16, 2
INVENTORY = "/api/v1/inventory"
#: Every request with another filter, so that no answer was printed before.
NEVER_ASKED = """
local number = 0
local thread = 0
function setup(t) t:set("thread", thread); thread = thread + 1 end
function request()
  number = number + 1
  local price = string.format("%.6f", 0.5 + thread * 0.7 + number / 1000000)
  return wrk.format("GET", "/api/v1/inventory?limit=50&min_reliability=0.85&min_vram=16&max_price=" .. price)
end
"""


@dataclass(frozen=True)
class Route:
    """One thing to read. ``target`` is requests a second, or milliseconds of the median with ``by_median``."""

    name: str
    path: str
    offers: int
    target: float
    script: str = ""
    by_median: bool = False
    #: As programs ask that take compressed answers.
    gzip: bool = False


PATHS = (
    Route("inventory, 1,000 offers", INVENTORY, 1000, 4000),
    Route("inventory, 1,000 offers, gzip", INVENTORY, 1000, 4000, gzip=True),
    Route("inventory?limit=50 of 5,000", f"{INVENTORY}?limit=50", 5000, 15_000),
    Route("inventory, a filtered page of 5,000", f"{INVENTORY}?gpu_type=rtx4090&max_price=1&limit=20", 5000, 15_000),
    Route("inventory, never asked before, of 5,000", INVENTORY, 5000, 8, NEVER_ASKED, by_median=True),
    Route("sessions/{id}", "/api/v1/sessions/{session}", 5000, 1200),
    Route("sessions?limit=50 of 10,000", "/api/v1/sessions?limit=50", 5000, 700),
    Route("costs/summary, 10,000 sessions", "/api/v1/costs/summary", 5000, 200),
)


@dataclass(frozen=True)
class Measured:
    name: str
    auth: str
    requests_per_second: float
    median_ms: float
    p99_ms: float
    #: Answers other than 2xx and 3xx, and broken connections.
    failed: int
    bytes: int
    target: float
    by_median: bool
    #: The machine's one-minute load when it began: others may be at work here.
    load: float
    #: Processor time of one request in milliseconds, of all that takes part: web, PostgreSQL, Valkey and wrk itself.
    #: What a loaded machine hardly changes.
    cpu_ms: float

    @property
    def at_most(self) -> float:
        """Requests a second that this processor time leaves room for on all cores, were nothing else at work."""
        return (os.cpu_count() or 1) * 1000 / self.cpu_ms if self.cpu_ms else 0.0

    @property
    def reached(self) -> bool:
        if self.failed:
            return False
        share = 0.8 if self.auth == "key" else 1.0
        if self.by_median:
            return self.median_ms < self.target / share
        return self.requests_per_second >= self.target * share


def spent() -> float:
    """CPU seconds so far of every live process below this one, and of those that it has waited for."""
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = _processes()
    parents = {pid: parent for pid, (parent, _, _) in alive.items()}
    below = sum(cpu for pid, (_, _, cpu) in alive.items() if _is_below(pid, parents))
    return own.ru_utime + own.ru_stime + below


def spent_by(groups: Iterable[int]) -> float:
    """CPU seconds so far of every live process in these process groups."""
    wanted = set(groups)
    return sum(cpu for _, group, cpu in _processes().values() if group in wanted)


def members(group: int) -> list[int]:
    """Every live process of a process group."""
    return [pid for pid, (_, own, _) in _processes().items() if own == group]


def _processes() -> dict[int, tuple[int, int, float]]:
    """Parent, process group and CPU seconds so far of each that lives."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                found[int(entry.name)] = int(fields[1]), int(fields[2]), cpu
    return found


def _is_below(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == os.getpid():
            return True
    return False


def wrk(url: str, seconds: float, headers: dict[str, str], script: Path) -> str:
    words = ["wrk", f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "--timeout", "10s"]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    words += ["-s", str(script)] if script.name else []
    return subprocess.run([*words, url], capture_output=True, text=True, check=True).stdout


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr] # wrk's own form
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def numbers(printed: str) -> tuple[float, float, float, int]:
    """Requests a second, median and 99th percentile in milliseconds, failures."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    median, tail = (re.search(rf"^ +{part}% +(\S+)", printed, re.MULTILINE) for part in (50, 99))
    if rate is None or median is None or tail is None:
        raise RuntimeError(f"wrk says:\n{printed}")
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", printed)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    failed = (sum(map(int, broken.groups())) if broken else 0) + (int(refused[1]) if refused else 0)
    return float(rate[1]), _milliseconds(median[1]), _milliseconds(tail[1]), failed


class Deployment:
    """PostgreSQL and Valkey of its own, books to read from, and a web server when asked."""

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self.folder, self.port = folder, ports.free_port()
        self.settings = {
            "DATABASE_URL": database_url, "REDIS_URL": redis_url, "SECRET_KEY": "x" * 50, "LOG_LEVEL": "warning",
            "ENCRYPTION_KEYS": Fernet.generate_key().decode(), "VASTAI_API_KEY": "none", "DEPLOYMENT_ID": "benchmark",
            "STARTUP_SWEEP_SECONDS": "1", "API_RATE_PER_MINUTE": "1000000",
        }  # fmt: skip

    def environment(self, **more: str) -> dict[str, str]:
        return environment(self.folder, self.port, **self.settings, **more)

    def run(self, *words: str) -> str:
        done = subprocess.run(words, env=self.environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    def books(self, *words: str) -> Any:
        return json.loads(self.run(sys.executable, "-m", "benchmarks.read_books", *words))

    @contextlib.contextmanager
    def web(self, auth: str, workers: int) -> Iterator[int]:
        """Its port, once it is ready."""
        process = subprocess.Popen(
            command("web", "--workers", str(workers)), env=self.environment(API_AUTH=auth), cwd=ROOT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while self.ask("/ready")[0] != 200:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the web server does not become ready")
                time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def ask(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()


def measure(deployment: Deployment, each: Route, auth: str, facts: dict[str, Any], seconds: float) -> Measured:
    headers = {"Accept-Encoding": "gzip"} if each.gzip else {}
    if auth == "key":
        headers["Authorization"] = f"Bearer {facts['keys']['staff']}"
    path = each.path.format(session=facts["session"])
    for _ in range(40):
        status, body = deployment.ask(path, headers)
        if status != 200:
            raise RuntimeError(f"{path}: {status} {body[:300]!r}")
    script = deployment.folder / "wrk.lua" if each.script else Path()
    if each.script:
        script.write_text(each.script)
    load, before = os.getloadavg()[0], spent()
    printed = wrk(f"http://127.0.0.1:{deployment.port}{path}", seconds, headers, script)
    rate, median, tail, failed = numbers(printed)
    if failed:
        print(printed, file=sys.stderr)
    cpu_ms = round((spent() - before) * 1000 / max(rate * seconds, 1), 4)
    return Measured(
        each.name, auth, rate, median, tail, failed, len(body), each.target, each.by_median, round(load, 2), cpu_ms
    )  # fmt: skip


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def floor(size: int, seconds: float, workers: int) -> Measured:
    """The same number of bytes from a program that does nothing else (:mod:`benchmarks.floor`)."""
    port = ports.free_port()
    words = [sys.executable, "-m", "benchmarks.floor", str(port), str(size), str(workers)]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server does not start")
            time.sleep(0.1)
        load, before = os.getloadavg()[0], spent()
        rate, median, tail, failed = numbers(wrk(f"http://127.0.0.1:{port}/", seconds, {}, Path()))
        cpu_ms = round((spent() - before) * 1000 / max(rate * seconds, 1), 4)
    finally:
        process.terminate()
        process.wait(15)
    name = f"(only to send {size:,} bytes)"
    return Measured(name, "none", rate, median, tail, failed, size, 0, False, round(load, 2), cpu_ms)


def run(seconds: float, workers: int, only: str) -> list[Measured]:
    wanted = [each for each in PATHS if only in each.name]
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="gpubroker-read-") as folder,
        servers.postgres() as database_url,
        servers.valkey() as redis_url,
    ):
        deployment = Deployment(Path(folder), database_url, redis_url)
        deployment.run(*command("migrate"))
        facts = deployment.books("sessions")
        for count in sorted({each.offers for each in wanted}):
            deployment.books("offers", str(count))
            deployment.run(sys.executable, "manage.py", "shell", "-c",
                           "from django.db import connection as c; c.cursor().execute('VACUUM ANALYZE')")  # fmt: skip
            for auth in ("open", "key"):
                with deployment.web(auth, workers):
                    for each in wanted:
                        if each.offers == count:
                            results.append(measure(deployment, each, auth, facts, seconds))
                            show(results[-1])
    printed = {each.name for each in wanted if each.path.startswith(INVENTORY) and not each.script}
    for size in sorted({each.bytes for each in results if each.auth == "open" and each.name in printed}):
        results.append(floor(size, seconds, workers))
        show(results[-1])
    return results


def show(one: Measured) -> None:
    target = f"median < {one.target:g} ms" if one.by_median else f">= {one.target:,.0f}/s"
    print(
        f"  {one.name:<40} {one.auth:<4} {one.requests_per_second:>9,.0f}/s  p50 {one.median_ms:>7.2f} ms  "
        f"p99 {one.p99_ms:>7.2f} ms  {one.bytes:>9,} B  load {one.load:>5.2f}  "
        f"CPU {one.cpu_ms:>6.3f} ms, room for {one.at_most:>7,.0f}/s  "
        f"{target}: {'reached' if one.reached else f'NOT reached, {one.failed} failed'}",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks read")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="paths whose name holds this")
    parser.add_argument("--json", type=Path, help="write the results there")
    asked = parser.parse_args(arguments or [])
    if shutil.which("wrk") is None:
        print("wrk is not installed: apt-get install wrk", file=sys.stderr)
        raise SystemExit(1)
    results = run(asked.seconds, asked.workers, asked.only)
    rows = [asdict(each) | {"reached": each.reached, "at_most": round(each.at_most)} for each in results]
    for row in rows:
        print(json.dumps({"benchmark": "read", **row}))
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
