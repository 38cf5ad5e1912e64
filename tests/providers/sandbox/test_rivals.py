"""Others who bid for the machines that we bid for (Vast.ai contract, section 4.8)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.providers.sandbox.helpers import KeyPair, boot, rent, row, running, search
from tests.providers.sandbox.test_actions import QUEUED, put, states
from tests.sandbox import SandboxProcess

BID = 2.0


@pytest.fixture
def machine(sandbox: SandboxProcess, keypair: KeyPair) -> dict[str, Any]:
    sandbox.api("POST", "/api/v0/ssh/", {"ssh_key": keypair.public})
    return running(sandbox, price=BID)


def credit(sandbox: SandboxProcess) -> float:
    return float(sandbox.api("GET", "/api/v0/users/current/")[1]["credit"])


def others(sandbox: SandboxProcess, machine: dict[str, Any], how: str, **body: Any) -> dict[str, Any]:
    return sandbox.admin("POST", f"instances/{machine['id']}/{how}", body)


def test_outbid_costs_the_disk_alone(sandbox: SandboxProcess, machine: dict[str, Any]) -> None:
    sandbox.advance(3600)
    # A quarter more than the bid, and a cent.
    assert others(sandbox, machine, "outbid") == {"id": machine["id"], "status": "stopped", "winning_bid": 2.51}
    shown = row(sandbox, machine["id"])
    assert states(shown) == ("stopped",) * 4
    assert (shown["min_bid"], shown["is_bid"], shown["dph_base"], shown["ports"]) == (2.51, True, BID, None)
    before, (books,) = credit(sandbox), sandbox.ledger()
    sandbox.advance(7200)
    (after,) = sandbox.ledger()
    assert after["gpu_dollars"] == books["gpu_dollars"] == pytest.approx(BID, rel=0.02)
    assert after["disk_dollars"] - books["disk_dollars"] == pytest.approx(2 * after["disk_rate"], rel=0.01)
    assert before - credit(sandbox) == pytest.approx(2 * after["disk_rate"], rel=0.01)


def test_its_gpus_are_the_others_and_on_sale_to_nobody(sandbox: SandboxProcess, machine: dict[str, Any]) -> None:
    def on_sale() -> int:
        asks = search(sandbox, machine_id={"eq": machine["machine_id"]}, limit=64)
        return max((ask["num_gpus"] for ask in asks), default=0)

    before = on_sale()
    others(sandbox, machine, "outbid")
    assert on_sale() == before
    others(sandbox, machine, "win")
    assert on_sale() >= before + 1  # nobody wants it: it is wanted stopped


def test_it_comes_back_when_it_is_wanted_and_wins(sandbox: SandboxProcess, machine: dict[str, Any]) -> None:
    others(sandbox, machine, "outbid")
    others(sandbox, machine, "win")
    assert row(sandbox, machine["id"])["actual_status"] == "stopped"
    others(sandbox, machine, "outbid")
    assert put(sandbox, str(machine["id"]), {"state": "running"})[1] == {"success": False, "msg": QUEUED}
    boot(sandbox)
    assert row(sandbox, machine["id"])["cur_state"] == "stopped"
    others(sandbox, machine, "win", move=True)
    boot(sandbox)
    back = row(sandbox, machine["id"])
    assert states(back) == ("running",) * 4
    assert back["ports"]["22/tcp"] != machine["ports"]["22/tcp"]
    assert back["ssh_port"] != machine["ssh_port"]
    listening = sandbox.admin("GET", "health")["ssh"][str(machine["id"])]
    assert listening == sorted([int(back["ports"]["22/tcp"][0]["HostPort"]), back["ssh_port"]])


def test_one_that_stays_wanted_comes_back_by_itself(sandbox: SandboxProcess, machine: dict[str, Any]) -> None:
    others(sandbox, machine, "outbid", intended="running")
    assert states(row(sandbox, machine["id"])) == ("stopped", "stopped", "running", "running")
    others(sandbox, machine, "win")
    boot(sandbox)
    assert row(sandbox, machine["id"])["actual_status"] == "running"


def test_a_bid_as_high_as_the_others_wins(sandbox: SandboxProcess, machine: dict[str, Any]) -> None:
    others(sandbox, machine, "outbid", price=3)
    put(sandbox, f"bid_price/{machine['id']}", {"client_id": "me", "price": 2.9})
    assert row(sandbox, machine["id"])["cur_state"] == "stopped"
    put(sandbox, f"bid_price/{machine['id']}", {"client_id": "me", "price": 3})
    boot(sandbox)
    shown, (books,) = row(sandbox, machine["id"]), sandbox.ledger()
    assert (shown["actual_status"], shown["dph_base"]) == ("running", 3)
    assert (books["bid"], books["rival_bid"]) == (3, 0)


def test_the_least_bid_that_is_shown_is_taken(sandbox: SandboxProcess) -> None:
    """Whatever the number of GPUs does to its last digits."""
    shown = search(sandbox, type="bid", order=[["dph_total", "asc"]], limit=64)
    one_of_each_machine = {offer["machine_id"]: offer for offer in shown}.values()
    for offer in one_of_each_machine:
        body = {"image": "a:1", "disk": 10, "price": offer["min_bid"]}
        status, answer = sandbox.api("PUT", f"/api/v0/asks/{offer['id']}/", body)
        assert (status, answer["success"]) == (200, True), (offer["min_bid"], answer)
    assert {offer["num_gpus"] for offer in one_of_each_machine} > {1, 2}


def test_what_cannot_be_outbid(sandbox: SandboxProcess, machine: dict[str, Any]) -> None:
    on_demand = rent(sandbox)
    for id_, how, body, why in (
        (on_demand, "outbid", {}, f"{on_demand} is not interruptible"),
        (machine["id"], "outbid", {"price": BID}, "intended is stopped or running, and price more than"),
        (machine["id"], "outbid", {"intended": "gone"}, "intended is stopped or running"),
        (machine["id"], "win", {}, f"{machine['id']} runs"),
        (1, "outbid", {}, "no such instance: 1"),
    ):
        with pytest.raises(ValueError, match=why):
            sandbox.admin("POST", f"instances/{id_}/{how}", body)
    assert row(sandbox, machine["id"])["actual_status"] == "running"
