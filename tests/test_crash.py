"""I9: SIGKILL of everything during create, boot and destroy, then a new start: no machine left, no session stuck."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import WithSchema
from tests.sandbox import SandboxProcess
from tests.stack import Stack, running

QUICK = {"LISTING_LAG_SECONDS": "3", "PROVIDER_PACE": "0.05", "SSH_CHECK_SECONDS": "0.5", "LOG_LEVEL": "warning"}


def call(stack: Stack, method: str, path: str, body: Any = None, wait: int = 20) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=40)
    try:
        payload = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", "Prefer": f"wait={wait}"}
        connection.request(method, f"/api/v1{path}", payload, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def in_background(work: Callable[[], Any]) -> threading.Thread:
    def quietly() -> None:
        with suppress(OSError, http.client.HTTPException):  # the server dies under it: that is the test
            work()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    return thread


def until(check: Callable[[], bool], what: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def offers(stack: Stack) -> list[str]:
    until(lambda: call(stack, "GET", "/inventory")[1]["total"] > 50, "an inventory")
    listed = call(stack, "GET", "/inventory")[1]["offers"]
    # One per machine: renting one slice of a machine withdraws the others.
    chosen = {offer["machine_id"]: offer["id"] for offer in reversed(listed) if (offer["disk_gb"] or 0) > 100}
    return list(chosen.values())


def order(offer: str) -> dict[str, Any]:
    return {
        "consumer_id": "crash", "offer_id": offer, "workload_type": "batch", "reservation_hours": 1,
        "ssh_key_type": "ed25519",
    }  # fmt: skip


def status_of(stack: Stack, session_id: str) -> str:
    return str(call(stack, "GET", f"/sessions/{session_id}")[1]["status"])


def sessions(stack: Stack) -> dict[str, str]:
    return {item["offer_id"]: item["id"] for item in call(stack, "GET", "/sessions")[1]["sessions"]}


def built_in_ledger(data_dir: Path) -> list[dict[str, Any]]:
    port = int((data_dir / "sandbox" / "port").read_text())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/_sandbox/ledger")
    contracts: list[dict[str, Any]] = json.loads(connection.getresponse().read())["contracts"]
    connection.close()
    return contracts


def kill_all(stack: Stack) -> None:
    for pid in stack.pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    stack.process.wait(10)
    stack.wait_gone(5)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("create_fault", ["slow", "lost_answer"])
def test_kill_everything_during_create_boot_and_destroy(
    tmp_path: Path, with_schema: WithSchema, create_fault: str
) -> None:
    with SandboxProcess(tmp_path / "market", boot_seconds=1.0, offers=90) as market:
        settings = {**QUICK, "VASTAI_API_KEY": "sandbox-key", "VASTAI_BASE_URL": market.url}
        with running(with_schema(tmp_path / "data"), 0, **settings) as first:
            first.wait_ready()
            destroying, booting, creating = offers(first)[:3]
            _, answer = call(first, "POST", "/sessions", order(destroying))
            destroyed_id = answer["session"]["id"]
            until(lambda: status_of(first, destroyed_id) == "running", "the session to be destroyed runs")
            market.settings(boot_seconds=6.0)
            _, answer = call(first, "POST", "/sessions", order(booting))
            assert answer["session"]["status"] == "provisioning"

            market.fault("slow", operation="destroy", seconds=20)
            in_background(lambda: call(first, "DELETE", f"/sessions/{destroyed_id}"))
            until(lambda: status_of(first, destroyed_id) != "running", "the destroy begins")
            late = {"seconds": 8, "after": True} if create_fault == "slow" else {}
            market.fault(create_fault, operation="create", **late)
            in_background(lambda: call(first, "POST", "/sessions", order(creating)))
            until(lambda: len(market.ledger()) == 3, "the create to take effect")
            kill_all(first)

        with running(tmp_path / "data", 0, **settings) as second:
            second.wait_ready()
            made = sessions(second)
            until(lambda: status_of(second, made[destroying]) == "stopped", "the destroyed session is over")
            for offer in (booting, creating):
                until(lambda offer=offer: status_of(second, made[offer]) == "running", f"{offer} runs")  # type: ignore[misc]
            assert len(market.ledger()) == 3  # nothing was rented twice
            for offer in (booting, creating):
                assert call(second, "DELETE", f"/sessions/{made[offer]}")[0] == 200
            assert market.alive() == []
            statuses = {item["status"] for item in call(second, "GET", "/sessions")[1]["sessions"]}
            assert statuses == {"stopped"}


@pytest.mark.timeout(300)
def test_kill_everything_with_the_built_in_marketplace(tmp_path: Path, with_schema: WithSchema) -> None:
    """The marketplace dies too; its ledger and the machines' SSH come back with it."""
    with running(with_schema(tmp_path / "data"), 0, **QUICK) as first:
        first.wait_ready()
        one, two = offers(first)[:2]
        _, answer = call(first, "POST", "/sessions", order(one))
        until(lambda: status_of(first, answer["session"]["id"]) == "running", "one runs")
        call(first, "POST", "/sessions", order(two), wait=0)
        kill_all(first)
    with running(tmp_path / "data", 0, **QUICK) as second:
        second.wait_ready()
        made = sessions(second)
        # Killed at a random instant of the create: rented and found again, or never rented; never stuck.
        until(lambda: status_of(second, made[two]) in ("running", "failed"), "two is decided")
        assert status_of(second, made[one]) == "running"
        for session_id in made.values():
            assert call(second, "DELETE", f"/sessions/{session_id}")[0] == 200
        assert [contract for contract in built_in_ledger(tmp_path / "data") if contract["alive"]] == []
        assert second.stop() == 0
        second.wait_gone(10)
