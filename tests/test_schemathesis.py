"""Schemathesis over the schema that the running stack serves: no 5xx but the documented 503, every answer as the
schema has it, invalid requests refused; and at the end no machine is left."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack import Stack, gpubroker, running
from tests.test_crash import built_in_ledger, until

pytestmark = pytest.mark.timeout(300)
SETTINGS = {
    "API_RATE_PER_MINUTE": "0", "CREATE_WAIT_SECONDS": "3", "DESTROY_WAIT_SECONDS": "3", "PROVIDER_PACE": "0.05",
    "LOG_LEVEL": "warning",
}  # fmt: skip
CONFIG = """\
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]
"""
#: What a schema cannot say: that a text is an SSH key, that an offer has that much disk. What a broker means by
#: "destroyed": the session itself stays to be seen. And the key, which the open API does not need.
NOT_CHECKED = "positive_data_acceptance,use_after_free,ignored_auth"


class Broker:
    """A running stack, spoken to with a staff key."""

    def __init__(self, stack: Stack, key: str) -> None:
        self.stack = stack
        self.key = key

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=60)
        try:
            headers = {"X-API-Key": self.key, "Content-Type": "application/json", "Accept": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def alive(self) -> list[dict[str, Any]]:
        return [contract for contract in built_in_ledger(self.stack.data_dir) if contract["alive"]]

    def end_everything(self) -> None:
        for session in self.call("GET", "/api/v1/sessions")[1]["sessions"]:
            self.call("DELETE", f"/api/v1/sessions/{session['id']}")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    data_dir = tmp_path_factory.mktemp("schemathesis") / "data"
    with running(data_dir, 0, **SETTINGS) as stack:
        stack.wait_ready()
        found = Broker(stack, gpubroker("key", "create", "--staff", data_dir=data_dir).stdout.strip())
        assert found.key.startswith("gpb_")
        until(lambda: found.call("GET", "/api/v1/inventory")[1]["total"] > 50, "an inventory")
        until(lambda: found.call("GET", "/api/v1/templates")[1]["count"] > 5, "the templates")
        yield found


@pytest.fixture(scope="module")
def schema(broker: Broker) -> dict[str, Any]:
    found: dict[str, Any] = broker.call("GET", "/api/schema")[1]
    return found


def schemathesis(broker: Broker, schema: dict[str, Any], folder: Path, mode: str, phases: str, *more: str) -> None:
    """One run of its command line, reproducible by the seed; a finding is the failure's text."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    (folder / "schema.json").write_text(json.dumps(schema))
    run = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", "schema.json", "--no-color",
            "--url", f"http://127.0.0.1:{broker.stack.port}", "--mode", mode, "--phases", phases, "--seed", "7",
            "-H", f"X-API-Key: {broker.key}", "-H", "Prefer: wait=2", "--exclude-checks", NOT_CHECKED,
            "--continue-on-failure", "--suppress-health-check", "all", "--generation-database", "none",
            "--generation-with-security-parameters", "false", "--generation-allow-x00", "false", *more,
        ],
        cwd=folder, capture_output=True, text=True, timeout=220, check=False,
    )  # fmt: skip
    assert run.returncode == 0, f"{run.stdout[-12_000:]}\n{run.stderr[-2_000:]}"
    assert " passed" in run.stdout


def test_valid_requests(broker: Broker, schema: dict[str, Any], tmp_path: Path) -> None:
    schemathesis(broker, schema, tmp_path, "positive", "examples,coverage,fuzzing", "-n", "2")


def test_invalid_requests(broker: Broker, schema: dict[str, Any], tmp_path: Path) -> None:
    """Not DELETE: its only input is an id, and every text may be one."""
    schemathesis(broker, schema, tmp_path, "negative", "coverage,fuzzing", "-n", "2", "--exclude-method", "DELETE")


def test_stateful_links(broker: Broker, schema: dict[str, Any], tmp_path: Path) -> None:
    """From the inventory to a session, and on along the schema's links: get, extend, done, delete, ..."""
    listing = schema["paths"]["/api/v1/inventory"]["get"]
    order = {"consumer_id": "fuzz", "workload_type": "batch", "reservation_hours": 2, "ssh_key_type": "ed25519"}
    link = {
        "operationId": "create_session",
        "requestBody": {**order, "offer_id": "$response.body#/offers/0/id"},
        "x-schemathesis": {"merge_body": False},
    }
    listing = {**listing, "parameters": [], "responses": {**listing["responses"]}}
    listing["parameters"] = [
        {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 60}},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 3}},
    ]
    listing["responses"]["200"] = {**listing["responses"]["200"], "links": {"rent_it": link}}
    paths = {**schema["paths"], "/api/v1/inventory": {"get": listing}}
    before = broker.call("GET", "/api/v1/sessions?consumer_id=fuzz")[1]["total"]
    where = "^/api/v1/(inventory|sessions|costs)"
    schemathesis(
        broker, {**schema, "paths": paths}, tmp_path, "positive", "stateful", "-n", "24", "--include-path-regex", where
    )
    made = broker.call("GET", "/api/v1/sessions?consumer_id=fuzz")[1]
    assert made["total"] - before >= 3
    reached = {session["status"] for session in made["sessions"]}
    assert reached & {"stopping", "stopped"}, reached
    assert len(built_in_ledger(broker.stack.data_dir)) >= 3


def test_no_machine_is_left(broker: Broker) -> None:
    """The last one of this file: whatever the runs made is given back, by the marketplace's own ledger."""
    broker.end_everything()
    until(lambda: broker.alive() == [], "every machine is gone", 60)
    statuses = {session["status"] for session in broker.call("GET", "/api/v1/sessions")[1]["sessions"]}
    assert statuses <= {"stopped", "failed"}
    assert broker.stack.process.poll() is None
