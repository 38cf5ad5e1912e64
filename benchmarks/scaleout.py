"""``python -m benchmarks scaleout``: whole lives of sessions with one, two and four hosts, and with workers killed.

Every host is a web process, a worker and, on the first two, a scheduler, each with a data folder of its own; they share
PostgreSQL, Valkey and a sandbox marketplace, all on this machine. The marketplace takes its time for creates and
destroys (``--latency``), and each host has few threads, as if it were small: so what limits is how many calls can wait
at once, which grows with the hosts, until this machine's processors are used up. Customers rent, wait until it runs,
end it, and wait until it is gone, without pause. In the end every rule that never bends is held against the ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from benchmarks.read import spent, spent_by
from tests import servers
from tests.fleet import Fleet, fleet, until
from tests.load import Load
from tests.sandbox import SandboxProcess

#: Of one host: tasks at a time, requests at a time, customers who ask it.
TASKS, REQUESTS, CUSTOMERS = 6, 16, 10
SETTINGS = {
    "PROVIDER_PACE": "0", "SSH_CHECK_SECONDS": "0.5", "LISTING_LAG_SECONDS": "5", "INVENTORY_REFRESH_SECONDS": "5",
    "API_RATE_PER_MINUTE": "0",
}  # fmt: skip
#: Transactions that wrote so far (only those get a number), and bytes of what a session leaves behind.
BOOKS = """
    SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
           (SELECT sum(pg_total_relation_size(oid)) FROM pg_class
            WHERE relkind = 'r' AND relname ~ '^(sessions_app|billing|common)_')
