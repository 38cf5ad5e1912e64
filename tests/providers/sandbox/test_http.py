"""A machine that runs its image as it is answers HTTP on its published ports, and has no SSH."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest

from tests.providers.sandbox.helpers import eventually, row, running
from tests.sandbox import SandboxProcess

WISH: dict[str, Any] = {
    "image": "vllm/vllm-openai:v0.11.0",
    "runtype": "args",
    "args": ["--model", "m"],
    "env": {"-p 8000:8000": "1"},
}


def outside(sandbox: SandboxProcess, instance_id: int) -> int:
    return int(row(sandbox, instance_id)["ports"]["8000/tcp"][0]["HostPort"])


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/v1/models")
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_published_ports_answer_http(sandbox: SandboxProcess) -> None:
    instance = running(sandbox, **WISH)
    port = outside(sandbox, instance["id"])
    assert eventually(lambda: answers(port))
    assert ask(port) == (200, {"image": "vllm/vllm-openai:v0.11.0", "args": ["--model", "m"]})
    assert not answers(instance["ssh_port"])


def test_nothing_answers_after_the_destroy(sandbox: SandboxProcess) -> None:
    instance = running(sandbox, **WISH)
    port = outside(sandbox, instance["id"])
    assert eventually(lambda: answers(port))
    assert sandbox.api("DELETE", f"/api/v0/instances/{instance['id']}/", {})[0] == 200
    assert eventually(lambda: not answers(port))


def test_the_same_port_after_a_restart(sandbox: SandboxProcess) -> None:
    instance = running(sandbox, **WISH)
    port = outside(sandbox, instance["id"])
    sandbox.kill()
    sandbox.start()
    assert eventually(lambda: answers(port))
    assert outside(sandbox, instance["id"]) == port


@pytest.mark.parametrize("asked", [b"", b"nonsense", b"GET / HTTP/1.1\r\n" + b"x" * 70_000])
def test_rude_clients_do_no_harm(sandbox: SandboxProcess, asked: bytes) -> None:
    instance = running(sandbox, **WISH)
    port = outside(sandbox, instance["id"])
    assert eventually(lambda: answers(port))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(asked)
    assert ask(port)[0] == 200
