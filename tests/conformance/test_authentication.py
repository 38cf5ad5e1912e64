"""api.md's lines on authentication: who must show a key, and what a key sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests import keys
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess
from tests.stack import gpubroker

pytestmark = pytest.mark.django_db
ORDER = {"consumer_id": "a", "offer_id": "vastai-1", "workload_type": "llm", "reservation_hours": 2}


@pytest.fixture
def closed(settings: Any) -> None:
    settings.API_AUTH = "key"


def test_the_open_api_asks_for_no_key() -> None:
    assert Client().get("/api/v1/inventory").status_code == 200


def test_a_missing_or_wrong_key_is_401_in_the_error_shape(closed: None) -> None:
    for headers in ({}, {"X-API-Key": "gpb_wrong"}, {"Authorization": "Bearer gpb_wrong"}):
        answer = Client().get("/api/v1/inventory", headers=headers)
        assert answer.status_code == 401
        assert set(answer.json()) == {"error", "request_id"}


def test_either_header_carries_the_key(closed: None) -> None:
    secret = keys.make("a").secret
    for headers in ({"X-API-Key": secret}, {"Authorization": f"Bearer {secret}"}):
        assert Client().get("/api/v1/inventory", headers=headers).status_code == 200


def test_a_key_sees_only_its_consumers_things(closed: None, sandbox: SandboxProcess) -> None:
    apply([row("1")])
    mine, other, staff = (keys.Caller(made.secret) for made in (keys.make("a"), keys.make("b"), keys.staff()))
    status, answer = mine("POST", "/sessions", {**ORDER, "ssh_key_type": "ed25519"})
    assert status == 201
    session_id = answer["session"]["id"]
    assert mine("GET", f"/sessions/{session_id}")[0] == 200
    assert staff("GET", f"/sessions/{session_id}")[0] == 200
    for method, path in (("GET", ""), ("POST", "/done"), ("DELETE", "")):
        status, answer = other(method, f"/sessions/{session_id}{path}")
        assert (status, answer["error"]) == (404, f"session {session_id} not found")
    assert other("GET", f"/costs?session_id={session_id}")[0] == 404
    assert [caller("GET", "/sessions")[1]["total"] for caller in (mine, other, staff)] == [1, 0, 1]
    assert other("GET", "/costs")[1]["session_count"] == 0


def test_another_consumer_id_in_a_body_is_403(closed: None, sandbox: SandboxProcess) -> None:
    apply([row("1")])
    other = keys.Caller(keys.make("b").secret)
    assert other("POST", "/sessions", ORDER)[0] == 403
    assert other("GET", "/sessions?consumer_id=a")[0] == 403


def test_an_open_api_on_the_network_is_refused_by_name(tmp_path: Path) -> None:
    found = gpubroker("check", data_dir=tmp_path / "data", SERVER_HOST="0.0.0.0", API_AUTH="open")
    assert found.returncode == 2
    assert "API_AUTH=open on SERVER_HOST=0.0.0.0" in found.stderr
    meant = gpubroker(
        "check", data_dir=tmp_path / "data", SERVER_HOST="0.0.0.0", API_AUTH="open", ALLOW_OPEN_API="1"
    )  # fmt: skip
    assert meant.returncode == 0, meant.stderr