"""


@dataclass(frozen=True)
class Measured:
    hosts: int
    kills: int
    #: From the create to the proof that the machine is gone, per second.
    lives_per_second: float
    create_median: float
    create_p95: float
    to_running_median: float
    #: Processor time of one life, of all that takes part, marketplace and customers included.
    cpu_per_life: float
    #: Of the broker's own processes (unknown where some were killed), transactions that write, and what its tables grew
    #: by. What an idle broker does (ticks, sweeps, an inventory every five seconds) is in the first two.
    broker_cpu_per_life: float | None
    commits_per_life: float
    kilobytes_per_life: float
    load: float
    #: Answers that the API does not have, and rules that were broken.
    improper: int
    broken: str


@dataclass(frozen=True)
class Spent:
    """So far, since everything was started."""

    at: float
    cpu: float
    broker_cpu: float
    commits: int
    kilobytes: float

    @classmethod
    def now(cls, made: Fleet, database_url: str) -> Spent:
        with psycopg.connect(database_url) as books:
            row = books.execute(BOOKS).fetchone()
        assert row is not None
        groups = [process.pid for process in made.processes.values()]
        return cls(time.monotonic(), spent(), spent_by(groups), int(row[0]), float(row[1]) / 1024)


class Lives(Load):
    """Customers who see each session through to its end."""

    def __init__(self, made: Fleet, names: list[str]) -> None:
        super().__init__([made.ports[name] for name in names], [], CUSTOMERS * len(names))
        self.made_by = made
        self.lives: list[float] = []
        self.creates: list[float] = []
        self.boots: list[float] = []
        self._fresh = deque(made.offers(names[0], 400))
        self._used = set(self._fresh)
        self._name = names[0]
        self._choosing = threading.Lock()

    def _offer(self) -> str:
        with self._choosing:
            while not self._fresh:
                found = self.made_by.offers(self._name, 400)
                self._fresh.extend(offer for offer in found if offer not in self._used)
                self._used.update(found)
            return self._fresh.popleft()

    def _run(self, number: int) -> None:
        try:
            while not self._stop.is_set():
                self._live(f"customer-{number}")
        except BaseException as error:  # noqa: BLE001 - told when the load stops
            self._failed.append(error)

    def _live(self, customer: str) -> None:
        body = {"consumer_id": customer, "offer_id": self._offer(), "workload_type": "batch", "reservation_hours": 1,
                "ssh_key_type": "ed25519"}  # fmt: skip
        began = time.monotonic()
        answer = self._insist("POST", "/sessions", body, Idempotency_Key=str(uuid.uuid4()), Prefer="wait=30")
        if answer.status != 201:
            return
        session_id = str(answer.body["session"]["id"])
        self.made.append(session_id)
        created = time.monotonic()
        while self._insist("GET", f"/sessions/{session_id}").body["status"] in ("pending", "provisioning"):
            if self._stop.wait(0.5):
                return
        runs = time.monotonic()
        while self._insist("DELETE", f"/sessions/{session_id}", Prefer="wait=30").status == 202:
            if self._stop.wait(0.2):
                break
        self.ended.append(session_id)
        self.creates.append(created - began)
        self.boots.append(runs - began)
        self.lives.append(time.monotonic())


def measure(hosts: int, seconds: float, latency: float, kill_every: float, folder: Path) -> Measured:
    options = {"boot_seconds": 0.5, "credit": 1_000_000, "offers": 1500}
    with (
        servers.postgres_server() as database,
        servers.valkey_server() as queue,
        SandboxProcess(folder / "market", **options) as market,
        fleet(folder, database, queue, market, **SETTINGS) as made,
    ):
        names = [f"web-{number}" for number in range(hosts)]
        for number, name in enumerate(names):
            made.start(name, "--threads", str(REQUESTS))
            made.start(f"worker-{number}", "--concurrency", str(TASKS))
            if number < 2:
                made.start(f"beat-{number}")
        for name in names:
            made.wait_ready(name)
        for operation in ("create", "destroy"):
            market.fault("slow", operation=operation, seconds=latency, times=-1)
        chance, kills = random.Random(1), 0
        with Lives(made, names) as load:
            until(lambda: len(load.lives) >= len(load._threads) // 2, "the first lives to end", 180, 0.2)
            before = Spent.now(made, database.url)
            began = before.at
            while time.monotonic() - began < seconds:
                time.sleep(min(kill_every or seconds, max(seconds - (time.monotonic() - began), 0)))
                if kill_every and time.monotonic() - began < seconds:
                    victim = f"worker-{chance.randrange(hosts)}"
                    made.kill(victim)
                    made.start(victim, "--concurrency", str(TASKS))
                    kills += 1
            after, busy = Spent.now(made, database.url), os.getloadavg()[0]
            took = after.at - began
            lives = sum(began <= at <= began + took for at in load.lives)
            load.stop()
            market.clear_faults()
            load.end_all(180)
            broken = made.broken_rules()
        each = max(lives, 1)
        return Measured(
            hosts, kills, round(lives / took, 2), round(statistics.median(load.creates), 2),
            round(statistics.quantiles(load.creates, n=20)[-1], 2), round(statistics.median(load.boots), 2),
            round((after.cpu - before.cpu) / each, 3),
            None if kills else round((after.broker_cpu - before.broker_cpu) / each, 3),
            round((after.commits - before.commits) / each, 1), round((after.kilobytes - before.kilobytes) / each, 1),
            round(busy, 1), len(load.improper()), broken,
        )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaleout")
    parser.add_argument("--hosts", default="1,2,4", help="numbers of hosts, with commas")
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--latency", type=float, default=2.0, help="seconds that the marketplace takes to answer")
    parser.add_argument("--kill-every", type=float, default=6, help="of the last run, in which workers are killed")
    parser.add_argument("--json", type=Path, help="write the results there")
    asked = parser.parse_args(arguments or [])
    rows = [(int(number), 0.0) for number in asked.hosts.split(",")]
    if asked.kill_every:
        rows.append((2, asked.kill_every))
    results = []
    for hosts, kill_every in rows:
        with tempfile.TemporaryDirectory(prefix="gpubroker-scaleout-") as folder:
            one = measure(hosts, asked.seconds, asked.latency, kill_every, Path(folder))
        results.append(one)
        print(
            f"  {one.hosts} hosts{f', {one.kills} workers killed' if one.kills else '':<22} "
            f"{one.lives_per_second:>6.2f} lives/s  create {one.create_median:.2f} s, p95 {one.create_p95:.2f} s  "
            f"running after {one.to_running_median:.2f} s  CPU {one.cpu_per_life:.3f} s a life, the broker's "
            f"{one.broker_cpu_per_life or '?'} s  {one.commits_per_life:g} commits  {one.kilobytes_per_life:g} KB  "
            f"load {one.load}  "
            f"{'rules hold' if not one.broken and not one.improper else f'BROKEN: {one.improper} {one.broken}'}",
            flush=True,
        )
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")
    if any(one.broken or one.improper for one in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
