"""The process with this face: it survives being killed, and its options are those of the command line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from providers.sandbox.__main__ import read_options
from providers.sandbox.ledger import TENSORDOCK, VASTAI, Ledger
from tests.providers.sandbox.helpers import KeyPair, execute, login
from tests.providers.sandbox.tensordock.conftest import DEDICATED_PORT
from tests.providers.sandbox.tensordock.helpers import (
    CHUBBUCK,
    KEY,
    RTX_3090,
    RTX_4090,
    gpu_row,
    hostnode_of,
    look,
    rent,
    running,
    ssh_port,
    with_key,
)
from tests.sandbox import TensorDockSandbox


def test_a_killed_sandbox_comes_back_with_its_machines(tmp_path: Path, keypair: KeyPair) -> None:
    with TensorDockSandbox(tmp_path, dedicated_port=DEDICATED_PORT) as dock:
        kept = running(dock, "kept", **with_key(keypair))
        own = running(dock, "own", useDedicatedIp=True, port_forwards=None)
        dock.api("DELETE", f"/instances/{rent(dock, 'gone')}")
        dock.api("POST", f"/instances/{own['id']}/stop")
        dock.take_offer(f"{CHUBBUCK} {RTX_3090}")
        secret = {"data": {"attributes": {"name": "mine", "type": "SSHKEY", "value": KEY}}}
        dock.api("POST", "/secrets", secret)
        before, secrets = dock.ledger(), dock.api("GET", "/secrets")
        node = hostnode_of(dock)["id"]
        dock.kill()
        dock.start()
        assert look(dock, kept["id"]) == kept
        assert [(c["id"], c["state"], c["address"]) for c in dock.ledger()] == [
            (c["id"], c["state"], c["address"]) for c in before
        ]
        with login(ssh_port(kept), keypair, "user") as client:
            assert execute(client, "whoami") == ("user\n", "", 0)
        assert gpu_row(dock, RTX_3090) == {}
        assert hostnode_of(dock, RTX_4090)["id"] == node
        assert dock.api("GET", "/secrets") == secrets
        assert dock.ledger()[0]["gpu_dollars"] > before[0]["gpu_dollars"]
        assert dock.ledger()[2]["total_dollars"] == before[2]["total_dollars"]


def test_a_reset_forgets_everything(dock: TensorDockSandbox) -> None:
    rent(dock)
    dock.take_offer(f"{CHUBBUCK} {RTX_4090}")
    dock.settings(hostnodes_empty=True, delete_seconds=9)
    dock.reset()
    assert dock.ledger() == []
    assert gpu_row(dock)["max_count"] == 4
    settings = dock.settings()
    assert (settings["hostnodes_empty"], settings["delete_seconds"]) == (False, 0)


def test_nobody_has_an_address_of_his_own_where_none_can_be_bound(tmp_path: Path) -> None:
    with TensorDockSandbox(tmp_path, dedicated_port=0) as dock:
        assert hostnode_of(dock)["available_resources"]["has_public_ip_available"] is False
        assert gpu_row(dock)["network_features"]["dedicated_ip_available"] is False


def test_tokens_from_the_command_line_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_options([]).tensordock_tokens == ("sandbox-tensordock-token",)
    monkeypatch.setenv("SANDBOX_TENSORDOCK_TOKEN", "a, b")
    assert read_options([]).tensordock_tokens == ("a", "b")
    assert read_options(["--tensordock-token", "c", "--api-key", "d"]).tensordock_tokens == ("c",)
    with pytest.raises(ValueError, match="1 of the API keys are TensorDock tokens too"):
        read_options(["--api-key", "a"])


def test_a_ledger_from_before_this_face_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    old = sqlite3.connect(path)
    old.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, api_key TEXT UNIQUE, credited REAL, spent REAL)")
    old.execute("INSERT INTO accounts VALUES (7, 'sandbox-key', 100, 1)")
    old.commit()
    old.close()
    ledger = Ledger(path)
    assert [(account.id, account.vendor) for account in ledger.accounts()] == [(7, VASTAI)]
    assert ledger.account_by_key("sandbox-key", TENSORDOCK) is None
    ledger.close()
