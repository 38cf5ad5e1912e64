"""The LowCodeAPI face on the wire: tokens, envelopes, both path forms, the vendor's answers behind it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.providers.sandbox.helpers import KeyPair, rent, running
from tests.sandbox import SandboxProcess

BASE = "/lowcodeapi/vastai"
TOKEN = "at_sandbox-key"
ACCEPT = {"Accept": "application/json"}


def call(
    sandbox: SandboxProcess, method: str, path: str, body: Any = None, token: str | None = TOKEN, **query: Any
) -> tuple[int, dict[str, Any]]:
    """One call to the gateway: status and JSON."""
    words = {**query} if token is None else {**query, "api_token": token}
    status, _, text = sandbox.raw(method, f"{BASE}{path}?{urlencode(words)}", body, ACCEPT)
    answer: dict[str, Any] = json.loads(text)
    return status, answer


def test_a_good_answer_comes_in_an_envelope(sandbox: SandboxProcess) -> None:
    status, answer = call(sandbox, "GET", "/balance")
    assert (status, set(answer)) == (200, {"message", "provider", "result", "response_headers"})
    assert (answer["message"], answer["provider"]) == ("Request completed", "vastai")
    assert answer["result"]["credit"] == 100.0
    assert answer["response_headers"]["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("token", "status", "message"),
    [
        (None, 401, "A valid API token is required to access this API."),
        ("", 401, "A valid API token is required to access this API."),
        ("sandbox-key", 401, "A valid API token is required to access this API."),
        ("at_nobody", 403, "Invalid api_token"),
        (
            "at_unlinked",
            403,
            "No access token is associated with this api_token, authorize your vastai with LowCodeAPI.",
        ),
    ],
)
def test_tokens_that_are_refused(sandbox: SandboxProcess, token: str | None, status: int, message: str) -> None:
    answered, answer = call(sandbox, "GET", "/balance", token=token)
    assert (answered, answer["message"], answer["provider"]) == (status, message, "vastai")
    assert (answer["error"]["code"], answer["error"]["logging"]["path"]) == (status, f"{BASE}/balance")


def test_the_vendors_own_credentials_do_not_count(sandbox: SandboxProcess) -> None:
    bearer = {"Authorization": "Bearer sandbox-key"}
    assert sandbox.raw("GET", f"{BASE}/balance?api_key=sandbox-key", None, bearer)[0] == 401


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("POST", "/balance"), ("PATCH", "/instances/instance_id"), ("GET", "/")]
)
def test_paths_that_it_does_not_know(sandbox: SandboxProcess, method: str, path: str) -> None:
    assert call(sandbox, method, path) == (404, {"message": "The requested API is not found."})


def test_the_vendors_refusal_keeps_its_status(sandbox: SandboxProcess) -> None:
    status, answer = call(sandbox, "DELETE", "/instances/instance_id", instance_id=5)
    expected = {"success": False, "error": "no_such_instance", "msg": "Instance 5 not found."}
    assert (status, answer["error"]) == (404, expected)
    assert set(answer) == {"message", "provider", "error", "headers"}


@pytest.mark.parametrize("query", [{}, {"instance_id": ""}, {"instance_id": "abc"}])
def test_an_id_that_is_none_is_a_page_of_the_vendors(sandbox: SandboxProcess, query: dict[str, str]) -> None:
    status, answer = call(sandbox, "GET", "/instances/instance_id", **query)
    assert status == 404
    assert answer["error"].startswith("<html>")


def test_the_vendors_rate_limit_and_page(sandbox: SandboxProcess) -> None:
    sandbox.fault("rate_limited", operation="list", threshold=4.5)
    status, answer = call(sandbox, "GET", "/instances")
    assert status == 429
    assert "endpoint threshold=4.5*1.0" in answer["error"]
    assert answer["error"].startswith("<html>")


def test_its_calls_count_as_the_accounts(sandbox: SandboxProcess) -> None:
    sandbox.settings(pace=1)
    assert sandbox.api("GET", "/api/v1/instances/")[0] == 200
    assert call(sandbox, "GET", "/instances")[0] == 429


@pytest.mark.parametrize(
    ("fault", "status"), [({"kind": "error_5xx", "status": 503}, 503), ({"kind": "auth_error", "status": 404}, 404)]
)
def test_faults_strike_behind_it(sandbox: SandboxProcess, fault: dict[str, Any], status: int) -> None:
    sandbox.fault(**{"operation": "get", **fault})
    assert call(sandbox, "GET", "/instances/instance_id", instance_id=5)[0] == status
    assert call(sandbox, "GET", "/instances/instance_id", instance_id=5)[1]["result"] == {"instances": None}


def test_faults_know_the_instance(sandbox: SandboxProcess) -> None:
    first, second = rent(sandbox, "one"), rent(sandbox, "two")
    sandbox.fault("refuse_destroy", mode="error", label="one")
    assert call(sandbox, "DELETE", "/instances/instance_id", instance_id=second)[0] == 200
    assert call(sandbox, "DELETE", "/instances/instance_id", instance_id=first)[0] == 500
    assert [contract["label"] for contract in sandbox.alive()] == ["one"]


def test_both_forms_of_a_path(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox)
    literal = call(sandbox, "GET", "/instances/instance_id", instance_id=instance_id)
    newer = call(sandbox, "GET", f"/instances/{instance_id}")
    assert literal[1]["result"]["instances"]["id"] == newer[1]["result"]["instances"]["id"] == instance_id
    assert call(sandbox, "POST", f"/instances/{instance_id}/stop")[1]["result"] == {"success": True}
    assert sandbox.alive()[0]["state"] == "stopped"
    assert call(sandbox, "GET", "/users/me")[1]["result"]["id"] == call(sandbox, "GET", "/balance")[1]["result"]["id"]


def test_a_machine_from_offer_to_destroy(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    filters = {"num_gpus": {"eq": 1}, "direct_port_count": {"gt": 1}}
    query: dict[str, Any] = {
        "type": "on-demand",
        "q": json.dumps(filters),
        "sort_option": "dph_total",
        "order": "asc",
        "limit": 2,
    }
    _, answer = call(sandbox, "GET", "/offers", **query)
    prices = [offer["dph_total"] for offer in answer["result"]["offers"]]
    assert (len(prices), prices) == (2, sorted(prices))
    offer_id = str(answer["result"]["offers"][0]["id"])
    body = {"offer_id": offer_id, "image": "ubuntu:22.04", "disk": 12, "label": "by-gateway", "ssh_key": keypair.public}
    _, answer = call(sandbox, "POST", "/instances", body)
    instance_id = answer["result"]["new_contract"]
    (contract,) = sandbox.alive()
    assert (contract["id"], contract["label"], contract["disk"]) == (instance_id, "by-gateway", 12.0)
    assert contract["keys"] == [keypair.public]
    call(sandbox, "PUT", "/instances/instance_id", {"label": "renamed"}, instance_id=instance_id)
    assert sandbox.alive()[0]["label"] == "renamed"
    assert call(sandbox, "DELETE", "/instances/instance_id", instance_id=instance_id)[1]["result"] == {"success": True}
    assert sandbox.alive() == []


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"image": "ubuntu:22.04", "disk": 12}, 400, "invalid_args"),
        ({"offer_id": "abc", "image": "ubuntu:22.04"}, 400, "invalid_args"),
        ({"offer_id": "1", "image": "ubuntu:22.04"}, 404, "no_such_ask"),
        ("[1]", 400, "invalid_request"),
        ("{", 400, "invalid_request"),
    ],
)
def test_orders_that_are_refused_rent_nothing(sandbox: SandboxProcess, body: Any, status: int, error: str) -> None:
    sandbox.settings(gone_shape="404")
    answered, answer = call(sandbox, "POST", "/instances", body)
    assert (answered, answer["error"]["error"]) == (status, error)
    assert sandbox.alive() == []


def test_listings_by_state_and_owner(sandbox: SandboxProcess) -> None:
    instance_id = running(sandbox)["id"]
    rent(sandbox)
    me = call(sandbox, "GET", "/users/me")[1]["result"]["id"]

    def listed(**query: Any) -> list[int]:
        rows = call(sandbox, "GET", "/instances", **query)[1]["result"]["instances"]
        return [row["id"] for row in rows]

    assert len(listed()) == 2
    assert listed(state="running") == [instance_id]
    assert len(listed(owner_id=me)) == 2
    assert listed(owner_id=1) == []
    assert len(listed(offset=1)) == 2  # the vendor has no such word
    assert len(listed(limit=1)) == 1


def test_bids_are_instances_that_have_a_price(sandbox: SandboxProcess) -> None:
    rent(sandbox)
    status, answer = call(sandbox, "POST", "/bids", {"price": 20, "duration": 60, "num_gpus": 1})
    assert status == 200
    bid_id = answer["result"]["new_contract"]
    rows = call(sandbox, "GET", "/bids")[1]["result"]["instances"]
    assert [(row["id"], row["is_bid"], row["dph_base"]) for row in rows] == [(bid_id, True, 20)]
    assert call(sandbox, "GET", "/bids", offset=1)[1]["result"]["instances"] == []
    assert call(sandbox, "GET", "/bids", owner_id=1)[1]["result"]["instances"] == []
    assert call(sandbox, "POST", "/bids", {"price": 1, "duration": 60, "num_gpus": 99})[0] == 404
    assert call(sandbox, "POST", "/bids", {"price": "1"})[0] == 400
    assert call(sandbox, "DELETE", "/bids/bid_id", bid_id=bid_id)[0] == 200
    assert len(sandbox.alive()) == 1


def test_one_account_does_not_see_another(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox)
    other = "at_other-key"
    assert call(sandbox, "GET", "/instances", token=other)[1]["result"]["instances"] == []
    looked = call(sandbox, "GET", "/instances/instance_id", token=other, instance_id=instance_id)
    assert looked[1]["result"] == {"instances": None}
    assert call(sandbox, "DELETE", "/instances/instance_id", token=other, instance_id=instance_id)[0] == 404
    assert len(sandbox.alive()) == 1


def test_an_answer_that_is_lost_is_lost_to_the_caller_too(sandbox: SandboxProcess) -> None:
    offer = call(sandbox, "GET", "/offers", limit=1)[1]["result"]["offers"][0]
    sandbox.fault("error_after")
    body = {"offer_id": str(offer["id"]), "image": "ubuntu:22.04", "disk": 10}
    status, answer = call(sandbox, "POST", "/instances", body)
    assert (status, answer["error"][:6]) == (502, "<html>")
    assert len(sandbox.alive()) == 1
