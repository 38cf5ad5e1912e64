"""I10 for a whole run: every secret that it used is looked for in everything that it wrote."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.sandbox import SandboxProcess
from tests.stack import Stack, gpubroker, running
from tests.test_crash import until
from tests.test_schemathesis import Broker

pytestmark = pytest.mark.timeout(300)
LINE = {"text": re.compile(r"^\d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR) "), "json": re.compile(r'^\{.*"level": ?"')}


def environment_of(pid: int) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return {name: value for name, _, value in pairs}


def lines_of(pem: str) -> list[str]:
    """What is secret in a private key: its full lines, without the two that begin and the one that ends all keys."""
    return [line for line in pem.strip().splitlines()[2:-1] if len(line) > 60]


def brokers_own_key(data_dir: Path, key: str) -> str:
    with closing(sqlite3.connect(f"file:{data_dir / 'gpubroker.sqlite3'}?mode=ro", uri=True)) as books:
        (sealed,) = books.execute("SELECT broker_key_sealed FROM sessions_app_rental").fetchone()
    return Fernet(key).decrypt(sealed.encode()).decode()


def used(broker: Broker, market: SandboxProcess, given: dict[str, str]) -> dict[str, str]:
    """Rent, use, rekey and give back; every secret that came up, by what it is."""
    stack, found = broker.stack, dict(given)
    shown = re.search(r"with password (\S+)", stack.output())
    assert shown is not None
    found["the admin's password"] = shown[1]
    queue = re.search(r"redis://:([^@]+)@", environment_of(stack.child("web"))["REDIS_URL"])
    assert queue is not None
    found["the queue's password"] = queue[1]
    found["a staff key"] = broker.key
    until(lambda: broker.call("GET", "/api/v1/inventory")[1]["total"] > 20, "an inventory", 120)
    offer = broker.call("GET", "/api/v1/inventory?limit=1&min_vram=8")[1]["offers"][0]["id"]
    order = {"consumer_id": "lab", "offer_id": offer, "workload_type": "batch", "reservation_hours": 1}
    status, made = broker.call("POST", "/api/v1/sessions", order)
    assert status == 201
    path = f"/api/v1/sessions/{made['session']['id']}"
    until(lambda: broker.call("GET", path)[1]["status"] == "running", "the session runs", 120)
    found |= {f"the session's key, line {n}": line for n, line in enumerate(lines_of(made["ssh_private_key"]))}
    own = brokers_own_key(stack.data_dir, given["ENCRYPTION_KEYS"])
    found |= {f"the broker's key, line {n}": line for n, line in enumerate(lines_of(own))}
    token = market.ledger()[-1]["env"]["GPUBROKER_AGENT_TOKEN"]
    found["the agent's token"] = token
    beat = {"agent_token": token, "gpu_utilization": 50, "memory_used_mb": 10, "ssh_connections": 1}
    assert broker.call("POST", f"{path}/heartbeat", beat)[0] == 200
    assert broker.call("POST", f"{path}/heartbeat", {**beat, "memory_used_mb": token})[0] == 400
    status, rekeyed = broker.call("POST", f"{path}/rekey", {"ssh_key_type": "ed25519"})
    assert status == 200
    found |= {f"the other key, line {n}": line for n, line in enumerate(lines_of(rekeyed["ssh_private_key"]))}
    status, key = broker.call("POST", "/api/v1/keys", {"consumer_id": "lab"})
    assert status == 201
    found["a consumer's key"] = key["api_key"]
    found["its secret part"] = key["api_key"].rpartition("_")[2]
    # Where a secret has no business: in a path, a query, a wrong header.
    broker.call("GET", f"/api/v1/sessions/{key['api_key']}")
    broker.call("GET", f"/api/v1/sessions?consumer_id={token}")
    Broker(stack, key["api_key"][:-1] + "q").call("GET", "/api/v1/sessions")
    assert broker.call("DELETE", path)[0] in (200, 202)
    until(lambda: market.alive() == [], "the machine is given back", 120)
    return found


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_of_a_whole_run_is_written(tmp_path: Path, log_format: str) -> None:
    given = {
        "VASTAI_API_KEY": secrets.token_hex(32), "SECRET_KEY": secrets.token_urlsafe(48),
        "ENCRYPTION_KEYS": Fernet.generate_key().decode(),
    }  # fmt: skip
    data_dir = tmp_path / "data"
    with SandboxProcess(tmp_path / "market", api_key=given["VASTAI_API_KEY"], offers=60) as market:
        settings: dict[str, Any] = {
            **given,
            "VASTAI_BASE_URL": market.url,
            "PROVIDER_PACE": "0.05",
            "SSH_CHECK_SECONDS": "0.5",
        }
        with running(data_dir, API_AUTH="key", LOG_LEVEL="debug", LOG_FORMAT=log_format, **settings) as stack:
            stack.wait_ready()
            key = gpubroker("key", "create", "--staff", data_dir=data_dir, **settings).stdout.strip()
            found = used(Broker(stack, key), market, given)
            assert stack.stop() == 0
            seen = everything(stack, log_format)
    assert {name for name, secret in found.items() if len(secret) < 16} == set()
    assert len(found) > 30
    assert {name for name, secret in found.items() if secret in seen["logs"]} == set()
    # The first admin's password and key are shown on the terminal, once, and nothing else is.
    on_terminal = {name for name, secret in found.items() if secret in seen["terminal"]}
    assert on_terminal == {"the admin's password"}


def everything(stack: Stack, log_format: str) -> dict[str, str]:
    """What the run wrote, after a look that it is the run's: each process has its lines, in the form asked for."""
    logs = {path.name: path.read_text(errors="replace") for path in (stack.data_dir / "log").iterdir()}
    for name in ("web.log", "worker.log"):
        lines = [line for line in logs[name].splitlines() if LINE[log_format].search(line)]
        assert len(lines) > 5, logs[name][:2000]
    everywhere = "".join(logs.values())
    for word in ("sess-", "request_id", "session_id", "DEBUG", "API key gpb_"):
        assert word in everywhere, word
    return {"logs": everywhere, "terminal": stack.output()}


def test_the_search_finds_what_is_there() -> None:
    """It must be able to fail: a key's lines are those that a careless log line would show."""
    secret = ["A" * 70, "B" * 64]
    pem = "\n".join(["-----BEGIN X-----", "C" * 70, *secret, "short", "-----END X-----", ""])
    assert lines_of(pem) == secret
    assert [line for line in lines_of(pem) if line in json.dumps({"message": pem})] == secret
