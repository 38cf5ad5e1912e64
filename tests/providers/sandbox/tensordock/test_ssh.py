"""Real SSH as ``user``, keys by every way that there is, addresses of one's own (TensorDock contract, section 10)."""

from __future__ import annotations

import socket
from typing import Any

import paramiko
import pytest

from tests.providers.sandbox.helpers import KeyPair, eventually, execute, login
from tests.providers.sandbox.tensordock.conftest import DEDICATED_PORT
from tests.providers.sandbox.tensordock.helpers import boot, hostnode_of, look, rent, running, ssh_port, with_key
from tests.sandbox import TensorDockSandbox


def refused(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((host, port)) != 0


def test_the_key_opens_the_door_for_user(dock: TensorDockSandbox, keypair: KeyPair, stranger: KeyPair) -> None:
    port = ssh_port(running(dock, **with_key(keypair)))
    with login(port, keypair, "user") as client:
        assert execute(client, "whoami; pwd; echo $HOME; id -u") == ("user\n/home/user\n/home/user\n1000\n", "", 0)
        assert execute(client, "sudo -n whoami") == ("root\n", "", 0)
        assert execute(client, "cat ~/.ssh/authorized_keys") == (f"{keypair.public}\n", "", 0)
        query = "nvidia-smi --query-gpu=name,memory.total --format=csv,noheader"
        assert execute(client, query) == ("NVIDIA GeForce RTX 4090, 24564 MiB\n", "", 0)
    for who, key in (("root", keypair), ("user", stranger), ("ubuntu", keypair)):
        with pytest.raises(paramiko.AuthenticationException):
            login(port, key, who)


def test_ssh_answers_later_than_running(dock: TensorDockSandbox, keypair: KeyPair) -> None:
    dock.settings(boot_seconds=60)
    machine = rent(dock, **with_key(keypair))
    dock.advance(61)
    detail = look(dock, machine)
    assert detail["status"] == "running"
    assert refused(ssh_port(detail))
    dock.advance(30)
    with login(ssh_port(detail), keypair, "user") as client:
        assert execute(client, "true") == ("", "", 0)


@pytest.mark.parametrize(
    ("runcmd", "users"),
    [
        (["echo '{key}' >> /root/.ssh/authorized_keys"], ["root"]),
        (["mkdir -p ~/.ssh && printf '%s\\n' \"{key}\" >> ~/.ssh/authorized_keys"], ["root"]),
        ([["sh", "-c", "echo '{key}' >> /home/user/.ssh/authorized_keys"]], ["user"]),
        (["echo '{key}' | tee -a /root/.ssh/authorized_keys /dev/null", "true"], ["root"]),
        (
            ["for h in /root /home/user; do mkdir -p $h/.ssh; echo '{key}' >> $h/.ssh/authorized_keys; done"],
            ["root", "user"],
        ),
        (["echo '{key}' > /tmp/key", "chmod 600 /root/.ssh/authorized_keys"], []),
    ],
    ids=str,
)
def test_runcmd_installs_keys(
    dock: TensorDockSandbox, keypair: KeyPair, stranger: KeyPair, runcmd: list[Any], users: list[str]
) -> None:
    filled = [
        [part.replace("{key}", stranger.public) for part in entry]
        if isinstance(entry, list)
        else entry.replace("{key}", stranger.public)
        for entry in runcmd
    ]
    rent(dock, cloud_init={"runcmd": filled}, **with_key(keypair))
    (contract,) = dock.alive()
    got = {contract["user"]: contract["keys"][1:], **contract["more_keys"]}
    assert {user: keys for user, keys in got.items() if keys} == {user: [stranger.public] for user in users}


def test_a_key_of_runcmd_opens_the_door(dock: TensorDockSandbox, keypair: KeyPair, stranger: KeyPair) -> None:
    commands = [f"echo '{stranger.public}' >> {home}/.ssh/authorized_keys" for home in ("/root", "/home/user")]
    port = ssh_port(running(dock, cloud_init={"runcmd": commands}, **with_key(keypair)))
    for who, key in (("user", keypair), ("user", stranger), ("root", stranger)):
        with login(port, key, who) as client:
            assert execute(client, "whoami") == (f"{who}\n", "", 0)
    machine = dock.alive()[0]["id"]
    assert dock.admin("POST", f"instances/{machine}/wipe-keys")["wiped"] == 3
    with pytest.raises(paramiko.AuthenticationException):
        login(port, stranger, "root")


def test_write_files_come_too_early_for_keys(dock: TensorDockSandbox, keypair: KeyPair, stranger: KeyPair) -> None:
    files = [
        {"path": "/home/user/.ssh/authorized_keys", "content": stranger.public},
        {"path": "/root/.ssh/authorized_keys", "content": stranger.public},
        {"path": "/opt/keys.sh", "content": f"echo '{stranger.public}' >> /root/.ssh/authorized_keys\n"},
    ]
    port = ssh_port(running(dock, cloud_init={"write_files": files}, **with_key(keypair)))
    with login(port, keypair, "user") as client:
        assert execute(client, "cat /opt/keys.sh")[0] == files[2]["content"]
    assert dock.alive()[0]["more_keys"] == {}
    rent(dock, cloud_init={"write_files": files, "runcmd": ["bash /opt/keys.sh"]}, **with_key(keypair))
    assert dock.alive()[1]["more_keys"] == {"root": [stranger.public]}


def test_a_key_that_did_not_land(dock: TensorDockSandbox, keypair: KeyPair, stranger: KeyPair) -> None:
    dock.fault("ssh_attach_fail")
    command = f"echo '{stranger.public}' >> /home/user/.ssh/authorized_keys"
    port = ssh_port(running(dock, cloud_init={"runcmd": [command]}, **with_key(keypair)))
    with pytest.raises(paramiko.AuthenticationException):
        login(port, keypair, "user")
    with login(port, stranger, "user") as client:
        assert execute(client, "true") == ("", "", 0)


def test_an_address_of_its_own(dock: TensorDockSandbox, keypair: KeyPair) -> None:
    wanted = {"useDedicatedIp": True, "port_forwards": None, **with_key(keypair)}
    detail = running(dock, **wanted)
    assert (detail["ipAddress"].split(".")[:2], detail["portForwards"]) == (["127", "77"], [])
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - a new machine
    with client:
        client.connect(
            detail["ipAddress"], DEDICATED_PORT, "user", pkey=keypair.private, timeout=5, allow_agent=False,
            look_for_keys=False,
        )  # fmt: skip
        assert execute(client, "whoami") == ("user\n", "", 0)
    assert hostnode_of(dock)["available_resources"]["has_public_ip_available"] is False
    assert dock.api("DELETE", f"/instances/{detail['id']}")[0] == 200
    assert eventually(lambda: refused(DEDICATED_PORT, detail["ipAddress"]))
    assert hostnode_of(dock)["available_resources"]["has_public_ip_available"] is True


def test_a_stopped_machine_lets_nobody_in(dock: TensorDockSandbox, keypair: KeyPair) -> None:
    detail = running(dock, **with_key(keypair))
    dock.api("POST", f"/instances/{detail['id']}/stop")
    assert eventually(lambda: refused(ssh_port(detail)))
    dock.advance(30)
    dock.api("POST", f"/instances/{detail['id']}/start")
    boot(dock)
    with login(ssh_port(look(dock, detail["id"])), keypair, "user") as client:
        assert execute(client, "true") == ("", "", 0)


@pytest.mark.parametrize(
    ("mode", "answer", "after_reboot"),
    [("none", 127, 127), ("half", 9, 9), ("reboot", 9, 0)],
)
def test_drivers_that_are_not_there_yet(
    dock: TensorDockSandbox, keypair: KeyPair, mode: str, answer: int, after_reboot: int
) -> None:
    dock.fault("no_driver", mode=mode)
    port = ssh_port(running(dock, **with_key(keypair)))
    with login(port, keypair, "user") as client:
        assert execute(client, "nvidia-smi -L")[2] == answer
        assert execute(client, "reboot")[2] == 1
        execute(client, "sudo reboot")
        assert execute(client, "nvidia-smi -L")[2] == after_reboot
