"""Secrets, the rate limit and the old API (TensorDock contract, sections 2, 6.6 and 11)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.sandbox.limits import Quota
from tests.providers.sandbox.tensordock.helpers import KEY, boot, hostnode_of, listed, look, rent, running
from tests.sandbox import TENSORDOCK_PATH, TensorDockSandbox


def add(dock: TensorDockSandbox, **attributes: Any) -> tuple[int, Any]:
    body = {"data": {"type": "secret", "attributes": {"name": "mine", "type": "SSHKEY", "value": KEY, **attributes}}}
    return dock.api("POST", "/secrets", body)


def test_secrets(dock: TensorDockSandbox) -> None:
    assert dock.api("GET", "/secrets") == (200, {"data": {"secrets": []}})
    status, answer = add(dock)
    secret = answer["data"]
    assert (status, secret) == (200, {"id": secret["id"], "name": "mine", "type": "SSHKEY"})
    assert dock.api("GET", "/secrets") == (200, {"data": {"secrets": [secret]}})
    assert dock.api("GET", f"/secrets/{secret['id']}") == (200, {"data": {**secret, "value": KEY}})
    assert dock.api("GET", "/secrets", key="other-token") == (200, {"data": {"secrets": []}})
    assert dock.api("DELETE", f"/secrets/{secret['id']}", key="other-token")[0] == 404
    assert dock.api("PATCH", f"/secrets/{secret['id']}", {}) == (405, {"error": "Method not allowed"})
    assert dock.api("DELETE", f"/secrets/{secret['id']}")[0] == 200
    assert dock.api("DELETE", f"/secrets/{secret['id']}") == (404, {"error": "Secret not found"})
    assert dock.api("GET", f"/secrets/{secret['id']}") == (404, {"error": "Secret not found"})


@pytest.mark.parametrize(
    ("attributes", "place"), [({"name": ""}, "name"), ({"value": None}, "value"), ({"value": "nonsense"}, "value")]
)
def test_secrets_that_are_none(dock: TensorDockSandbox, attributes: dict[str, Any], place: str) -> None:
    status, answer = add(dock, **attributes)
    assert (status, [issue["path"][-1] for issue in answer]) == (400, [place])
    assert dock.api("GET", "/secrets") == (200, {"data": {"secrets": []}})
    assert add(dock, type="GENERIC", value="anything")[0] == 200


def call(dock: TensorDockSandbox, path: str = "/instances", key: str = "") -> tuple[int, dict[str, str]]:
    headers = {"Authorization": f"Bearer {key or dock.api_key}"}
    status, answered, _ = dock.raw("GET", TENSORDOCK_PATH + path, None, headers)
    return status, answered


def test_a_hundred_calls_a_minute(dock: TensorDockSandbox) -> None:
    dock.settings(pace=1.0)
    standings = [call(dock, path) for path in ("/instances", "/locations") * 50]
    assert {status for status, _ in standings} == {200}
    assert [headers["X-RateLimit-Remaining"] for _, headers in standings] == [str(left) for left in range(99, -1, -1)]
    assert standings[0][1]["X-RateLimit-Limit"] == "100"
    status, headers = call(dock)
    assert (status, headers["X-RateLimit-Remaining"]) == (429, "0")
    assert headers["Retry-After"] == headers["X-RateLimit-Reset"]
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert call(dock, key="other-token")[0] == 200
    dock.settings(pace=0)
    assert call(dock) == (200, {name: value for name, value in call(dock)[1].items() if "RateLimit" not in name})


def test_a_quota_begins_anew() -> None:
    wall = [100.0]
    quota = Quota(2, 60.0, lambda: wall[0])
    assert quota.spend("me", 0.0) is None
    seen = []
    for _ in range(4):
        standing = quota.spend("me", 0.5)
        assert standing is not None
        seen.append((standing.held, standing.remaining, standing.reset))
        wall[0] += 12
    assert seen == [(False, 1, 30.0), (False, 0, 18.0), (True, 0, 6.0), (False, 1, 30.0)]


def old(dock: TensorDockSandbox, path: str, **form: str) -> tuple[int, Any]:
    fields = {"api_key": "sandbox", "api_token": dock.api_key, **form}
    text = "&".join(f"{name}={value}" for name, value in fields.items())
    status, _, answer = dock.raw("POST", f"/tensordock/api/v0{path}", text)
    return status, json.loads(answer)


def test_the_old_balance(dock: TensorDockSandbox) -> None:
    assert old(dock, "/billing/balance") == (200, {"success": True, "balance": 100.0, "hourly_cost": 0})
    assert old(dock, "/auth/test") == (200, {"success": True})
    wrong = {"success": False, "error": "Invalid API key or token"}
    assert old(dock, "/billing/balance", api_token="nobody") == (401, wrong)
    assert old(dock, "/billing/balance", api_key="") == (401, wrong)
    rent(dock)
    assert old(dock, "/billing/balance")[1]["hourly_cost"] == 0.4896
    dock.settings(v0_gone=True)
    assert old(dock, "/billing/balance") == (404, {"error": "Not found"})


def test_old_hostnodes_need_no_token(dock: TensorDockSandbox) -> None:
    status, _, text = dock.raw("GET", "/tensordock/api/v0/client/deploy/hostnodes")
    answer = json.loads(text)
    assert (status, answer["success"], len(answer["hostnodes"])) == (200, True, 59)
    node = hostnode_of(dock)
    row = answer["hostnodes"][node["id"]]
    assert row["specs"]["gpu"]["geforcertx4090-pcie-24gb"]["amount"] == 4
    status, _, text = dock.raw("GET", f"/tensordock/api/v0/client/deploy/hostnodes/{node['id']}")
    assert json.loads(text)["hostnode"]["specs"] == row["specs"]
    assert dock.raw("GET", "/tensordock/api/v0/client/deploy/hostnodes/none")[0] == 404


def test_old_machines(dock: TensorDockSandbox) -> None:
    machine = running(dock, "old")["id"]
    status, answer = old(dock, "/client/list")
    assert (status, list(answer["virtualmachines"])) == (200, [machine])
    row = old(dock, "/client/get/single", server=machine)[1]["virtualmachines"]
    assert (row["name"], row["status"], row["default_user"]) == ("old", "Running", "user")
    assert row["cost"] == {"compute_price": "0.484600", "storage_price": "0.005000", "total_price": "0.489600"}
    assert old(dock, "/client/get/single", server="none")[0] == 404
    assert old(dock, "/client/stop/single", server=machine, disassociate_resources="true")[0] == 200
    assert look(dock, machine)["status"] == "stoppeddisassociated"
    not_running = {"success": False, "error": "Server is not running"}
    assert old(dock, "/client/stop/single", server=machine) == (200, not_running)
    assert old(dock, "/client/start/single", server=machine) == (200, {"success": True})
    boot(dock)
    assert old(dock, "/client/start/single", server=machine)[1]["success"] is False
    assert old(dock, "/client/stop/single", server=machine) == (200, {"success": True})
    assert old(dock, "/client/delete/single", server=machine) == (200, {"success": True})
    assert listed(dock) == []
