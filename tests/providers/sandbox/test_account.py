"""Credit, charges, invoices (Vast.ai contract, sections 5.2 to 5.4)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.providers.sandbox.helpers import boot, cheapest, create, rent, row, running
from tests.sandbox import SandboxProcess


def user(sandbox: SandboxProcess, key: str | None = None) -> dict[str, Any]:
    status, answer = sandbox.api("GET", "/api/v0/users/current/", key=key)
    assert status == 200
    return answer


def ask(sandbox: SandboxProcess, path: str, filters: dict[str, Any], more: str = "") -> tuple[int, dict[str, Any]]:
    return sandbox.api("GET", f"{path}?select_filters={quote(json.dumps(filters))}{more}")


def all_days(sandbox: SandboxProcess) -> dict[str, Any]:
    return {"gte": 0, "lte": sandbox.admin("GET", "health")["now"] + 1}


def test_the_user(sandbox: SandboxProcess) -> None:
    answer = user(sandbox)
    assert (answer["credit"], answer["balance"], answer["api_key"]) == (100.0, 0.0, "sandbox-key")
    assert user(sandbox, "other-key")["id"] != answer["id"]


def test_gpu_is_billed_while_running_and_disk_from_create_to_destroy(sandbox: SandboxProcess) -> None:
    sandbox.settings(boot_seconds=3600)
    instance_id = rent(sandbox)
    sandbox.advance(3600)
    booted = sandbox.ledger()[0]
    assert booted["gpu_dollars"] == pytest.approx(0, abs=0.001)
    assert booted["disk_dollars"] == pytest.approx(booted["disk_rate"], rel=0.01)
    sandbox.advance(7200)
    sandbox.api("PUT", f"/api/v0/instances/{instance_id}/", {"state": "stopped"})
    sandbox.advance(3600)
    sandbox.api("DELETE", f"/api/v0/instances/{instance_id}/", {})
    sandbox.advance(3600)
    ended = sandbox.ledger()[0]
    assert ended["gpu_dollars"] == pytest.approx(2 * ended["gpu_rate"], rel=0.01)
    assert ended["disk_dollars"] == pytest.approx(4 * ended["disk_rate"], rel=0.01)
    assert user(sandbox)["credit"] == pytest.approx(100 - ended["total_dollars"])
    assert user(sandbox, "other-key")["credit"] == 100.0


def test_at_no_credit_everything_stops_at_that_moment(sandbox: SandboxProcess) -> None:
    first, second = running(sandbox, "a"), running(sandbox, "b")
    rate = first["dph_total"] + second["dph_total"]
    sandbox.credit(rate)
    sandbox.advance(10 * 3600)
    assert {row(sandbox, i["id"])["actual_status"] for i in (first, second)} == {"stopped"}
    gpu = sum(contract["gpu_dollars"] for contract in sandbox.ledger())
    assert gpu == pytest.approx(first["dph_base"] + second["dph_base"], rel=0.02)
    answer = user(sandbox)
    assert answer["credit"] < 0
    assert answer["balance"] == answer["credit"]
    assert create(sandbox, cheapest(sandbox)["id"])[1]["error"] == "insufficient_credit"
    sandbox.credit(10)
    assert create(sandbox, cheapest(sandbox)["id"])[0] == 200


def test_a_new_bid_is_not_billed_backwards(sandbox: SandboxProcess) -> None:
    offer = cheapest(sandbox)
    instance_id = rent(sandbox, price=offer["min_bid"])
    boot(sandbox)
    sandbox.advance(3600)
    sandbox.api("PUT", f"/api/v0/instances/bid_price/{instance_id}/", {"client_id": "me", "price": 1.0})
    sandbox.advance(3600)
    assert sandbox.ledger()[0]["gpu_dollars"] == pytest.approx(offer["min_bid"] + 1.0, rel=0.02)


def test_charges_name_the_instance_and_keep_its_label(sandbox: SandboxProcess) -> None:
    instance = running(sandbox, "gpub:1")
    sandbox.advance(3600)
    sandbox.api("DELETE", f"/api/v0/instances/{instance['id']}/", {})
    status, answer = ask(sandbox, "/api/v0/charges/", {"day": all_days(sandbox), "type": {"in": ["instance"]}})
    truth = sandbox.ledger()[0]
    assert (status, answer["count"], answer["total"], answer["next_token"]) == (200, 1, 1, None)
    charge = answer["results"][0]
    assert (charge["source"], charge["metadata"]["label"]) == (f"instance-{instance['id']}", "gpub:1")
    assert charge["amount"] == round(truth["total_dollars"], 3)
    assert {item["type"]: item["amount"] for item in charge["items"]} == {
        "gpu": round(truth["gpu_dollars"], 3),
        "disk": round(truth["disk_dollars"], 3),
    }
    assert charge["end"] == truth["destroyed_at"]


def test_charges_of_a_part_of_the_time(sandbox: SandboxProcess) -> None:
    instance = running(sandbox)
    start = sandbox.admin("GET", "health")["now"]
    sandbox.advance(7200)
    _, answer = ask(sandbox, "/api/v0/charges/", {"day": {"gte": start + 1800, "lte": start + 5400}})
    assert answer["results"][0]["amount"] == pytest.approx(instance["dph_total"], abs=0.001)
    _, answer = ask(sandbox, "/api/v0/charges/", {"day": {"gte": 0, "lte": 1000}})
    assert answer["results"] == []


def test_charges_in_pages_newest_first(sandbox: SandboxProcess) -> None:
    ids = []
    for _ in range(3):
        ids.append(rent(sandbox))
        sandbox.advance(600)
    filters, seen, token = {"day": all_days(sandbox)}, [], ""
    for _ in range(2):
        _, answer = ask(sandbox, "/api/v0/charges/", filters, f"&limit=2{token}")
        seen += [charge["source"] for charge in answer["results"]]
        token = f"&after_token={quote(str(answer['next_token']))}"
    assert (seen, answer["next_token"]) == ([f"instance-{id_}" for id_ in ids[::-1]], None)
    assert ask(sandbox, "/api/v0/charges/", filters, "&after_token=broken")[1]["msg"] == "Invalid pagination token"


def test_charges_need_both_ends(sandbox: SandboxProcess) -> None:
    expected = {"success": False, "msg": "Must provide both 'day' gte and lte filters for instance charges"}
    assert ask(sandbox, "/api/v0/charges/", {"day": {"gte": 1}}) == (400, expected)
    assert sandbox.api("GET", "/api/v0/charges/") == (400, expected)


def test_invoices_are_negative_and_need_a_range(sandbox: SandboxProcess) -> None:
    sandbox.admin("POST", "credit", {"add": 25})
    status, answer = ask(sandbox, "/api/v1/invoices/", {"when": all_days(sandbox)})
    assert (status, answer["success"], answer["count"]) == (200, True, 2)
    assert [invoice["amount"] for invoice in answer["results"]] == [-100.0, -25.0]
    assert answer["results"][0]["type"] == "credit"
    expected = {
        "success": False,
        "error": "Invalid date range",
        "count": 0,
        "total": 0,
        "results": [],
        "next_token": None,
    }
    assert sandbox.api("GET", "/api/v1/invoices/") == (200, expected)


def test_nobody_is_a_host(sandbox: SandboxProcess) -> None:
    assert sandbox.api("GET", "/api/v0/machines?owner=me") == (200, {"machines": []})
