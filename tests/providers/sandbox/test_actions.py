"""Start, stop, label, destroy, bid, reboot, logs (Vast.ai contract, section 4.6)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.providers.sandbox.helpers import boot, create, eventually, rent, row, running, search
from tests.sandbox import SandboxProcess

QUEUED = "Required resources are currently unavailable, state change queued."


def put(sandbox: SandboxProcess, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return sandbox.api("PUT", f"/api/v0/instances/{path}/", body)


def states(instance: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(instance[name] for name in ("actual_status", "cur_state", "next_state", "intended_status"))


def test_destroyed_once_gone_for_ever(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox)
    path = f"/api/v0/instances/{instance_id}/"
    assert sandbox.api("DELETE", path, {}) == (200, {"success": True})
    status, answer = sandbox.api("DELETE", path, {})
    assert (status, answer["error"]) == (404, "no_such_instance")
    assert answer["msg"] == f"Instance {instance_id} not found."
    assert [c["state"] for c in sandbox.ledger()] == ["destroyed"]


def test_many_are_destroyed_at_once(sandbox: SandboxProcess) -> None:
    ids = [rent(sandbox), rent(sandbox), rent(sandbox)]
    assert sandbox.api("DELETE", "/api/v0/instances/", {"instance_ids": ids[:2]}) == (200, {"success": True})
    assert [c["id"] for c in sandbox.alive()] == [ids[2]]


def test_label(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox, "old")
    expected = {"success": True, "msg": f"label for {instance_id} set to 'new'"}
    assert put(sandbox, str(instance_id), {"label": "new"}) == (200, expected)
    assert row(sandbox, instance_id)["label"] == "new"
    assert put(sandbox, str(instance_id), {"label": "x" * 1025})[1]["error"] == "label_too_long"
    assert put(sandbox, "1", {"label": "x"})[1]["error"] == "no_such_instance"


def test_stop_keeps_the_disk_and_its_bill_and_start_boots_again(sandbox: SandboxProcess) -> None:
    instance = running(sandbox)
    assert put(sandbox, str(instance["id"]), {"state": "stopped"}) == (200, {"success": True})
    stopped = row(sandbox, instance["id"])
    assert states(stopped) == ("stopped", "stopped", "stopped", "stopped")
    assert (stopped["ports"], stopped["instance"]["gpuCostPerHour"]) == (None, 0.0)
    before = sandbox.ledger()[0]
    sandbox.advance(3600)
    after = sandbox.ledger()[0]
    assert after["gpu_dollars"] == before["gpu_dollars"]
    assert after["disk_dollars"] - before["disk_dollars"] == pytest.approx(after["disk_rate"], rel=0.01)
    assert put(sandbox, str(instance["id"]), {"state": "running"}) == (200, {"success": True})
    boot(sandbox)
    assert row(sandbox, instance["id"])["actual_status"] == "running"


def test_a_start_without_free_gpus_is_queued_and_happens_later(sandbox: SandboxProcess) -> None:
    offer = search(sandbox, gpu_frac={"eq": 1.0}, num_gpus={"eq": 1}, limit=1)[0]
    machine = {"machine_id": {"eq": offer["machine_id"]}}
    mine = int(create(sandbox, offer["id"])[1]["new_contract"])
    put(sandbox, str(mine), {"state": "stopped"})
    rival = int(create(sandbox, search(sandbox, **machine)[0]["id"], "other-key")[1]["new_contract"])
    assert put(sandbox, str(mine), {"state": "running"}) == (200, {"success": False, "msg": QUEUED})
    assert states(row(sandbox, mine)) == ("stopped", "stopped", "running", "running")
    sandbox.api("DELETE", f"/api/v0/instances/{rival}/", {}, key="other-key")
    boot(sandbox)
    assert row(sandbox, mine)["cur_state"] == "running"


def test_a_start_without_credit_is_refused(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox, target_state="stopped")
    sandbox.credit(0)
    status, answer = put(sandbox, str(instance_id), {"state": "running"})
    assert (status, answer["error"]) == (400, "missing_billing")


def test_many_are_stopped_at_once(sandbox: SandboxProcess) -> None:
    ids = [rent(sandbox), rent(sandbox)]
    assert sandbox.api("PUT", "/api/v0/instances/", {"state": "stopped", "ids": ids}) == (200, {"success": True})
    assert {c["intended"] for c in sandbox.alive()} == {"stopped"}


def test_reboot_and_recycle_pass_and_keep_billing(sandbox: SandboxProcess) -> None:
    sandbox.settings(boot_seconds=20)
    instance = running(sandbox)
    for action, status in (("reboot", "rebooting"), ("recycle", "recycling")):
        assert put(sandbox, f"{action}/{instance['id']}", {}) == (200, {"success": True})
        assert row(sandbox, instance["id"])["actual_status"] == status
        boot(sandbox)
        assert row(sandbox, instance["id"])["actual_status"] == "running"
    assert put(sandbox, "reboot/1", {})[1] == {"success": False, "error": "invalid_args", "msg": "invalid instance_id"}
    assert put(sandbox, "recycle/1", {})[1]["error"] == "invalid_id"


def test_a_bid_raised_wakes_and_a_bid_lowered_stops(sandbox: SandboxProcess) -> None:
    instance_id = sandbox.api("PUT", f"/api/v0/asks/{search(sandbox, limit=1)[0]['id']}/",
                              {"image": "a:1", "disk": 10, "price": 0.001})[1]["new_contract"]  # fmt: skip
    least = row(sandbox, instance_id)["min_bid"]
    assert put(sandbox, f"bid_price/{instance_id}", {"client_id": "me", "price": least})[1] == {"success": True}
    boot(sandbox)
    assert row(sandbox, instance_id)["actual_status"] == "running"
    assert sandbox.ledger()[0]["gpu_rate"] == pytest.approx(least)
    put(sandbox, f"bid_price/{instance_id}", {"client_id": "me", "price": 0.002})
    assert states(row(sandbox, instance_id)) == ("stopped",) * 4
    put(sandbox, f"bid_price/{instance_id}", {"client_id": "me", "price": None})
    assert row(sandbox, instance_id)["cur_state"] == "running"
    status, answer = put(sandbox, f"bid_price/{instance_id}", {"price": 0})
    assert (status, answer["msg"]) == (400, "Please set a bid price >= 0.001.")
    assert put(sandbox, "bid_price/1", {"price": 1})[1]["msg"] == "Instance with that ID does not exist."


def test_logs_appear_a_moment_later_and_need_no_key(sandbox: SandboxProcess) -> None:
    sandbox.settings(boot_seconds=0)
    instance_id = rent(sandbox)
    status, answer = put(sandbox, f"request_logs/{instance_id}", {"tail": "100"})
    assert (status, answer["success"]) == (200, True)
    path = answer["result_url"].removeprefix(sandbox.url)
    assert sandbox.raw("GET", path)[0] == 404
    assert eventually(lambda: sandbox.raw("GET", path)[0] == 200)
    assert "Starting OpenBSD Secure Shell server: sshd.\n" in sandbox.raw("GET", path)[2]
    assert put(sandbox, "request_logs/1", {})[1]["error"] == "invalid_id"


def test_execute_allows_three_commands(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox)
    assert put(sandbox, f"command/{instance_id}", {"command": "ls"})[1]["success"] is True
    assert put(sandbox, f"command/{instance_id}", {"command": "reboot"})[0] == 400


def test_an_interruption_looks_like_a_stop(sandbox: SandboxProcess) -> None:
    instance = running(sandbox)
    sandbox.admin("POST", f"instances/{instance['id']}/interrupt")
    assert states(row(sandbox, instance["id"])) == ("stopped",) * 4


@pytest.mark.parametrize(("status", "disk_billed"), [("offline", False), ("exited", True), ("unknown", True)])
def test_a_machine_that_dies(sandbox: SandboxProcess, status: str, disk_billed: bool) -> None:
    instance = running(sandbox)
    sandbox.machine_dies(instance["id"], status, "gone")
    dead = row(sandbox, instance["id"])
    assert (dead["actual_status"], dead["status_msg"], dead["ports"]) == (status, "gone", None)
    before = sandbox.ledger()[0]
    sandbox.advance(3600)
    after = sandbox.ledger()[0]
    assert after["gpu_dollars"] == before["gpu_dollars"]
    assert (after["disk_dollars"] > before["disk_dollars"]) is disk_billed
