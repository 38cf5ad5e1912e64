"""The promises of a session's life on the embedded stack: verdicts, boots and ends, against a sandbox of its own.

* ``POST /sessions`` returns soon after the provider's answer.
* Twenty machines boot: from the first moment that a machine's SSH port answers to ``running``.
* Five sessions expire at once: from the expiry to the destroy at the provider, by the provider's own ledger.
"""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.report import Result, show
from tests.sandbox import SandboxProcess
from tests.stack import Stack, running

BOOTS = 20
EXPIRIES = 5


def call(stack: Stack, method: str, path: str, body: Any = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=90)
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
    connection.request(method, f"/api/v1{path}", None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    value = json.loads(answer.read())
    connection.close()
    if answer.status >= 400:
        raise RuntimeError(f"{method} {path}: {answer.status} {value}")
    return value


def create(stack: Stack, offer: str) -> tuple[str, float]:
    """The session's id and when the answer was here."""
    body = {"consumer_id": "bench", "offer_id": offer, "workload_type": "benchmark", "reservation_hours": 1}
    answer = call(stack, "POST", "/sessions", body)
    return answer["session"]["id"], time.time()


def until(check: Callable[[], bool], what: str, seconds: float = 90, pause: float = 0.03) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(pause)


def offers(stack: Stack) -> list[str]:
    until(lambda: call(stack, "GET", "/inventory")["total"] > 100, "an inventory")
    # One per machine: renting one slice of a machine withdraws the others.
    chosen: dict[str, str] = {}
    for offer in call(stack, "GET", "/inventory")["offers"]:
        if offer["disk_gb"] > 100:
            chosen.setdefault(offer["machine_id"], offer["id"])
    return list(chosen.values())


def verdict_lag(stack: Stack, market: SandboxProcess, offer: str) -> float:
    """Seconds from the provider's answer to ours; the provider takes a second to answer."""
    market.fault("slow", operation="create", seconds=1.0, after=True)
    _, answered = create(stack, offer)
    made_at: float = market.ledger()[-1]["created_at"]
    return answered - (made_at + 1.0)


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
            connection.settimeout(0.5)
            return connection.recv(4).startswith(b"SSH")
    except OSError:
        return False


def boot_lags(stack: Stack, market: SandboxProcess, chosen: list[str]) -> list[float]:
    """Per session: from the machine's SSH answering to ``running`` in the API. Creates are spaced, so the first
    machines run while the last are still being asked for: both are watched from the beginning."""
    ids: dict[str, str] = {}
    answering: dict[int, float] = {}
    runs: dict[str, float] = {}
    threads = [threading.Thread(target=lambda o=offer: ids.update({o: create(stack, o)[0]})) for offer in chosen]
    threads.append(threading.Thread(target=_watch_ssh, args=(market, len(chosen), answering)))
    for thread in threads:
        thread.start()

    def all_run() -> bool:
        for session in call(stack, "GET", "/sessions?status=running&consumer_id=bench")["sessions"]:
            runs.setdefault(session["id"], time.time())
        return len(ids) == len(chosen) and all(session_id in runs for session_id in ids.values())

    until(all_run, f"{len(chosen)} sessions to run", pause=0.1)
    for thread in threads:
        thread.join()
    machines = {contract["label"].split("-")[2]: contract["id"] for contract in market.alive()}
    return [runs[item] - answering[machines[item.removeprefix("sess-")]] for item in ids.values()]


def _watch_ssh(market: SandboxProcess, count: int, answering: dict[int, float]) -> None:
    deadline = time.monotonic() + 90
    before = {contract["id"] for contract in market.alive()}
    while len(answering) < count and time.monotonic() < deadline:
        for contract in market.alive():
            known = contract["id"] in answering or contract["id"] in before
            if not known and contract["ssh_ports"] and answers(contract["ssh_ports"][0]):
                answering[contract["id"]] = time.time()
        time.sleep(0.02)


def expiry_lags(stack: Stack, market: SandboxProcess) -> list[float]:
    """Let running sessions expire in two seconds, in the same instant, and ask the ledger when each was destroyed."""
    at = time.time() + 2
    moment = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    books = sqlite3.connect(stack.data_dir / "gpubroker.sqlite3", timeout=20)
    labels = [contract["label"] for contract in market.alive()][:EXPIRIES]
    keys = ["sess-" + label.split("-")[2] for label in labels]
    marks = ",".join("?" * len(keys))
    with books:
        books.execute(
            f"UPDATE sessions_app_session SET expires_at = ?, next_check_at = ? WHERE id IN ({marks})",  # noqa: S608
            [moment, moment, *keys],
        )
    books.close()
    until(lambda: not any(c["alive"] for c in market.ledger() if c["label"] in labels), "the expired to be destroyed")
    return [contract["destroyed_at"] - at for contract in market.ledger() if contract["label"] in labels]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gpubroker-bench-") as folder:
        market = SandboxProcess(Path(folder) / "market", boot_seconds=5, pace=0.05, key_delay=0.5, credit=10_000)
        with market:
            settings = {"VASTAI_API_KEY": market.api_key, "VASTAI_BASE_URL": market.url, "PROVIDER_PACE": "0.1"}
            with running(Path(folder) / "data", 0, LOG_LEVEL="warning", **settings) as stack:
                stack.wait_ready()
                found = offers(stack)
                verdict = verdict_lag(stack, market, found[0])
                boots = boot_lags(stack, market, found[1 : BOOTS + 1])
                ends = expiry_lags(stack, market)
    show(
        "lifecycle",
        [
            Result("POST /sessions after the provider's answer", verdict, "s", 0.5),
            Result(f"SSH answers to running, median of {BOOTS}", statistics.median(boots), "s", 2.0),
            Result(f"SSH answers to running, worst of {BOOTS}", max(boots), "s"),
            Result(f"expiry to destroy, median of {EXPIRIES}", statistics.median(ends), "s", 3.0),
            Result(f"expiry to destroy, worst of {EXPIRIES}", max(ends), "s", 3.0),
        ],
    )
