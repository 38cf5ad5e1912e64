"""The host's side and the user's own fields on Vast.ai's wire (the contract's sections 5.2 and 5.5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.providers.sandbox.helpers import create, search
from tests.sandbox import SandboxProcess


def adopt(sandbox: SandboxProcess, key: str | None = None) -> int:
    return int(sandbox.admin("POST", "machines", {"api_key": key} if key else {})["id"])


def put_up(sandbox: SandboxProcess, machine: Any, **terms: Any) -> tuple[int, dict[str, Any]]:
    return sandbox.api("PUT", "/api/v0/machines/create_asks/", {"machine": machine, **terms})


def on_sale(sandbox: SandboxProcess, machine: int) -> list[dict[str, Any]]:
    return search(sandbox, machine_id={"eq": machine}, verified={"eq": "any"})


def test_a_new_host_sells_nothing_yet(sandbox: SandboxProcess) -> None:
    machine = adopt(sandbox)
    (row,) = sandbox.api("GET", "/api/v0/machines?owner=me")[1]["machines"]
    assert (row["id"], row["listed"], row["listed_gpu_cost"]) == (machine, False, None)
    looked: tuple[int, Any] = sandbox.api("GET", f"/api/v0/machines/{machine}?owner=me")
    assert looked == (200, [row])
    assert on_sale(sandbox, machine) == []
    assert adopt(sandbox) != machine


def test_its_terms_are_what_renters_see(sandbox: SandboxProcess) -> None:
    machine = adopt(sandbox)
    terms = {"price_gpu": 0.5, "price_disk": 0.2, "price_min_bid": 0.1}
    assert put_up(sandbox, machine, **terms) == (200, {"success": True, "extended": 0})
    asks = on_sale(sandbox, machine)
    assert {ask["dph_base"] / ask["num_gpus"] for ask in asks} == {0.5}
    assert {(ask["storage_cost"], ask["min_bid"] / ask["num_gpus"]) for ask in asks} == {(0.2, 0.1)}
    assert put_up(sandbox, machine, price_gpu=0.75) == (200, {"success": True, "extended": 1})
    assert {ask["dph_base"] / ask["num_gpus"] for ask in on_sale(sandbox, machine)} == {0.75}
    answer = sandbox.api("PUT", f"/api/v0/machines/{machine}/minbid/", {"client_id": "me", "price": 0.3})
    assert answer == (200, {"success": True, "you_sent": {"price": 0.3}})
    assert {ask["min_bid"] / ask["num_gpus"] for ask in on_sale(sandbox, machine)} == {0.3}


def test_it_can_be_rented_and_then_withdrawn(sandbox: SandboxProcess) -> None:
    machine = adopt(sandbox)
    put_up(sandbox, machine, price_gpu=0.5)
    status, answer = create(sandbox, on_sale(sandbox, machine)[0]["id"])
    assert (status, answer["success"]) == (200, True)
    assert sandbox.api("DELETE", f"/api/v0/machines/{machine}/asks/") == (200, {"success": True})
    assert on_sale(sandbox, machine) == []
    assert [(one["machine_id"], one["gpu_rate"]) for one in sandbox.alive()] == [
        (machine, 0.5 * sandbox.alive()[0]["num_gpus"])
    ]


@pytest.mark.parametrize(
    ("terms", "status", "error"),
    [
        ({}, 400, "invalid_args"),
        ({"price_gpu": 0}, 400, "invalid_args"),
        ({"price_gpu": -1}, 400, "invalid_args"),
        ({"price_gpu": "1"}, 400, "invalid_args"),
        ({"price_gpu": True}, 400, "invalid_args"),
    ],
)
def test_terms_that_are_none_change_nothing(
    sandbox: SandboxProcess, terms: dict[str, Any], status: int, error: str
) -> None:
    machine = adopt(sandbox)
    answered, answer = put_up(sandbox, machine, **terms)
    assert (answered, answer["error"]) == (status, error)
    assert on_sale(sandbox, machine) == []


def test_other_peoples_machines(sandbox: SandboxProcess) -> None:
    machine = adopt(sandbox, "other-key")
    assert sandbox.api("GET", "/api/v0/machines") == (200, {"machines": []})
    assert sandbox.api("GET", f"/api/v0/machines/{machine}")[0] == 404
    for wanted in (machine, 5, "abc", None):
        assert put_up(sandbox, wanted, price_gpu=1.0)[1]["error"] == "not_authorized"
    assert sandbox.api("DELETE", f"/api/v0/machines/{machine}/asks/")[0] == 403
    assert sandbox.api("PUT", f"/api/v0/machines/{machine}/minbid/", {"price": 1})[0] == 403
    assert len(sandbox.api("GET", "/api/v0/machines", key="other-key")[1]["machines"]) == 1


def test_a_restart_keeps_the_terms_and_a_reset_forgets_them(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path, offers=40) as sandbox:
        machine = adopt(sandbox)
        put_up(sandbox, machine, price_gpu=0.5)
        before = on_sale(sandbox, machine)
        sandbox.kill()
        sandbox.start()
        after = on_sale(sandbox, machine)
        assert [(ask["id"], ask["dph_base"]) for ask in after] == [(ask["id"], ask["dph_base"]) for ask in before]
        put_up(sandbox, machine, price_gpu=99.0)
        sandbox.reset()
        assert sandbox.api("GET", "/api/v0/machines") == (200, {"machines": []})
        prices = {ask["dph_base"] / ask["num_gpus"] for ask in on_sale(sandbox, machine)}
        assert len(prices) == 1
        assert max(prices) < 99.0


def test_users_change_their_own_fields_only(sandbox: SandboxProcess) -> None:
    status, answer = sandbox.api("PUT", "/api/v0/users/", {"username": "lab", "autobill_amount": 20})
    assert (status, answer["username"], answer["autobill_amount"]) == (200, "lab", 20)
    assert sandbox.api("GET", "/api/v0/users/current/")[1]["username"] == "lab"
    assert sandbox.api("GET", "/api/v0/users/current/", key="other-key")[1]["username"] != "lab"
    for body, error in (
        ({}, "missing_input"),
        ({"username": ""}, "empty_input"),
        ({"username": "x" * 257}, "input_too_long"),
        ({"credit": 1_000}, "nonexistent_key"),
    ):
        status, answer = sandbox.api("PUT", "/api/v0/users/", body)
        assert (status, answer["error"]) == (400, error)
    assert sandbox.api("GET", "/api/v0/users/current/")[1]["username"] == "lab"
