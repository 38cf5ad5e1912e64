"""Listing, looking, starting, stopping, changing, deleting (TensorDock contract, sections 6 and 9)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.providers.sandbox.tensordock.helpers import (
    CHUBBUCK,
    RTX_4090,
    boot,
    create,
    gpu_row,
    listed,
    look,
    rent,
    running,
)
from tests.sandbox import TensorDockSandbox

GONE = "Virtual machine instance not found"


def test_the_list_is_flat_and_says_little(dock: TensorDockSandbox) -> None:
    assert dock.api("GET", "/instances") == (200, {"data": []})
    first, second = rent(dock, "one"), rent(dock, "two")
    boot(dock)
    row = {"type": "virtualmachine", "status": "running"}
    assert listed(dock) == [{**row, "id": first, "name": "one"}, {**row, "id": second, "name": "two"}]


def test_the_other_two_shapes(dock: TensorDockSandbox) -> None:
    machine = rent(dock, "one")
    boot(dock)
    rows = [{"type": "virtualmachine", "id": machine, "attributes": {"name": "one", "status": "running"}}]
    dock.settings(list_shape="nested")
    assert dock.api("GET", "/instances") == (200, {"data": {"instances": rows}})
    dock.settings(list_shape="list")
    whole = {"type": "list", "id": "instances", "attributes": {"instances": rows}}
    assert dock.api("GET", "/instances") == (200, {"data": whole})
    dock.settings(list_shape="flat", list_detail=True)
    assert listed(dock) == [look(dock, machine)]
    with pytest.raises(ValueError, match="list_shape is one of flat, nested, list, not 'round'"):
        dock.settings(list_shape="round")


def test_where_it_is_comes_late(dock: TensorDockSandbox) -> None:
    dock.settings(boot_seconds=60)
    machine = rent(dock, "late")
    seen = []
    for _ in range(3):
        detail = look(dock, machine)
        seen.append((detail["status"], detail["ipAddress"], len(detail["portForwards"])))
        dock.advance(31)
    assert seen == [("queued", "", 0), ("creating", "", 0), ("running", "127.0.0.1", 1)]


def test_a_look_in_full(dock: TensorDockSandbox) -> None:
    detail = running(dock, "whole")
    ports = detail.pop("portForwards")
    assert [(sorted(row), row["internal_port"]) for row in ports] == [(["external_port", "internal_port"], 22)]
    assert detail == {
        "type": "virtualmachine",
        "id": detail["id"],
        "name": "whole",
        "status": "running",
        "ipAddress": "127.0.0.1",
        "resources": {
            "vcpu_count": 8,
            "ram_gb": 32,
            "storage_gb": 100,
            "gpus": {RTX_4090: {"count": 1, "v0Name": RTX_4090}},
        },
        "rateHourly": 0.4896,
    }


def test_what_is_not_there(dock: TensorDockSandbox) -> None:
    assert dock.api("GET", "/instances/nothing") == (404, {"error": GONE})
    dock.settings(gone_as_200=True)
    assert dock.api("GET", "/instances/nothing") == (200, {"status": 404, "error": GONE})


def test_a_stop_keeps_the_gpu(dock: TensorDockSandbox) -> None:
    machine = running(dock)["id"]
    answer = {"data": {"type": "instance", "id": machine, "attributes": {"status": "stopping"}}}
    dock.settings(boot_seconds=60)
    assert dock.api("POST", f"/instances/{machine}/stop", {}) == (200, answer)
    assert look(dock, machine)["status"] == "stopping"
    dock.advance(30)
    stopped = look(dock, machine)
    assert (stopped["status"], stopped["ipAddress"], stopped["portForwards"]) == ("stopped", None, [])
    assert dock.api("POST", f"/instances/{machine}/stop", {})[0] == 409
    answer["data"]["attributes"] = {"status": "starting"}
    assert dock.api("POST", f"/instances/{machine}/start") == (200, answer)
    assert look(dock, machine)["status"] == "starting"
    assert dock.api("POST", f"/instances/{machine}/start")[0] == 409
    dock.advance(90)
    assert look(dock, machine)["status"] == "running"


def test_a_stop_may_give_the_gpu_away(dock: TensorDockSandbox) -> None:
    dock.settings(stop_state="stoppeddisassociated")
    machine = running(dock, resources={"gpus": {RTX_4090: {"count": 4}}})["id"]
    dock.api("POST", f"/instances/{machine}/stop", {})
    dock.advance(30)
    assert look(dock, machine)["status"] == "stoppeddisassociated"
    dock.take_offer(f"{CHUBBUCK}.{RTX_4090}")
    text = "The GPUs of this virtual machine are no longer available on its hostnode"
    assert dock.api("POST", f"/instances/{machine}/start") == (400, {"error": text})
    assert look(dock, machine)["status"] == "stoppeddisassociated"


def test_a_gpu_that_came_back(dock: TensorDockSandbox) -> None:
    machine = running(dock)["id"]
    dock.admin("POST", f"instances/{machine}/interrupt")
    assert look(dock, machine)["status"] == "stoppeddisassociated"
    assert dock.api("POST", f"/instances/{machine}/start")[0] == 200
    boot(dock)
    assert look(dock, machine)["status"] == "running"


def test_no_start_without_money(dock: TensorDockSandbox) -> None:
    machine = running(dock)["id"]
    dock.api("POST", f"/instances/{machine}/stop")
    dock.advance(30)
    dock.credit(0.5)
    status, answer = dock.api("POST", f"/instances/{machine}/start")
    assert (status, answer["status"]) == (200, 400)
    assert "need at least" in answer["error"]


@pytest.mark.parametrize(("case", "words"), [("title", "StoppedDisassociated"), ("upper", "STOPPED_DISASSOCIATED")])
def test_status_words_vary(dock: TensorDockSandbox, case: str, words: str) -> None:
    machine = running(dock)["id"]
    dock.settings(status_case=case)
    assert look(dock, machine)["status"] in ("Running", "RUNNING")
    dock.admin("POST", f"instances/{machine}/interrupt")
    assert listed(dock)[0]["status"] == words


@pytest.mark.parametrize(
    ("status", "shown"), [("offline", "error"), ("exited", "stopped"), ("failed", "failed"), ("outbid", "outbid")]
)
def test_a_machine_that_dies(dock: TensorDockSandbox, status: str, shown: str) -> None:
    machine = running(dock)["id"]
    dock.machine_dies(machine, status)
    assert look(dock, machine)["status"] == shown


def test_delete_takes_its_time(dock: TensorDockSandbox) -> None:
    dock.settings(delete_seconds=60)
    machine = running(dock)["id"]
    answer = {"data": {"type": "success", "attributes": {"message": "Virtual machine deleted successfully"}}}
    for _ in range(2):
        assert dock.api("DELETE", f"/instances/{machine}") == (200, answer)
        assert look(dock, machine)["status"] == "deleting"
        assert [row["id"] for row in listed(dock)] == [machine]
    dock.advance(61)
    assert dock.api("GET", f"/instances/{machine}") == (404, {"error": GONE})
    assert dock.api("DELETE", f"/instances/{machine}") == (404, {"error": GONE})
    assert (listed(dock), dock.alive()) == ([], [])
    assert gpu_row(dock)["max_count"] == 4


def modify(dock: TensorDockSandbox, machine: str, **changes: Any) -> tuple[int, Any]:
    return dock.api("PUT", f"/instances/{machine}/modify", changes)


def test_a_stopped_machine_can_grow(dock: TensorDockSandbox) -> None:
    machine = running(dock, "big")["id"]
    assert modify(dock, machine, cpuCores=12) == (409, {"error": "Virtual machine must be stopped to be modified"})
    dock.api("POST", f"/instances/{machine}/stop")
    dock.advance(30)
    gpus = {"gpuV0Name": RTX_4090, "count": 2}
    answer = {"data": {"type": "virtualmachine", "id": machine, "name": "big", "status": "stopped"}}
    assert modify(dock, machine, cpuCores=12, ramGb=64, diskGb=200, gpus=gpus) == (200, answer)
    detail = look(dock, machine)
    assert detail["resources"] == {
        "vcpu_count": 12,
        "ram_gb": 64,
        "storage_gb": 200,
        "gpus": {RTX_4090: {"count": 2, "v0Name": RTX_4090}},
    }
    assert detail["rateHourly"] == 0.9672


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"cpuCores": 7}, ["cpuCores"]),
        ({"ramGb": 24}, ["ramGb"]),
        ({"diskGb": 90}, ["diskGb"]),
        ({"gpus": {"gpuV0Name": RTX_4090, "count": 0}}, ["gpus", "count"]),
        ({"gpus": {"gpuV0Name": "l4-pcie-24gb", "count": 1}}, ["gpus"]),
        ({"gpus": [RTX_4090]}, ["gpus"]),
    ],
)
def test_what_it_cannot_become(dock: TensorDockSandbox, changes: dict[str, Any], place: list[str]) -> None:
    machine = running(dock)["id"]
    dock.api("POST", f"/instances/{machine}/stop")
    dock.advance(30)
    before = look(dock, machine)
    status, answer = modify(dock, machine, **changes)
    assert (status, [issue["path"] for issue in answer]) == (400, [place])
    full = {"status": 400, "error": "resource_error: not enough capacity"}
    assert modify(dock, machine, gpus={"gpuV0Name": RTX_4090, "count": 5}) == (200, full)
    assert look(dock, machine) == before


def test_a_machine_of_nobody(dock: TensorDockSandbox) -> None:
    machine = dock.foreign(None)
    boot(dock)
    assert listed(dock) == [{"type": "virtualmachine", "id": machine, "name": "", "status": "running"}]
    assert create(dock, "ours")[0] == 200
    assert [row["name"] for row in listed(dock)] == ["", "ours"]
