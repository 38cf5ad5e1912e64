"""Renting: what is refused how, and what an accepted order becomes (TensorDock contract, section 5)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.sandbox.tensordock.errors import Refused
from providers.sandbox.tensordock.validate import read
from tests.providers.sandbox.tensordock.helpers import (
    CHUBBUCK,
    KEY,
    RTX_3090,
    RTX_4090,
    SSH_FORWARD,
    boot,
    create,
    hostnode_of,
    look,
    order,
    rent,
    running,
    ssh_port,
)
from tests.sandbox import TENSORDOCK_PATH, TensorDockSandbox

NO_NODES = {"status": 400, "error": "No available nodes found for the requested configuration"}


def paths(answer: Any) -> list[tuple[str, str]]:
    """Code and place of every entry of a validation array."""
    return [(issue["code"], ".".join(issue["path"]).removeprefix("data.attributes.")) for issue in answer]


def test_the_answer_says_nothing_of_where_it_is(dock: TensorDockSandbox) -> None:
    status, answer = create(dock, "gpub-1")
    machine = answer["data"].pop("id")
    assert (status, answer) == (200, {"data": {"type": "virtualmachine", "name": "gpub-1", "status": "creating"}})
    (contract,) = dock.alive()
    assert (contract["id"], contract["label"], contract["vendor"]) == (machine, "gpub-1", "tensordock")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": None}, [("invalid_type", "name")]),
        ({"name": ""}, [("too_small", "name")]),
        ({"type": "instance"}, [("invalid_literal", "type")]),
        ({"image": "debian12"}, [("invalid_enum_value", "image")]),
        ({"resources": {"storage_gb": 99}}, [("too_small", "resources.storage_gb")]),
        ({"resources": {"vcpu_count": 7}}, [("custom", "resources.vcpu_count")]),
        ({"resources": {"vcpu_count": "8"}}, [("invalid_type", "resources.vcpu_count")]),
        ({"resources": {"ram_gb": 24}}, [("custom", "resources.ram_gb")]),
        ({"resources": {"gpus": [RTX_4090]}}, [("invalid_type", "resources.gpus"), ("custom", "resources.gpus")]),
        (
            {"resources": {"gpus": {"model": RTX_4090}}},
            [("invalid_type", "resources.gpus.model"), ("custom", "resources.gpus")],
        ),
        ({"resources": {"gpus": {RTX_4090: {}}}}, None),
        ({"resources": {"gpus": {RTX_4090: {"count": 1}, RTX_3090: {"count": 1}}}}, [("custom", "resources.gpus")]),
        ({"resources": {"gpus": {}}}, [("custom", "resources.gpus")]),
        ({"location_id": None}, [("custom", "location_id")]),
        ({"hostnode_id": CHUBBUCK}, [("custom", "location_id")]),
        ({"ssh_key": None}, [("custom", "ssh_key")]),
        ({"ssh_key_id": "one"}, [("custom", "ssh_key")]),
        ({"ssh_key": "nonsense"}, [("custom", "ssh_key")]),
        ({"ssh_key": f"{KEY}\n{KEY}"}, [("custom", "ssh_key")]),
        ({"ssh_key": None, "ssh_key_id": "unknown"}, [("custom", "ssh_key_id")]),
        ({"port_forwards": []}, [("custom", "port_forwards")]),
        ({"port_forwards": {"22": 22}}, [("invalid_type", "port_forwards"), ("custom", "port_forwards")]),
        (
            {"port_forwards": [SSH_FORWARD, {"internal_port": 80, "external_port": 70_000}]},
            [("custom", "port_forwards.1")],
        ),
        ({"image": "windows10", "ssh_key": None}, [("too_small", "password")]),
        ({"cloud_init": "#cloud-config"}, [("invalid_type", "cloud_init")]),
        ({"cloud_init": {"runcmd": "ls"}}, [("invalid_type", "cloud_init.runcmd")]),
        ({"cloud_init": {"users": []}}, [("unrecognized_keys", "cloud_init")]),
    ],
    ids=str,
)
def test_what_is_wrong_is_an_array(
    dock: TensorDockSandbox, changes: dict[str, Any], expected: list[tuple[str, str]] | None
) -> None:
    status, answer = create(dock, **changes)
    assert status == 400
    assert paths(answer) == (
        expected or [("invalid_type", f"resources.gpus.{RTX_4090}.count"), ("custom", "resources.gpus")]
    )
    assert dock.ledger() == []


def test_all_that_is_wrong_is_told_at_once(dock: TensorDockSandbox) -> None:
    status, answer = dock.api("POST", "/instances", {"data": {"type": "virtualmachine", "attributes": {}}})
    assert status == 400
    assert [place for _, place in paths(answer)] == [
        *("type", "resources", "image", "port_forwards", "ssh_key", "name"),
        *("resources.vcpu_count", "resources.ram_gb", "resources.storage_gb", "location_id"),
    ]
    assert dock.api("POST", "/instances", {}) == (
        400,
        [
            {
                "code": "invalid_type",
                "expected": "object",
                "received": "undefined",
                "path": ["data"],
                "message": "Required",
            }
        ],
    )
    assert dock.raw("POST", f"{TENSORDOCK_PATH}/instances", "{", {"Authorization": "Bearer dock-token"})[0] == 400


def test_the_messages_that_clients_look_for(dock: TensorDockSandbox) -> None:
    assert create(dock, port_forwards=[])[1][0]["message"] == (
        "SSH port (22) must be forwarded when not using a dedicated IP"
    )
    dock.settings(few_images=True)
    _, (issue,) = create(dock, image="ubuntu2404_nvidia_570")
    assert (issue["code"], issue["received"], len(issue["options"])) == (
        "invalid_enum_value",
        "ubuntu2404_nvidia_570",
        6,
    )
    assert create(dock, image="ubuntu2404_ml_pytorch")[0] == 200


def test_nothing_is_free_any_more(dock: TensorDockSandbox) -> None:
    dock.take_offer(f"{CHUBBUCK} {RTX_4090}")
    assert create(dock) == (200, NO_NODES)
    assert create(dock, location_id="00000000-0000-0000-0000-000000000000") == (200, NO_NODES)
    node = hostnode_of(dock, RTX_3090)
    wrong = {"hostnode_id": node["id"], "location_id": None}
    assert create(dock, **wrong) == (200, {"status": 400, "error": "Hostnode unavailable"})
    assert dock.ledger() == []


def test_no_host_has_so_many_gpus(dock: TensorDockSandbox) -> None:
    assert create(dock, resources={"gpus": {RTX_4090: {"count": 5}}}) == (200, NO_NODES)
    assert create(dock, resources={"gpus": {RTX_4090: {"count": 4}}, "storage_gb": 9000}) == (200, NO_NODES)
    assert create(dock, resources={"vcpu_count": 58}) == (200, NO_NODES)
    assert create(dock, resources={"gpus": {RTX_4090: {"count": 4}}})[0] == 200


def test_too_much_memory_for_the_gpus(dock: TensorDockSandbox) -> None:
    text = "RAM per GPU exceeds ratio limit for this hostnode"
    assert create(dock, resources={"ram_gb": 176}) == (200, {"status": 400, "error": text})


def test_addresses_run_out(dock: TensorDockSandbox) -> None:
    wanted: dict[str, Any] = {
        "useDedicatedIp": True,
        "port_forwards": None,
        "resources": {"gpus": {RTX_3090: {"count": 1}}},
    }
    first, second = rent(dock, **wanted), create(dock, **wanted)
    assert second == (200, {"status": 400, "error": "No available public IPs on this hostnode"})
    assert [contract["id"] for contract in dock.alive()] == [first]


def test_a_dollar_is_needed(dock: TensorDockSandbox) -> None:
    text = "You need at least $1.00 in your account balance to deploy a virtual machine"
    dock.credit(0.99)
    assert create(dock) == (200, {"status": 400, "error": text})
    assert dock.ledger() == []
    dock.credit(1)
    assert create(dock)[0] == 200


def test_the_same_order_twice_is_two_machines(dock: TensorDockSandbox) -> None:
    assert rent(dock, "same") != rent(dock, "same")
    assert [contract["label"] for contract in dock.alive()] == ["same", "same"]


def test_locations_choose_the_outside_ports(dock: TensorDockSandbox) -> None:
    forwards = [SSH_FORWARD, {"internal_port": 8000, "external_port": 8000}]
    detail = running(dock, port_forwards=forwards)
    assert [row["internal_port"] for row in detail["portForwards"]] == [22, 8000]
    assert all(row["external_port"] not in (22, 8000) for row in detail["portForwards"])


def test_hostnodes_keep_to_the_wish(dock: TensorDockSandbox) -> None:
    node = hostnode_of(dock)
    free = node["available_resources"]["available_ports"]
    place = {"hostnode_id": node["id"], "location_id": None}
    wish = [
        {"internal_port": 22, "external_port": free[0]},
        {"internal_port": 8000, "external_port": free[1]},
    ]
    detail = running(dock, **place, port_forwards=wish)
    assert detail["portForwards"] == wish
    taken = create(dock, **place, port_forwards=wish)
    assert (taken[0], paths(taken[1])) == (400, [("custom", "port_forwards")])
    assert free[0] not in hostnode_of(dock)["available_resources"]["available_ports"]
    assert len(dock.alive()) == 1


def test_ports_that_are_silently_dropped(dock: TensorDockSandbox) -> None:
    dock.settings(ports_ignored=True)
    assert running(dock)["portForwards"] == []


def test_a_machine_without_a_gpu_needs_a_hostnode(dock: TensorDockSandbox) -> None:
    place = {"hostnode_id": hostnode_of(dock)["id"], "location_id": None}
    detail = running(dock, **place, port_forwards=[{"internal_port": 22, "external_port": 0}], resources={"gpus": {}})
    assert detail["resources"] == {"vcpu_count": 8, "ram_gb": 32, "storage_gb": 100, "gpus": {}}
    assert detail["rateHourly"] == 0.093


def test_windows_has_no_ssh(dock: TensorDockSandbox) -> None:
    machine = rent(dock, image="windows10", ssh_key=None, password="Pass-word1", port_forwards=[])
    boot(dock)
    assert look(dock, machine)["portForwards"] == []
    assert dock.ledger()[0]["ssh_ports"] == []


def test_a_secret_can_stand_for_the_key(dock: TensorDockSandbox) -> None:
    attributes = {"name": "mine", "type": "SSHKEY", "value": KEY}
    _, made = dock.api("POST", "/secrets", {"data": {"type": "secret", "attributes": attributes}})
    rent(dock, ssh_key=None, ssh_key_id=made["data"]["id"])
    assert dock.ledger()[0]["keys"] == [KEY]


def test_accounts_do_not_see_each_other(dock: TensorDockSandbox) -> None:
    machine = rent(dock)
    assert dock.api("GET", "/instances", key="other-token") == (200, {"data": []})
    assert dock.api("GET", f"/instances/{machine}", key="other-token")[0] == 404
    assert dock.api("DELETE", f"/instances/{machine}", key="other-token")[0] == 404
    assert len(dock.alive()) == 1


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "dock-token"}, {"Authorization": "Bearer sandbox-key"}],
    ids=str,
)
def test_nobody_is_let_in_without_a_token(dock: TensorDockSandbox, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/instances?api_token=dock-token"), ("POST", "/instances"), ("GET", "/secrets")):
        status, _, text = dock.raw(method, TENSORDOCK_PATH + path, order(), headers)
        assert (status, text) == (401, '{"error": "Unauthorized"}')
    assert dock.ledger() == []


def test_the_other_face_does_not_know_the_token_nor_the_machines(dock: TensorDockSandbox) -> None:
    rent(dock)
    sent = {"Accept": "application/json", "Authorization": f"Bearer {dock.api_key}"}
    assert dock.raw("GET", "/api/v1/instances/", None, sent)[0] == 404
    status, _, text = dock.raw("GET", "/api/v1/instances/", None, {**sent, "Authorization": "Bearer sandbox-key"})
    assert (status, '"total_instances": 0' in text) == (200, True)
    assert ssh_port(running(dock)) > 20_000


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


def complaints(body: Any) -> list[dict[str, Any]]:
    """What is wrong with an order; empty for a good one."""
    try:
        read(body, few_images=False)
    except Refused as refused:
        return list(refused.body)
    return []


@given(
    name=st.sampled_from(
        ["name", "image", "resources", "location_id", "hostnode_id", "ssh_key", "port_forwards", "cloud_init"]
    ),
    value=ODD,
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_order_is_beyond_words(name: str, value: Any) -> None:
    """Whatever stands where, it is read as an order or refused with an array."""
    body = order("odd")
    body["data"]["attributes"][name] = value
    assert all(issue["code"] and issue["message"] and issue["path"] for issue in complaints(body))


@given(body=ODD)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_what_is_no_order_is_refused(body: Any) -> None:
    assert complaints(body)[0]["path"][0] == "data"
