"""What most tests of the sandbox do: find an offer, rent it, wait, log in."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.sandbox import SandboxProcess

IMAGE = "ubuntu:22.04"


@dataclass(frozen=True)
class KeyPair:
    private: paramiko.PKey
    public: str

    @classmethod
    def generate(cls) -> KeyPair:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return cls(paramiko.Ed25519Key.from_private_key(io.StringIO(pem.decode())), f"{public.decode()} test")


def search(sandbox: SandboxProcess, **wanted: Any) -> list[dict[str, Any]]:
    status, answer = sandbox.api("POST", "/api/v0/bundles/", wanted)
    assert status == 200, answer
    offers: list[dict[str, Any]] = answer["offers"]
    return offers


def cheapest(sandbox: SandboxProcess, **wanted: Any) -> dict[str, Any]:
    """The cheapest offer of one GPU that has direct ports."""
    filters = {"num_gpus": {"eq": 1}, "direct_port_count": {"gt": 1}, **wanted}
    return search(sandbox, order=[["dph_total", "asc"]], limit=1, **filters)[0]


def create(sandbox: SandboxProcess, ask_id: int, key: str | None = None, **body: Any) -> tuple[int, dict[str, Any]]:
    return sandbox.api("PUT", f"/api/v0/asks/{ask_id}/", {"image": IMAGE, "disk": 10, **body}, key=key)


def rent(sandbox: SandboxProcess, label: str = "test", key: str | None = None, **body: Any) -> int:
    """Rent the cheapest offer with direct SSH; the contract's id."""
    status, answer = create(sandbox, cheapest(sandbox)["id"], key, **{"label": label, "runtype": "ssh_direct", **body})
    assert (status, answer["success"]) == (200, True)
    return int(answer["new_contract"])


def row(sandbox: SandboxProcess, instance_id: int, key: str | None = None) -> dict[str, Any]:
    status, answer = sandbox.api("GET", f"/api/v0/instances/{instance_id}/", key=key)
    assert status == 200
    found: dict[str, Any] = answer["instances"]
    return found


def listing(sandbox: SandboxProcess, query: str = "", key: str | None = None) -> dict[str, Any]:
    status, answer = sandbox.api("GET", f"/api/v1/instances/{query}", key=key)
    assert status == 200, answer
    return answer


def boot(sandbox: SandboxProcess) -> None:
    """Let everything that is booting be done."""
    sandbox.advance(30)


def running(sandbox: SandboxProcess, label: str = "test", **body: Any) -> dict[str, Any]:
    instance_id = rent(sandbox, label, **body)
    boot(sandbox)
    found = row(sandbox, instance_id)
    assert found["actual_status"] == "running"
    return found


def direct_port(instance: dict[str, Any]) -> int:
    return int(instance["ports"]["22/tcp"][0]["HostPort"])


def attach(sandbox: SandboxProcess, instance_id: int, keypair: KeyPair) -> tuple[int, dict[str, Any]]:
    return sandbox.api("POST", f"/api/v0/instances/{instance_id}/ssh/", {"ssh_key": keypair.public})


def login(port: int, keypair: KeyPair, user: str = "root", timeout: float = 5) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - a new machine each time
    client.connect(
        "127.0.0.1", port, user, pkey=keypair.private, timeout=timeout, banner_timeout=timeout, auth_timeout=timeout,
        allow_agent=False, look_for_keys=False,
    )  # fmt: skip
    return client


def execute(client: paramiko.SSHClient, command: str) -> tuple[str, str, int]:
    """Output, error output and exit status of a command."""
    _, out, err = client.exec_command(command, timeout=5)
    text, errors = out.read().decode(), err.read().decode()
    return text, errors, out.channel.recv_exit_status()


def eventually(check: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether the check comes true in time: for what happens beside our calls."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return False
