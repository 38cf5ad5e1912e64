"""Real SSH on every machine, with exactly its keys (Vast.ai contract, sections 4.5 and 4.7)."""

from __future__ import annotations

import json
import socket
import time

import paramiko
import pytest

from tests.providers.sandbox.helpers import (
    KeyPair,
    attach,
    boot,
    create,
    direct_port,
    eventually,
    execute,
    login,
    rent,
    row,
    running,
    search,
)  # fmt: skip
from tests.sandbox import SandboxProcess


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_an_attached_key_opens_the_direct_port_and_the_proxy(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    instance = running(sandbox)
    assert attach(sandbox, instance["id"], keypair) == (
        200,
        {"success": True, "msg": "SSH key attached successfully"},
    )
    for port in (direct_port(instance), instance["ssh_port"]):
        with login(port, keypair) as client:
            assert execute(client, "echo hello") == ("hello\n", "", 0)
            assert execute(client, "hostname") == (f"C.{instance['id']}\n", "", 0)


def test_the_proxy_of_a_jupyter_machine_is_one_port_higher(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    instance = running(sandbox, runtype="jupyter_direct")
    attach(sandbox, instance["id"], keypair)
    with login(instance["ssh_port"] + 1, keypair) as client:
        assert execute(client, "whoami") == ("root\n", "", 0)
    assert refused(instance["ssh_port"])


def test_a_machine_without_direct_ports_has_the_proxy(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    offer = search(sandbox, direct_port_count={"eq": 0}, limit=1)[0]
    _, answer = create(sandbox, offer["id"], runtype="ssh_direct")
    boot(sandbox)
    attach(sandbox, answer["new_contract"], keypair)
    with login(row(sandbox, answer["new_contract"])["ssh_port"], keypair) as client:
        assert execute(client, "true") == ("", "", 0)


def test_args_run_no_sshd(sandbox: SandboxProcess) -> None:
    instance = running(sandbox, runtype="args")
    assert refused(instance["ssh_port"])


def test_wrong_keys_and_other_users_stay_out(sandbox: SandboxProcess, keypair: KeyPair, stranger: KeyPair) -> None:
    instance = running(sandbox)
    attach(sandbox, instance["id"], keypair)
    with pytest.raises(paramiko.AuthenticationException):
        login(direct_port(instance), stranger)
    with pytest.raises(paramiko.AuthenticationException):
        login(direct_port(instance), keypair, user="ubuntu")


def test_no_ssh_before_running_none_when_stopped_none_after_destroy(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    sandbox.settings(boot_seconds=1000)
    instance_id = rent(sandbox)
    attach(sandbox, instance_id, keypair)
    ports = sandbox.ledger()[0]["ssh_ports"]
    assert [refused(port) for port in ports] == [True, True]
    sandbox.advance(1000)
    assert [refused(port) for port in ports] == [False, False]
    sandbox.api("PUT", f"/api/v0/instances/{instance_id}/", {"state": "stopped"})
    assert [refused(port) for port in ports] == [True, True]
    sandbox.api("PUT", f"/api/v0/instances/{instance_id}/", {"state": "running"})
    sandbox.advance(1000)
    client = login(ports[0], keypair)
    sandbox.api("DELETE", f"/api/v0/instances/{instance_id}/", {})
    assert [refused(port) for port in ports] == [True, True]
    transport = client.get_transport()
    assert transport is not None
    assert eventually(lambda: not transport.is_active())
    client.close()


def test_a_key_takes_its_time(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    sandbox.settings(key_delay=600)
    instance = running(sandbox)
    attach(sandbox, instance["id"], keypair)
    with pytest.raises(paramiko.AuthenticationException):
        login(direct_port(instance), keypair)
    sandbox.advance(600)
    login(direct_port(instance), keypair).close()


def test_account_keys_are_in_machines_made_afterwards(
    sandbox: SandboxProcess, keypair: KeyPair, stranger: KeyPair
) -> None:
    early = rent(sandbox)
    sandbox.api("POST", "/api/v0/ssh/", {"ssh_key": keypair.public})
    late = running(sandbox)
    with login(direct_port(late), keypair) as client:
        assert execute(client, "cat ~/.ssh/authorized_keys") == (f"{keypair.public}\n", "", 0)
    with pytest.raises(paramiko.AuthenticationException):
        login(direct_port(row(sandbox, early)), keypair)
    sandbox.api("POST", "/api/v0/ssh/", {"ssh_key": stranger.public})
    assert sandbox.ledger()[-1]["keys"] == [keypair.public]


def test_the_same_key_twice_changes_nothing_and_detach_removes_it(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    instance = running(sandbox)
    path = f"/api/v0/instances/{instance['id']}/ssh/"
    attach(sandbox, instance["id"], keypair)
    assert attach(sandbox, instance["id"], keypair)[0] == 200
    status, answer = sandbox.api("GET", path)
    keys = json.loads(answer["ssh_keys"])
    assert (status, [key["public_key"] for key in keys]) == (200, [keypair.public])
    assert sandbox.api("DELETE", f"{path}{keys[0]['id']}/", {}) == (
        200,
        {"success": True, "msg": "SSH key removed from instance."},
    )
    assert sandbox.api("DELETE", f"{path}{keys[0]['id']}/", {})[1]["error"] == "no_such_ssh_key"
    with pytest.raises(paramiko.AuthenticationException):
        login(direct_port(instance), keypair)


def test_wiped_keys_lock_everybody_out(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    instance = running(sandbox)
    attach(sandbox, instance["id"], keypair)
    assert sandbox.admin("POST", f"instances/{instance['id']}/wipe-keys")["wiped"] == 1
    with pytest.raises(paramiko.AuthenticationException):
        login(direct_port(instance), keypair)


def test_account_keys_over_the_wire(sandbox: SandboxProcess, keypair: KeyPair, stranger: KeyPair) -> None:
    status, answer = sandbox.api("GET", "/api/v0/ssh/")
    assert (status, answer["msg"]) == (404, "No SSH keys found for the user.")
    status, answer = sandbox.api("POST", "/api/v0/ssh/", {"ssh_key": keypair.public})
    key_id = answer["key"]["id"]
    assert (status, answer["success"], answer["key"]["public_key"]) == (200, True, keypair.public)
    status, keys = sandbox.api("GET", "/api/v0/ssh/")
    assert (status, [(key["id"], key["key"]) for key in list(keys)]) == (200, [(key_id, keypair.public)])  # type: ignore[index]
    assert sandbox.api("GET", "/api/v0/ssh/", key="other-key")[0] == 404
    assert sandbox.api("PUT", f"/api/v0/ssh/{key_id}/", {"id": key_id, "ssh_key": stranger.public})[0] == 200
    assert sandbox.api("DELETE", f"/api/v0/ssh/{key_id}/", {}) == (200, {"success": True})
    assert sandbox.api("DELETE", f"/api/v0/ssh/{key_id}/", {})[1]["error"] == "no_ssh_key"
    assert sandbox.api("POST", "/api/v0/ssh/", {"ssh_key": ""})[1]["error"] == "no_ssh_key"
    assert sandbox.api("POST", "/api/v0/ssh/", {"ssh_key": "ssh-ed25519 nonsense"})[0] == 400


def test_attaching_to_nothing(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    assert attach(sandbox, 1, keypair)[1]["error"] == "no_such_instance"


def test_every_machine_has_its_own_host_key(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    found = set()
    for _ in range(2):
        instance = running(sandbox)
        attach(sandbox, instance["id"], keypair)
        with login(direct_port(instance), keypair) as client:
            transport = client.get_transport()
            assert transport is not None
            found.add(transport.get_remote_server_key().get_base64())
            assert transport.remote_version.startswith("SSH-2.0-OpenSSH_8.9p1 Ubuntu")
    assert len(found) == 2


def test_the_gpus_are_those_of_the_offer(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    offer = search(sandbox, gpu_name={"eq": "A100 SXM4"}, gpu_ram={"gte": 80000}, num_gpus={"gte": 2})[0]
    _, answer = create(sandbox, offer["id"], runtype="ssh_direct")
    boot(sandbox)
    attach(sandbox, answer["new_contract"], keypair)
    query = "nvidia-smi --query-gpu=name,memory.total --format=csv,noheader"
    with login(row(sandbox, answer["new_contract"])["ssh_port"], keypair) as client:
        assert execute(client, query) == ("NVIDIA A100-SXM4-80GB, 81920 MiB\n" * offer["num_gpus"], "", 0)
        assert execute(client, "nope --now") == ("", "bash: line 1: nope: command not found\n", 127)
        assert execute(client, "echo a && false; echo b") == ("a\nb\n", "", 0)


def test_load_is_what_the_tests_say(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    instance = running(sandbox)
    attach(sandbox, instance["id"], keypair)
    sandbox.admin("POST", f"instances/{instance['id']}/load", {"utilization": 93, "memory_used": 9000})
    query = "nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits"
    with login(direct_port(instance), keypair) as client:
        assert execute(client, query) == ("93, 9000\n", "", 0)
    assert row(sandbox, instance["id"])["gpu_util"] == 93.0


def test_a_person_can_log_in(sandbox: SandboxProcess, keypair: KeyPair) -> None:
    instance = running(sandbox)
    attach(sandbox, instance["id"], keypair)
    with login(direct_port(instance), keypair) as client:
        shell = client.invoke_shell()
        shell.settimeout(5)
        shell.send(b"whoami\nwho\nnope\nexit 3\n")
        seen, deadline = "", time.monotonic() + 5
        while not shell.exit_status_ready() and time.monotonic() < deadline:
            time.sleep(0.02)
        while shell.recv_ready():
            seen += shell.recv(65536).decode()
    assert f"root@C.{instance['id']}:~# " in seen
    assert "\nroot\r\n" in seen
    assert "pts/0" in seen
    assert "bash: nope: command not found" in seen
    assert shell.recv_exit_status() == 3
