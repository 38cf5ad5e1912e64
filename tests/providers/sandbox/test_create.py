"""Renting over the wire (Vast.ai contract, section 3)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.providers.sandbox.helpers import boot, cheapest, create, listing, rent, row, search
from tests.sandbox import SandboxProcess

OLLAMA = "a8a44c7363cbca20056020397e3bf072"


def test_a_create_names_a_contract_and_keeps_what_was_ordered(sandbox: SandboxProcess) -> None:
    offer = cheapest(sandbox)
    status, answer = create(
        sandbox, offer["id"], label="gpub:1", disk=25, env={"A": "1", "-p 8000:9000": "1"}, onstart="echo hi"
    )
    assert status == 200
    assert set(answer) == {"success", "new_contract", "instance_api_key"}
    assert answer["new_contract"] != offer["id"]
    instance = row(sandbox, answer["new_contract"])
    assert instance["label"] == "gpub:1"
    assert instance["disk_space"] == 25.0
    assert instance["extra_env"] == [["A", "1"], ["-p 8000:9000", "1"]]
    assert instance["onstart"] == "echo hi"
    assert instance["image_uuid"] == "ubuntu:22.04"
    assert instance["image_runtype"] == "ssh ssh_proxy"
    assert (instance["machine_id"], instance["gpu_name"]) == (offer["machine_id"], offer["gpu_name"])
    assert instance["dph_base"] == offer["dph_base"]
    assert instance["dph_total"] == pytest.approx(offer["dph_base"] + 25 * offer["storage_cost"] / 720)


def test_labels_are_not_unique_and_nothing_is_idempotent(sandbox: SandboxProcess) -> None:
    assert rent(sandbox, "same") != rent(sandbox, "same")
    assert listing(sandbox)["label_counts"] == {"same": 2}


def test_an_environment_as_a_string_is_silently_lost(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox, env="-e A=1 -p 8000:8000")
    boot(sandbox)
    instance = row(sandbox, instance_id)
    assert instance["extra_env"] == []
    assert set(instance["ports"]) == {"22/tcp"}


@pytest.mark.parametrize(
    ("shape", "status", "error", "text"),
    [
        ("400", 400, "invalid_args", "error 404/3603: no_such_ask  Instance type by id {} is not available."),
        ("404", 404, "no_such_ask", "error 404/3603: no_such_ask  Instance type by id {} is not available."),
        ("410", 410, "no_such_ask", "error 410/3907: no_such_ask Instance type {} is no longer available."),
    ],
)
def test_a_taken_offer_is_gone_in_three_shapes(
    sandbox: SandboxProcess, shape: str, status: int, error: str, text: str
) -> None:
    sandbox.settings(gone_shape=shape)
    ask = cheapest(sandbox)["id"]
    assert create(sandbox, ask)[0] == 200
    got, answer = create(sandbox, ask)
    assert (got, answer["error"], answer["msg"]) == (status, error, text.format(ask))
    assert len(sandbox.alive()) == 1


def test_unless_switched_the_shape_follows_the_offers_id(sandbox: SandboxProcess) -> None:
    assert [create(sandbox, ask)[0] for ask in (3_000_000, 3_000_001, 3_000_002)] == [400, 404, 410]


def test_no_credit_no_machine(sandbox: SandboxProcess) -> None:
    sandbox.credit(0)
    status, answer = create(sandbox, cheapest(sandbox)["id"])
    assert status == 400
    assert answer == {
        "success": False,
        "error": "insufficient_credit",
        "msg": "Your account lacks credit; see the billing page.",
    }
    assert sandbox.ledger() == []


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"disk": 7}, 400, "invalid_args"),
        ({"disk": 10_000_000}, 400, "invalid_args"),
        ({"disk": "big"}, 400, "invalid_args"),
        ({"image": None}, 400, "invalid_args"),
        ({"image": "x" * 1025}, 400, "invalid_args"),
        ({"image": "untagged/image"}, 500, "server_error"),
        ({"image": "host:5000/untagged"}, 500, "server_error"),
        ({"runtype": "telnet"}, 400, "invalid_args"),
        ({"label": "x" * 257}, 400, "label_too_long"),
        ({"price": 0}, 400, "invalid_price"),
        ({"price": 129}, 400, "invalid_price"),
        ({"onstart": "x" * 4097}, 400, "invalid_args"),
        ({"env": {f"-p {n}:{n}": "1" for n in range(1000, 1065)}}, 400, "invalid_args"),
        ({"env": {"x" * 257: "1"}}, 400, "invalid_args"),
        ({"template_hash_id": "0" * 32}, 400, "invalid_args"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    sandbox: SandboxProcess, body: dict[str, Any], status: int, error: str
) -> None:
    ask = cheapest(sandbox)["id"]
    got, answer = create(sandbox, ask, **body)
    assert (got, answer["error"], answer["success"]) == (status, error, False)
    assert sandbox.ledger() == []
    assert len(search(sandbox, ask_contract_id={"eq": ask})) == 1


@pytest.mark.parametrize("image", ["ubuntu:22.04", "host:5000/team/image:1", "a/b@sha256:abc", "vastai/base-image:@x"])
def test_tagged_images_are_fine(sandbox: SandboxProcess, image: str) -> None:
    assert row(sandbox, rent(sandbox, image=image))["image_uuid"] == image


def test_a_low_bid_leaves_a_stopped_machine_whose_disk_is_billed(sandbox: SandboxProcess) -> None:
    offer = cheapest(sandbox)
    status, answer = create(sandbox, offer["id"], price=0.001, label="low")
    assert (status, answer["success"]) == (200, False)
    instance = row(sandbox, answer["new_contract"])
    states = {instance[name] for name in ("actual_status", "cur_state", "next_state", "intended_status")}
    assert states == {"stopped"}
    assert instance["is_bid"] is True
    assert len(search(sandbox, ask_contract_id={"eq": offer["id"]})) == 1
    sandbox.advance(7200)
    assert sandbox.ledger()[0]["gpu_dollars"] == 0
    assert sandbox.ledger()[0]["disk_dollars"] == pytest.approx(10 * offer["storage_cost"] / 720 * 2, rel=0.01)


def test_a_low_bid_that_must_not_wait_is_a_410_and_nothing(sandbox: SandboxProcess) -> None:
    status, answer = create(sandbox, cheapest(sandbox)["id"], price=0.001, cancel_unavail=True)
    assert (status, answer["error"]) == (410, "no_such_ask")
    assert sandbox.ledger() == []


def test_a_winning_bid_runs_at_its_price(sandbox: SandboxProcess) -> None:
    offer = cheapest(sandbox)
    instance_id = rent(sandbox, price=offer["min_bid"] + 0.01)
    boot(sandbox)
    instance = row(sandbox, instance_id)
    assert (instance["actual_status"], instance["is_bid"]) == ("running", True)
    assert instance["dph_base"] == pytest.approx(offer["min_bid"] + 0.01)


def test_ordered_stopped_it_is_stopped(sandbox: SandboxProcess) -> None:
    assert row(sandbox, rent(sandbox, target_state="stopped"))["actual_status"] == "stopped"


def test_a_template_fills_in_and_the_request_wins(sandbox: SandboxProcess) -> None:
    ask = cheapest(sandbox)["id"]
    _, answer = create(
        sandbox, ask, image=None, disk=None, template_hash_id=OLLAMA, env={"OLLAMA_MODEL": "qwen", "B": "2"}
    )
    boot(sandbox)
    instance = row(sandbox, answer["new_contract"])
    env = dict(instance["extra_env"])
    assert instance["image_uuid"] == "vastai/ollama:@vastai-automatic-tag"
    assert instance["disk_space"] == 32.0
    assert (env["OLLAMA_MODEL"], env["B"], env["OLLAMA_PORT"]) == ("qwen", "2", "11434")
    assert "jupyter" in instance["image_runtype"]
    assert {"11434/tcp", "1111/tcp", "8080/tcp", "22/tcp"} == set(instance["ports"])
    assert (instance["template_id"], instance["template_hash_id"], instance["template_name"]) == (
        338630,
        OLLAMA,
        "Ollama",
    )
    _, answer = create(sandbox, cheapest(sandbox)["id"], image="mine:1", template_hash_id=OLLAMA, disk=12)
    instance = row(sandbox, answer["new_contract"])
    assert (instance["image_uuid"], instance["disk_space"]) == ("mine:1", 12.0)


@pytest.mark.parametrize(
    ("runtype", "words", "ports"),
    [
        ("ssh", "ssh ssh_proxy", set()),
        ("ssh_proxy", "ssh ssh_proxy", set()),
        ("ssh_direct", "ssh ssh_direc ssh_proxy", {"22/tcp"}),
        ("ssh_direc ssh_proxy", "ssh ssh_direc ssh_proxy", {"22/tcp"}),
        ("jupyter", "jupyter jupyter_proxy ssh_proxy", set()),
        ("jupyter_direct", "jupyter jupyter_direc ssh_direc ssh_proxy", {"22/tcp", "8080/tcp"}),
        ("args", "args", set()),
    ],
)
def test_runtypes_open_their_ports(sandbox: SandboxProcess, runtype: str, words: str, ports: set[str]) -> None:
    instance_id = rent(sandbox, runtype=runtype)
    boot(sandbox)
    instance = row(sandbox, instance_id)
    assert instance["image_runtype"] == words
    assert set(instance["ports"]) == ports


def test_args_imply_their_runtype(sandbox: SandboxProcess) -> None:
    instance = row(sandbox, rent(sandbox, runtype=None, args=["-c", "sleep 1"]))
    assert (instance["image_runtype"], instance["image_args"]) == ("args", ["-c", "sleep 1"])


def test_a_machine_without_direct_ports_maps_none(sandbox: SandboxProcess) -> None:
    offer = search(sandbox, direct_port_count={"eq": 0}, limit=1)[0]
    _, answer = create(sandbox, offer["id"], runtype="ssh_direct", env={"-p 8000:8000": "1"})
    boot(sandbox)
    instance = row(sandbox, answer["new_contract"])
    assert (instance["ports"], instance["direct_port_start"]) == ({}, -1)


def test_ports_inside_from_70000_on_are_the_same_outside(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox, env={"-p 70001:70001": "1", "-p 9000:9000/udp": "1"})
    boot(sandbox)
    ports = row(sandbox, instance_id)["ports"]
    assert {name.split("/")[1] for name in ports} == {"tcp", "udp"}
    same = next(name for name in ports if name not in ("22/tcp", "9000/udp"))
    assert ports[same][0]["HostPort"] == same.split("/")[0]


def test_several_offers_at_once(sandbox: SandboxProcess) -> None:
    first = cheapest(sandbox)
    second = cheapest(sandbox, machine_id={"neq": first["machine_id"]})
    body = {"ids": [first["id"], second["id"], 1], "image": "ubuntu:22.04", "disk": 10, "label": "bulk"}
    status, answer = sandbox.api("POST", "/api/v0/asks/bulk/", body)
    assert (status, [r["success"] for r in answer["results"]]) == (200, [True, True, False])
    assert [c["label"] for c in sandbox.alive()] == ["bulk", "bulk"]


def test_the_key_of_an_instance_opens_only_that_instance(sandbox: SandboxProcess) -> None:
    _, answer = create(sandbox, cheapest(sandbox)["id"])
    other = rent(sandbox)
    key = answer["instance_api_key"]
    assert sandbox.api("GET", f"/api/v0/instances/{answer['new_contract']}/", key=key)[0] == 200
    assert sandbox.api("GET", f"/api/v0/instances/{other}/", key=key)[0] == 404
    assert sandbox.api("GET", "/api/v1/instances/", key=key)[0] == 404
    assert sandbox.api("DELETE", f"/api/v0/instances/{answer['new_contract']}/", {}, key=key)[0] == 200
