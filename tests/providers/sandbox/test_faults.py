"""Every fault on demand does what its description says, once, to whom it was meant for."""

from __future__ import annotations

import http.client
import json
import socket
import time

import paramiko
import pytest

from providers.sandbox.faults import AFTER, BEFORE, KINDS, QUIRKS, FaultBook
from tests.providers.sandbox.helpers import (
    KeyPair,
    attach,
    boot,
    cheapest,
    create,
    direct_port,
    execute,
    listing,
    login,
    rent,
    row,
    running,
    search,
)
from tests.sandbox import SandboxProcess


def test_every_kind_is_of_one_sort() -> None:
    listings = {"empty_listing", "partial_listing"}
    assert set(KINDS) == BEFORE | AFTER | QUIRKS | listings | {"slow", "refuse_destroy"}


def test_faults_are_counted_skipped_and_selected() -> None:
    book = FaultBook()
    book.arm({"kind": "error_5xx", "operation": "get", "times": 2, "skip": 1, "label": "mine"})
    struck = [
        book.take({"error_5xx"}, "get", label=label) is not None for label in ("mine", "other", "mine", "mine", "mine")
    ]
    assert struck == [False, False, True, True, False]
    assert [(fault.hits, fault.times) for fault in book.spent] == [(2, 0)]
    book.arm({"kind": "error_5xx", "times": -1})
    assert [book.take({"error_5xx"}, op) is not None for op in ("list", "create", "get")] == [True] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "nonsense"},
        {},
        {"kind": "slow", "times": 0},
        {"kind": "slow", "times": -2},
        {"kind": "slow", "skip": -1},
    ],
)
def test_nonsense_is_refused(sandbox: SandboxProcess, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown fault kind|times is"):
        sandbox.admin("POST", "faults", wrong)
    assert sandbox.faults() == {"armed": [], "spent": []}


def test_faults_are_listed_and_cleared(sandbox: SandboxProcess) -> None:
    sandbox.fault("error_5xx", operation="list", times=3)
    listing_ = sandbox.faults()["armed"]
    assert [(f["kind"], f["operation"], f["times"]) for f in listing_] == [("error_5xx", "list", 3)]
    sandbox.clear_faults()
    assert listing(sandbox)["total_instances"] == 0


def test_lost_answer(sandbox: SandboxProcess) -> None:
    sandbox.fault("lost_answer")
    ask = cheapest(sandbox)["id"]
    with pytest.raises((http.client.HTTPException, OSError)):
        create(sandbox, ask, label="lost")
    assert [contract["label"] for contract in sandbox.alive()] == ["lost"]
    assert create(sandbox, ask)[1]["msg"].find("no_such_ask") >= 0


def test_lost_answer_to_a_destroy(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox)
    sandbox.fault("lost_answer", operation="destroy")
    with pytest.raises((http.client.HTTPException, OSError)):
        sandbox.api("DELETE", f"/api/v0/instances/{instance_id}/", {})
    assert sandbox.alive() == []


@pytest.mark.parametrize("status", [502, 503, 504])
def test_error_5xx_comes_before_the_effect(sandbox: SandboxProcess, status: int) -> None:
    ask = cheapest(sandbox)["id"]
    sandbox.fault("error_5xx", operation="create", status=status)
    got, headers, text = sandbox.raw(
        "PUT",
        f"/api/v0/asks/{ask}/",
        {"image": "a:1"},
        {"Authorization": "Bearer sandbox-key", "Accept": "application/json"},
    )
    assert (got, headers["Content-Type"].split(";")[0]) == (status, "text/html")
    assert text.startswith("<html>")
    assert sandbox.ledger() == []
    assert create(sandbox, ask)[0] == 200


def test_error_after_comes_after_it(sandbox: SandboxProcess) -> None:
    sandbox.fault("error_after", status=504)
    ask = cheapest(sandbox)["id"]
    assert (
        sandbox.raw("PUT", f"/api/v0/asks/{ask}/", {"image": "a:1"}, {"Authorization": "Bearer sandbox-key"})[0] == 504
    )
    assert len(sandbox.alive()) == 1


def test_truncated_json(sandbox: SandboxProcess) -> None:
    sandbox.fault("truncated_json")
    with pytest.raises(json.JSONDecodeError):
        create(sandbox, cheapest(sandbox)["id"])
    sandbox.fault("truncated_json", operation="list", mid_stream=True)
    with pytest.raises(http.client.IncompleteRead):
        listing(sandbox)
    assert len(sandbox.alive()) == 1


def test_malformed(sandbox: SandboxProcess) -> None:
    sandbox.fault("malformed", operation="list")
    sandbox.fault("malformed", operation="get", body={"instances": "none"})
    assert list(listing(sandbox)) == ["unexpected"]
    assert sandbox.api("GET", "/api/v0/instances/1/") == (200, {"instances": "none"})


def test_slow_before_and_after_the_effect(sandbox: SandboxProcess) -> None:
    sandbox.fault("slow", operation="list", seconds=0.3)
    before = time.monotonic()
    assert listing(sandbox)["total_instances"] == 0
    assert 0.3 <= time.monotonic() - before < 2
    sandbox.fault("slow", operation="create", seconds=0.3, after=True)
    assert create(sandbox, cheapest(sandbox)["id"])[0] == 200


def test_rate_limited(sandbox: SandboxProcess) -> None:
    sandbox.fault("rate_limited", operation="create", threshold=9.5)
    status, answer = create(sandbox, cheapest(sandbox)["id"])
    assert status == 429
    assert "threshold=9.5*1.0" in answer["message"]
    sandbox.fault("rate_limited", operation="destroy")
    assert sandbox.api("DELETE", "/api/v0/instances/1/", {})[1]["error"] == "rate_limit_exceeded"
    assert sandbox.ledger() == []


def test_success_false(sandbox: SandboxProcess) -> None:
    sandbox.fault("success_false", operation="create", message="no luck")
    assert create(sandbox, cheapest(sandbox)["id"]) == (200, {"success": False, "msg": "no luck"})
    assert sandbox.ledger() == []


def test_success_false_with_a_contract(sandbox: SandboxProcess) -> None:
    sandbox.fault("success_false", operation="create", contract=True)
    status, answer = create(sandbox, cheapest(sandbox)["id"], label="half")
    assert (status, answer["success"]) == (200, False)
    truth = sandbox.alive()
    assert [(c["id"], c["label"], c["state"]) for c in truth] == [(answer["new_contract"], "half", "stopped")]


@pytest.mark.parametrize("shape", ["400", "404", "410"])
def test_offer_gone(sandbox: SandboxProcess, shape: str) -> None:
    ask = cheapest(sandbox)["id"]
    sandbox.fault("offer_gone", shape=shape)
    status, answer = create(sandbox, ask)
    assert (status, "no_such_ask" in answer["msg"]) == (int(shape), True)
    assert search(sandbox, ask_contract_id={"eq": ask}) == []


def test_insufficient_credit_and_auth_error(sandbox: SandboxProcess) -> None:
    sandbox.fault("insufficient_credit")
    status, answer = create(sandbox, cheapest(sandbox)["id"])
    assert (status, answer["error"]) == (400, "insufficient_credit")
    sandbox.fault("auth_error", operation="list", status=401)
    status, answer = sandbox.api("GET", "/api/v1/instances/")
    assert (status, answer["error"], answer["msg"]) == (401, "auth_error", "Invalid user key")


def test_ssh_attach_fail(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    instance_id = rent(sandbox)
    sandbox.fault("ssh_attach_fail")
    status, answer = attach(sandbox, instance_id, keypair)
    assert (status, answer["error"]) == (500, "server_error")
    assert sandbox.ledger()[0]["keys"] == []
    assert attach(sandbox, instance_id, keypair)[0] == 200


def test_listings_that_lie(sandbox: SandboxProcess) -> None:
    ids = [rent(sandbox) for _ in range(3)]
    sandbox.fault("empty_listing")
    empty = listing(sandbox)
    assert (empty["instances"], empty["total_instances"], empty["label_counts"]) == ([], 0, {})
    sandbox.fault("partial_listing", keep=2)
    partial = listing(sandbox)
    assert ([i["id"] for i in partial["instances"]], partial["total_instances"], partial["next_token"]) == (
        ids[:2],
        3,
        None,
    )
    sandbox.fault("partial_listing", consistent=True)
    assert listing(sandbox)["total_instances"] == 1
    assert listing(sandbox)["total_instances"] == 3


def test_listing_lag(sandbox: SandboxProcess) -> None:
    sandbox.fault("listing_lag", seconds=600)
    instance_id = rent(sandbox)
    assert listing(sandbox)["total_instances"] == 0
    assert row(sandbox, instance_id)["id"] == instance_id
    sandbox.advance(600)
    assert listing(sandbox)["total_instances"] == 1


def test_boot_never(sandbox: SandboxProcess) -> None:
    sandbox.fault("boot_never")
    instance_id = rent(sandbox)
    sandbox.advance(24 * 3600)
    assert row(sandbox, instance_id)["actual_status"] == "loading"
    truth = sandbox.ledger()[0]
    assert (truth["gpu_dollars"], truth["disk_dollars"] > 0) == (0, True)


@pytest.mark.parametrize(
    ("mode", "status", "words"),
    [("oci", "created", "OCI runtime create failed"), ("pull", "loading", "manifest unknown")],
)
def test_boot_error(sandbox: SandboxProcess, mode: str, status: str, words: str) -> None:
    sandbox.fault("boot_error", mode=mode)
    instance_id = rent(sandbox)
    boot(sandbox)
    instance = row(sandbox, instance_id)
    assert (instance["actual_status"], words in instance["status_msg"]) == (status, True)


def test_boot_exited(sandbox: SandboxProcess) -> None:
    sandbox.fault("boot_exited", message="bye")
    instance_id = rent(sandbox)
    boot(sandbox)
    instance = row(sandbox, instance_id)
    assert (instance["actual_status"], instance["status_msg"]) == ("exited", "bye")
    assert sandbox.ledger()[0]["gpu_dollars"] == 0


def test_an_existing_machine_turns_bad(sandbox: SandboxProcess) -> None:
    instance = running(sandbox)
    sandbox.fault("boot_error", instance_id=instance["id"])
    boot(sandbox)
    assert row(sandbox, instance["id"])["actual_status"] == "created"


def test_refuse_destroy_silently_or_aloud(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox)
    path = f"/api/v0/instances/{instance_id}/"
    sandbox.fault("refuse_destroy")
    assert sandbox.api("DELETE", path, {}) == (200, {"success": True})
    assert row(sandbox, instance_id)["id"] == instance_id
    sandbox.fault("refuse_destroy", mode="error")
    assert sandbox.api("DELETE", path, {})[0] == 500
    assert len(sandbox.alive()) == 1
    assert sandbox.api("DELETE", path, {})[0] == 200
    assert sandbox.alive() == []


def test_a_slow_destroy_is_billed_until_it_is_done(sandbox: SandboxProcess) -> None:
    instance = running(sandbox)
    sandbox.fault("refuse_destroy", mode="slow", seconds=3600)
    assert sandbox.api("DELETE", f"/api/v0/instances/{instance['id']}/", {}) == (200, {"success": True})
    sandbox.advance(1800)
    assert row(sandbox, instance["id"])["actual_status"] == "running"
    sandbox.advance(7200)
    assert row(sandbox, instance["id"]) is None
    truth = sandbox.ledger()[0]
    assert truth["gpu_dollars"] == pytest.approx(truth["gpu_rate"], rel=0.02)


def test_refuse_destroy_of_one_machine_only(sandbox: SandboxProcess) -> None:
    kept, gone = rent(sandbox, "kept"), rent(sandbox, "gone")
    sandbox.fault("refuse_destroy", times=-1, label="kept")
    for instance_id in (kept, gone, kept):
        assert sandbox.api("DELETE", f"/api/v0/instances/{instance_id}/", {})[0] == 200
    assert [contract["label"] for contract in sandbox.alive()] == ["kept"]


def test_no_ssh_refuses_or_hangs(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    sandbox.fault("no_ssh")
    instance = running(sandbox)
    with pytest.raises(OSError, match="Unable to connect"):
        login(direct_port(instance), keypair)
    sandbox.fault("no_ssh", mode="hang")
    instance = running(sandbox)
    with socket.create_connection(("127.0.0.1", direct_port(instance)), timeout=1) as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_ssh_delay(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    sandbox.fault("ssh_delay", seconds=3600)
    instance = running(sandbox)
    attach(sandbox, instance["id"], keypair)
    with pytest.raises(OSError, match="Unable to connect"):
        login(direct_port(instance), keypair)
    sandbox.advance(3600)
    login(direct_port(instance), keypair).close()


def test_wrong_gpu(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    sandbox.fault("wrong_gpu", name="NVIDIA GeForce GTX 1050", memory_mb=2048)
    instance = running(sandbox)
    attach(sandbox, instance["id"], keypair)
    with login(direct_port(instance), keypair) as client:
        query = "nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits"
        assert execute(client, query) == ("NVIDIA GeForce GTX 1050, 2048\n", "", 0)
    assert row(sandbox, instance["id"])["gpu_name"] != "GTX 1050"


def test_faults_of_one_account_spare_the_other(sandbox: SandboxProcess) -> None:
    sandbox.fault("error_5xx", operation="list", times=-1, api_key="other-key")
    assert listing(sandbox)["total_instances"] == 0
    assert sandbox.raw("GET", "/api/v1/instances/", None, {"Authorization": "Bearer other-key"})[0] == 502


def test_a_key_that_never_arrives(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    sandbox.settings(key_delay=10**9)
    instance = running(sandbox)
    attach(sandbox, instance["id"], keypair)
    with pytest.raises(paramiko.AuthenticationException):
        login(direct_port(instance), keypair)
