"""The promises about money, on a real PostgreSQL: what costs come to is quick to say and quick to book.

* ``/costs/summary`` over ten thousand sessions and two hundred thousand ledger rows, sixteen connections at once: with
  a meter that rests, and with one that changes four times a second.
* Booking an hour of ten thousand running rentals.
* What a budget asks: how much one consumer has spent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.lifecycle import until
from benchmarks.report import Result, show
from gpubroker.supervisor import ports
from tests import servers
from tests.stack import ROOT, command, environment, gpubroker

CONNECTIONS = 16
SECONDS = 8.0
WARM_UP = 1.5
#: Two hundred requests a second.
MOST_PER_REQUEST = 5.0


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[tuple[Path, int, dict[str, str]]]:
    """A data folder, a port, and the settings of a deployment whose empty database has its tables."""
    data, port = folder / "data", ports.free_port()
    data.mkdir()
    with servers.postgres() as database, servers.valkey() as queue:
        settings = {
            "DATABASE_URL": database, "REDIS_URL": queue, "SECRET_KEY": "benchmark" * 6, "VASTAI_API_KEY": "none",
            "ENCRYPTION_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "DEPLOYMENT_ID": "benchmark",
            "LOG_LEVEL": "error", "API_AUTH": "key",
        }  # fmt: skip
        migrated = gpubroker("migrate", data_dir=data, port=port, prefix=(), **settings)
        if migrated.returncode:
            raise RuntimeError(migrated.stderr)
        yield data, port, environment(data, port, **settings)


def books(what: str, env: dict[str, str]) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.money_books", what], env=env, cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


async def one(port: int, request: bytes, spent: list[float], deadline: float) -> None:
    """One connection that asks again as soon as it is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < deadline:
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        spent.append(time.perf_counter() - began)
    writer.close()


def asked(port: int, path: str, key: str, seconds: float) -> list[float]:
    """Milliseconds of every answer, sorted."""
    request = f"GET /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    spent: list[float] = []

    async def all_at_once() -> None:
        deadline = time.monotonic() + seconds
        await asyncio.gather(*(one(port, request, spent, deadline) for _ in range(CONNECTIONS)))

    asyncio.run(all_at_once())
    return sorted(each * 1000 for each in spent)


def told(what: str, spent: list[float]) -> list[Result]:
    rate = len(spent) / SECONDS
    return [
        Result(f"{what}: requests a second", rate, "/s"),
        Result(f"{what}: one every", 1000 / rate, "ms", MOST_PER_REQUEST),
        Result(f"{what}: median", statistics.median(spent), "ms", 60.0),
        Result(f"{what}: 99 %", spent[int(len(spent) * 0.99) - 1], "ms"),
    ]


def summaries(folder: Path) -> list[Result]:
    with broker(folder) as (_, port, env):
        filled = books("history", env)
        web = subprocess.Popen(command("web"), env=env, cwd=folder)
        try:
            until(lambda: ready(port), "the web server")
            key = filled["key"]
            asked(port, "/costs/summary", key, WARM_UP)
            resting = told("/costs/summary", asked(port, "/costs/summary", key, SECONDS))
            with changing(env):
                changed = told("/costs/summary, meter changing", asked(port, "/costs/summary", key, SECONDS))
        finally:
            web.terminate()
            web.wait()
    return [
        Result("ledger rows of 10,000 sessions", filled["rows"], "rows"),
        *resting,
        *changed,
        Result("the same summed anew", filled["summed"], "ms"),
        Result("by day", filled["by_day"], "ms"),
        Result("spent by one of ten consumers", filled["spent"], "ms"),
    ]


def ready(port: int) -> bool:
    with contextlib.suppress(OSError):
        asyncio.run(connect(port))
        return True
    return False


async def connect(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


@contextlib.contextmanager
def changing(env: dict[str, str]) -> Iterator[None]:
    """The meter changes for as long as this lasts."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.money_books", "changes"], env=env, cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        time.sleep(WARM_UP)
        yield
    finally:
        writer.communicate()


def accruing(folder: Path) -> list[Result]:
    with broker(folder) as (_, _, env):
        found = books("running", env)
    return [
        Result("an hour of 10,000 running rentals booked", found["accrue"], "s", 2.0),
        Result("the same, slowest of three hours", found["accrue_worst"], "s"),
        Result("again, with nothing due", found["accrue_again"] * 1000, "ms"),
        Result("10,000 running: everybody's month summed anew", found["summed"], "ms"),
        Result("10,000 running: spent by one of ten consumers", found["spent"], "ms"),
    ]


def main() -> None:
    results: list[Result] = []
    for part in (accruing, summaries):
        with tempfile.TemporaryDirectory(prefix="gpubroker-money-") as folder:
            results += part(Path(folder))
    show("money", results)
