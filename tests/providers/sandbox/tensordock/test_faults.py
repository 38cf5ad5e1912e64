"""The faults of all faces, as TensorDock would show them (TensorDock contract, sections 7, 12 and 13)."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

import pytest

from tests.providers.sandbox.helpers import KeyPair, execute, login
from tests.providers.sandbox.tensordock.helpers import (
    CHUBBUCK,
    RTX_4090,
    boot,
    create,
    gpu_row,
    listed,
    look,
    order,
    rent,
    running,
    ssh_port,
    with_key,
)
from tests.sandbox import TENSORDOCK_PATH, TensorDockSandbox

LOST = (http.client.HTTPException, OSError)


def raw(dock: TensorDockSandbox, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], str]:
    return dock.raw(method, TENSORDOCK_PATH + path, body, {"Authorization": f"Bearer {dock.api_key}"})


def test_a_lost_answer(dock: TensorDockSandbox) -> None:
    dock.fault("lost_answer")
    with pytest.raises(LOST):
        create(dock, "lost")
    assert [row["name"] for row in listed(dock)] == ["lost"]


def test_a_lost_delete(dock: TensorDockSandbox) -> None:
    machine = rent(dock)
    dock.fault("lost_answer", operation="destroy", instance_id=machine)
    with pytest.raises(LOST):
        dock.api("DELETE", f"/instances/{machine}")
    assert dock.alive() == []


def test_an_error_after_the_effect(dock: TensorDockSandbox) -> None:
    dock.fault("error_after")
    status, headers, text = raw(dock, "POST", "/instances", order("made"))
    assert (status, headers["Content-Type"]) == (502, "text/html; charset=utf-8")
    assert "<h1>502 Bad Gateway</h1>" in text
    assert [contract["label"] for contract in dock.alive()] == ["made"]


def test_half_an_answer(dock: TensorDockSandbox) -> None:
    dock.fault("truncated_json")
    status, _, text = raw(dock, "POST", "/instances", order("half"))
    assert status == 200
    with pytest.raises(ValueError, match=r"."):
        json.loads(text)
    dock.fault("truncated_json", mid_stream=True)
    with pytest.raises(http.client.IncompleteRead):
        raw(dock, "POST", "/instances", order("half"))
    assert len(dock.alive()) == 2


def test_another_shape(dock: TensorDockSandbox) -> None:
    dock.fault("malformed", operation="create", body={"data": {"id": ""}})
    assert create(dock, "odd") == (200, {"data": {"id": ""}})
    dock.fault("malformed", operation="list")
    assert dock.api("GET", "/instances") == (200, ["unexpected"])
    assert [contract["label"] for contract in dock.alive()] == ["odd"]


def test_a_page_of_the_proxy(dock: TensorDockSandbox) -> None:
    dock.fault("error_5xx", operation="list", status=503, times=2)
    for _ in range(2):
        status, _, text = raw(dock, "GET", "/instances")
        assert (status, text.startswith("<html>")) == (503, True)
    assert listed(dock) == []


def test_too_many_on_demand(dock: TensorDockSandbox) -> None:
    dock.fault("rate_limited", operation="create", threshold=4.5)
    status, headers, text = raw(dock, "POST", "/instances", order())
    assert (status, headers["Retry-After"], text) == (429, "5", '{"error": "Too many requests"}')
    dock.fault("rate_limited", operation="create", headers=False)
    status, headers, _ = raw(dock, "POST", "/instances", order())
    assert (status, "Retry-After" in headers) == (429, False)
    assert dock.ledger() == []


@pytest.mark.parametrize(("status", "word"), [(None, "Unauthorized"), (403, "Forbidden")])
def test_an_unknown_token_on_demand(dock: TensorDockSandbox, status: int | None, word: str) -> None:
    dock.fault("auth_error", operation="list", **({"status": status} if status else {}))
    assert dock.api("GET", "/instances") == (status or 401, {"error": word})


def test_a_refusal_inside_a_success(dock: TensorDockSandbox) -> None:
    dock.fault("success_false", operation="create", message="deployment failed", status=500)
    assert create(dock) == (200, {"status": 500, "error": "deployment failed"})
    assert dock.ledger() == []
    dock.fault("success_false", operation="create", contract=True)
    assert create(dock, "there") == (200, {"status": 400, "error": "Something went wrong"})
    assert [contract["label"] for contract in dock.alive()] == ["there"]


def test_a_half_refusal_of_a_wrong_order_is_the_array(dock: TensorDockSandbox) -> None:
    dock.fault("success_false", operation="create", contract=True)
    status, answer = create(dock, image="debian")
    assert (status, answer[0]["code"]) == (400, "invalid_enum_value")
    assert dock.ledger() == []


def test_no_credit_on_demand(dock: TensorDockSandbox) -> None:
    dock.fault("insufficient_credit")
    status, answer = create(dock)
    assert (status, answer["status"]) == (200, 400)
    assert "need at least $1.00" in answer["error"]
    assert dock.ledger() == []


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ("nodes", "No available nodes found"),
        ("hostnode", "Hostnode unavailable"),
        ("ip", "No available public IPs"),
        ("ratio", "RAM per GPU exceeds ratio limit"),
        ("deploy", "unexpected error during deployment"),
        ("stock", "not enough capacity"),
    ],
)
def test_an_offer_that_vanishes(dock: TensorDockSandbox, shape: str, text: str) -> None:
    dock.fault("offer_gone", shape=shape)
    status, answer = create(dock)
    assert (status, answer["status"]) == (200, 400)
    assert text in answer["error"]
    assert gpu_row(dock) == {}
    assert create(dock)[1]["error"].startswith("No available nodes found")
    assert dock.ledger() == []


def test_listings_lie(dock: TensorDockSandbox) -> None:
    machines = [rent(dock, name) for name in ("a", "b", "c")]
    dock.fault("empty_listing")
    assert dock.api("GET", "/instances") == (200, {"data": []})
    dock.fault("partial_listing", keep=2)
    assert [row["id"] for row in listed(dock)] == machines[:2]
    assert [row["id"] for row in listed(dock)] == machines


def test_a_machine_that_is_listed_late(dock: TensorDockSandbox) -> None:
    dock.fault("listing_lag", seconds=60)
    machine = rent(dock)
    assert listed(dock) == []
    assert look(dock, machine)["id"] == machine
    dock.advance(61)
    assert [row["id"] for row in listed(dock)] == [machine]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"kind": "boot_never"}, "creating"),
        ({"kind": "boot_error"}, "error"),
        ({"kind": "boot_error", "mode": "pull"}, "creating"),
        ({"kind": "boot_exited"}, "stopped"),
    ],
    ids=str,
)
def test_boots_that_fail(dock: TensorDockSandbox, fault: dict[str, Any], status: str) -> None:
    dock.fault(**fault)
    machine = rent(dock)
    dock.advance(3600)
    detail = look(dock, machine)
    assert (detail["status"], detail["ipAddress"], detail["portForwards"]) == (status, "", [])


def test_a_machine_that_stopped_by_itself_can_be_started(dock: TensorDockSandbox) -> None:
    dock.fault("boot_exited")
    machine = rent(dock)
    boot(dock)
    assert dock.api("POST", f"/instances/{machine}/start")[0] == 200
    boot(dock)
    assert look(dock, machine)["status"] == "running"


def test_ssh_that_refuses_and_other_gpus(dock: TensorDockSandbox, keypair: KeyPair) -> None:
    dock.fault("no_ssh")
    silent = running(dock, "silent", **with_key(keypair))
    with pytest.raises(OSError, match="Unable to connect"):
        login(ssh_port(silent), keypair, "user")
    dock.fault("wrong_gpu", count=1, memory_mb=8192)
    port = ssh_port(running(dock, "wrong", resources={"gpus": {RTX_4090: {"count": 2}}}, **with_key(keypair)))
    with login(port, keypair, "user") as client:
        assert execute(client, "nvidia-smi --query-gpu=memory.total --format=csv,noheader")[0] == "8192 MiB\n"


def test_a_machine_that_turns_bad(dock: TensorDockSandbox) -> None:
    machine = running(dock)["id"]
    answer = dock.fault("boot_never", instance_id=machine)
    assert answer == {"instance_id": machine, "quirks": {"boot_never": {}}}
    boot(dock)
    assert look(dock, machine)["status"] == "creating"


def delete(dock: TensorDockSandbox, machine: str) -> int:
    return dock.api("DELETE", f"/instances/{machine}")[0]


def test_deletes_that_do_not(dock: TensorDockSandbox) -> None:
    machine = running(dock, "stays")["id"]
    dock.fault("refuse_destroy", label="other")
    dock.fault("refuse_destroy", label="stays", times=2)
    assert [delete(dock, machine), delete(dock, machine)] == [200, 200]
    assert look(dock, machine)["status"] == "running"
    dock.fault("refuse_destroy", mode="error")
    assert dock.api("DELETE", f"/instances/{machine}") == (500, {"error": "Failed to delete virtual machine"})
    dock.fault("refuse_destroy", mode="slow", seconds=600)
    assert delete(dock, machine) == 200
    assert look(dock, machine)["status"] == "deleting"
    dock.advance(601)
    assert dock.alive() == []


def test_slow_answers(dock: TensorDockSandbox) -> None:
    dock.fault("slow", operation="list", seconds=0.4)
    dock.fault("slow", operation="create", seconds=0.4, after=True)
    before = time.monotonic()
    listed(dock)
    rent(dock)
    assert time.monotonic() - before >= 0.8


def test_real_latencies_come_after_the_effect(dock: TensorDockSandbox) -> None:
    dock.settings(latency=0.02)
    before = time.monotonic()
    rent(dock)
    assert time.monotonic() - before >= 0.4


def test_faults_choose_by_name_and_account(dock: TensorDockSandbox) -> None:
    dock.fault("error_5xx", operation="create", label="mine")
    dock.fault("error_5xx", operation="list", api_key="other-token")
    assert create(dock, "yours")[0] == 200
    assert raw(dock, "POST", "/instances", order("mine"))[0] == 502
    assert listed(dock)[0]["name"] == "yours"
    assert [fault["hits"] for fault in dock.faults()["spent"]] == [1]
    assert [fault["hits"] for fault in dock.faults()["armed"]] == [0]


def test_foreign_machines_run_out_in_the_end(dock: TensorDockSandbox) -> None:
    machine = dock.foreign("theirs", disk=200)
    (contract,) = dock.alive()
    assert (contract["id"], contract["label"], contract["disk"]) == (machine, "theirs", 200)
    for place in dock.api("GET", "/locations")[1]["data"]["locations"]:
        dock.take_offer(place["id"])
    with pytest.raises(ValueError, match="everything is rented"):
        dock.foreign("more")
    assert gpu_row_is_gone(dock)


def gpu_row_is_gone(dock: TensorDockSandbox) -> bool:
    return CHUBBUCK not in [place["id"] for place in dock.api("GET", "/locations")[1]["data"]["locations"]]
