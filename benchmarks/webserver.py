"""``python -m benchmarks webserver``: the web server as configured, and other ways to configure it, with ``wrk``.

* Requests a second and their tail, with one and two processes, few and many threads, with connections that are kept
  and new ones: for an answer at hand, and for one that Django and PostgreSQL make.
* The same beside two hundred clients that never finish their request.
* From SIGTERM to the end: idle, with connections that are kept, and with a create that waits for its verdict.

``--against "COMMAND"`` measures another server of the same application: ``{port}`` is put in, e.g.
``--against "gunicorn --bind 127.0.0.1:{port} --workers 2 --threads 32 gpubroker.wsgi"`` (not a dependency of ours).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.read import Deployment, numbers, spent
from tests import servers
from tests.stack import ROOT, command

CONNECTIONS = 16
SLOW_CLIENTS = 200
KNOWN, MADE = "/api/v1/inventory?limit=50", "/api/v1/sessions/{session}"
#: Processes and threads: as configured first.
SHAPES = ((2, 32), (1, 32), (1, 4), (2, 4), (2, 128))


@dataclass(frozen=True)
class Measured:
    server: str
    what: str
    requests_per_second: float
    median_ms: float
    p99_ms: float
    failed: int
    cpu_ms: float
    load: float


@contextlib.contextmanager
def served(deployment: Deployment, words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """That server, once it is ready."""
    process = subprocess.Popen(
        words, env=deployment.environment(API_AUTH="open"), cwd=ROOT, stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while deployment.ask("/ready")[0] != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{shlex.join(words)} does not become ready")
            time.sleep(0.1)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def rate(deployment: Deployment, server: str, what: str, path: str, seconds: float, *options: str) -> Measured:
    for _ in range(40):
        deployment.ask(path)
    load, before = os.getloadavg()[0], spent()
    words = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "--timeout", "10s", *options]
    printed = subprocess.run(
        [*words, f"http://127.0.0.1:{deployment.port}{path}"], capture_output=True, text=True, check=True
    ).stdout
    per_second, median, tail, failed = numbers(printed)
    cpu = (spent() - before) * 1000 / max(per_second * seconds, 1)
    one = Measured(server, what, per_second, median, tail, failed, round(cpu, 3), round(load, 1))
    print(
        f"  {server:<34} {what:<34} {per_second:>8,.0f}/s  p50 {median:>7.2f} ms  p99 {tail:>8.2f} ms  "
        f"{failed} failed  CPU {one.cpu_ms:.3f} ms  load {one.load}",
        flush=True,
    )
    return one


@contextlib.contextmanager
def slow_clients(port: int) -> Iterator[None]:
    """Half of them stop in the middle of the headers, half in the middle of a body."""
    held = []
    for number in range(SLOW_CLIENTS):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        text = "POST /api/v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection.sendall((text + ("Content-Length: 500\r\n\r\n{" if number % 2 else "")).encode())
        held.append(connection)
    try:
        yield
    finally:
        for connection in held:
            connection.close()


def to_its_end(deployment: Deployment, words: Sequence[str], kept: int) -> float:
    """Seconds from SIGTERM to the last process, with so many connections that were used once and are kept."""
    with served(deployment, words) as process:
        connections = []
        for _ in range(kept):
            connection = socket.create_connection(("127.0.0.1", deployment.port), timeout=10)
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            connection.recv(4096)
            connections.append(connection)
        began = time.monotonic()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(90)
        took = time.monotonic() - began
        for connection in connections:
            connection.close()
    return took


def of(deployment: Deployment, name: str, words: Sequence[str], session: str, seconds: float) -> list[Measured]:
    """Everything about one way to serve."""
    made = MADE.format(session=session)
    with served(deployment, words):
        results = [
            rate(deployment, name, "at hand, kept connections", KNOWN, seconds),
            rate(deployment, name, "made, kept connections", made, seconds),
            rate(deployment, name, "made, new connections", made, seconds, "-H", "Connection: close"),
        ]
        try:
            with slow_clients(deployment.port):
                results.append(rate(deployment, name, f"made, {SLOW_CLIENTS} slow clients", made, seconds))
        except OSError as error:
            print(f"  {name:<34} with {SLOW_CLIENTS} slow clients: {error}", flush=True)
        except RuntimeError:
            print(f"  {name:<34} with {SLOW_CLIENTS} slow clients: nobody else was answered", flush=True)
    for kept in (0, 50):
        print(f"  {name:<34} stops with {kept} kept connections in {to_its_end(deployment, words, kept):.1f} s")
    return results


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks webserver")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of our own ways to configure it")
    parser.add_argument("--against", action="append", default=[], help="a command that serves gpubroker.wsgi on {port}")
    parser.add_argument("--json", type=Path, help="write the results there")
    asked = parser.parse_args(arguments or [])
    if shutil.which("wrk") is None:
        print("wrk is not installed: apt-get install wrk", file=sys.stderr)
        raise SystemExit(1)
    results: list[Measured] = []
    with (
        tempfile.TemporaryDirectory(prefix="gpubroker-web-") as folder,
        servers.postgres() as database_url,
        servers.valkey() as redis_url,
    ):
        deployment = Deployment(Path(folder), database_url, redis_url)
        deployment.run(*command("migrate"))
        facts: dict[str, Any] = deployment.books("sessions")
        deployment.books("offers", "1000")
        ways = [
            (f"granian, {processes} x {threads} threads",
             command("web", "--workers", str(processes), "--threads", str(threads)))
            for processes, threads in SHAPES[: asked.shapes]
        ]  # fmt: skip
        ways += [(words.split()[0], shlex.split(words.format(port=deployment.port))) for words in asked.against]
        for name, words in ways:
            results += of(deployment, name, words, facts["session"], asked.seconds)
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
