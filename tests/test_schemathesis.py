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

from gpubroker.openapi import operations
from tests.fixtures import WithSchema
from tests.stack import Stack, gpubroker, running
from tests.test_crash import built_in_ledger, until

# All of it on one worker: the last test looks at what the others left.
pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("schemathesis")]
SETTINGS = {
    "API_RATE_PER_MINUTE": "0", "CREATE_WAIT_SECONDS": "3", "DESTROY_WAIT_SECONDS": "3", "PROVIDER_PACE": "0.05",
    "LOG_LEVEL": "warning", "API_AUTH": "key",
}  # fmt: skip
#: Off, because it cannot be true here: a session that was destroyed stays to be seen (use_after_free); and that an
#: offer has so much disk, that a text is an SSH key, a number has few digits, a date is not before another or a year
#: after it, no schema can say, nor what a provider does not have (positive_data_acceptance). So that one holds for what
#: only reads and asks for none of these; an unknown id is 404.
CONFIG = """\
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 501, 502, 503, 504]
use_after_free.enabled = false
positive_data_acceptance.enabled = false

[[operations]]
include-method = "GET"
exclude-operation-id = ["session_diagnostics", "session_logs", "get_costs", "get_offer", "list_offers", "idle_waste"]
exclude-path-regex = "^/api/v1/providers/"
checks.positive_data_acceptance.enabled = true
checks.positive_data_acceptance.expected-statuses = ["2xx", 404]
"""


ORDER = {"consumer_id": "fuzz", "workload_type": "batch", "reservation_hours": 2, "ssh_key_type": "ed25519"}
#: What the links of a running session answer to the examples of the schema.
EXPECTED = {
    "get_session": 200, "session_events": 200, "session_diagnostics": 200, "session_heartbeat": 401,
    "extend_session": 200, "get_costs": 200, "session_done": 200,
}  # fmt: skip


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
def broker(tmp_path_factory: pytest.TempPathFactory, with_schema: WithSchema) -> Iterator[Broker]:
    data_dir = with_schema(tmp_path_factory.mktemp("schemathesis") / "data")
    with running(data_dir, 0, **SETTINGS) as stack:
        stack.wait_ready()
        found = Broker(stack, gpubroker("key", "create", "--staff", data_dir=data_dir).stdout.strip())
        assert found.key.startswith("gpb_")
        until(lambda: found.call("GET", "/api/v1/inventory")[1]["total"] > 50, "an inventory", 120)
        until(lambda: found.call("GET", "/api/v1/templates")[1]["count"] > 5, "the templates", 120)
        yield found


@pytest.fixture(scope="module")
def schema(broker: Broker) -> dict[str, Any]:
    """As it is where a key is asked for: none of the operations that take one does without."""
    found: dict[str, Any] = broker.call("GET", "/api/schema")[1]
    for _, _, operation in operations(found):
        if {"headerKey": []} in operation.get("security", []):
            operation["security"] = [{"bearerKey": []}, {"headerKey": []}]
    return found


def schemathesis(broker: Broker, schema: dict[str, Any], folder: Path, mode: str, phases: str, *more: str) -> None:
    """One run of its command line, reproducible by the seed; a finding is the failure's text."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    (folder / "schema.json").write_text(json.dumps(schema))
    run = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", "schema.json", "--no-color",
            "--url", f"http://127.0.0.1:{broker.stack.port}", "--mode", mode, "--phases", phases, "--seed", "7",
            "-H", f"X-API-Key: {broker.key}", "-H", "Prefer: wait=2",
            "--continue-on-failure", "--suppress-health-check", "all", "--generation-database", "none",
            "--generation-with-security-parameters", "false", "--generation-allow-x00", "false", *more,
        ],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, f"{run.stdout[-12_000:]}\n{run.stderr[-2_000:]}"
    assert " passed" in run.stdout


def test_valid_requests(broker: Broker, schema: dict[str, Any], tmp_path: Path) -> None:
    schemathesis(broker, schema, tmp_path, "positive", "examples,coverage,fuzzing", "-n", "2")


def test_invalid_requests(broker: Broker, schema: dict[str, Any], tmp_path: Path) -> None:
    """Not DELETE: its only input is an id, and every text may be one."""
    schemathesis(broker, schema, tmp_path, "negative", "coverage,fuzzing", "-n", "2", "--exclude-method", "DELETE")


def rent(broker: Broker, **changes: Any) -> dict[str, Any]:
    """The answer of a create that went well: the cheapest offer that is still to be had."""
    for offer in broker.call("GET", "/api/v1/inventory?limit=20")[1]["offers"]:
        status, made = broker.call("POST", "/api/v1/sessions", {**ORDER, "offer_id": offer["id"], **changes})
        if status == 201:
            found: dict[str, Any] = made
            return found
    raise AssertionError("no offer could be rented")


def test_every_link_of_a_session_leads_on(broker: Broker, schema: dict[str, Any]) -> None:
    """Each in turn, the two that end it last; what is documented is what is answered."""
    made = rent(broker)
    session_id = made["session"]["id"]
    path = f"/api/v1/sessions/{session_id}"
    until(lambda: broker.call("GET", path)[1]["status"] == "running", "the session runs", 120)
    links = schema["paths"]["/api/v1/sessions"]["post"]["responses"]["201"]["links"]
    by_id = {operation["operationId"]: (method, path, operation) for path, method, operation in operations(schema)}
    followed = {}
    for name in sorted(links, key=lambda name: (*map(name.__eq__, ("destroy_session", "session_done")), name)):
        method, template, operation = by_id[links[name]["operationId"]]
        query = f"?session_id={session_id}" if "query.session_id" in links[name]["parameters"] else ""
        answer = broker.call(method.upper(), template.format(session_id=session_id) + query, body_of(operation))
        assert str(answer[0]) in operation["responses"], (name, answer)
        followed[name] = answer[0]
    assert {name: status for name, status in followed.items() if name in EXPECTED} == EXPECTED
    assert followed["destroy_session"] in (200, 202)
    until(lambda: broker.call("GET", path)[1]["status"] == "stopped", "the session is over", 120)


def body_of(operation: dict[str, Any]) -> Any:
    """The first example of its request, if it takes one."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    examples = list(content.get("examples", {}).values())
    return examples[0]["value"] if examples else content.get("example")


def test_a_walk_along_the_links(broker: Broker, schema: dict[str, Any], tmp_path: Path) -> None:
    """From the inventory to a session, and on wherever chance leads: get, extend, done, delete, ..."""
    listing = schema["paths"]["/api/v1/inventory"]["get"]
    link = {
        "operationId": "create_session",
        "requestBody": {**ORDER, "offer_id": "$response.body#/offers/0/id"},
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
    # Where it went is chance; that it did go is not.
    assert broker.call("GET", "/api/v1/sessions?consumer_id=fuzz")[1]["total"] > before


def test_no_machine_is_left(broker: Broker) -> None:
    """The last one of this file: whatever the runs made is given back, by the marketplace's own ledger."""
    broker.end_everything()
    until(lambda: broker.alive() == [], "every machine is gone", 120)
    statuses = {session["status"] for session in broker.call("GET", "/api/v1/sessions")[1]["sessions"]}
    assert statuses <= {"stopped", "failed"}
    assert broker.stack.process.poll() is None
