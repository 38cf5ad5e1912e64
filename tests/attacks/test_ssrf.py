"""What a consumer names is handed to the provider as it is; the broker itself calls nobody at a consumer's word."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sessions_app.models import Session
from tests.harness import Api, Driver
from tests.sandbox import SandboxProcess


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A service inside the network, that only the broker could reach."""
    with socket.create_server(("127.0.0.1", 0)) as inside:
        yield inside


def called(listener: socket.socket) -> bool:
    return bool(select.select([listener], [], [], 0)[0])


def test_no_word_of_a_consumer_makes_the_broker_call(
    market: SandboxProcess, api: Api, driver: Driver, listener: socket.socket
) -> None:
    where = f"127.0.0.1:{listener.getsockname()[1]}"
    words: dict[str, Any] = {
        "docker_image": f"{where}/image:1", "model_id": f"http://{where}/model", "quantization": f"http://{where}/",
        "on_start_cmd": f"curl http://{where}/ > /tmp/x; rm -rf /",
    }  # fmt: skip
    session_id = api.create(**words)["session"]["id"]
    driver.until_status(session_id, "running")
    (machine,) = market.alive()
    _, answer = market.api("GET", f"/api/v0/instances/{machine['id']}/?owner=me")
    assert answer["instances"]["image_uuid"] == words["docker_image"]
    assert words["on_start_cmd"] in answer["instances"]["onstart"]
    assert Session.objects.get(id=session_id).docker_image == words["docker_image"]
    api.get(f"/sessions/{session_id}/diagnostics")
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    assert not called(listener)


@pytest.mark.parametrize(
    "image",
    ["file:///etc/passwd", "http://169.254.169.254/latest/meta-data", "gopher://x", "-v /:/host x", "x --privileged"],
)
def test_an_image_is_a_name_and_no_address(market: SandboxProcess, api: Api, driver: Driver, image: str) -> None:
    """It travels in its own field: a flag in it is part of the name."""
    session_id = api.create(docker_image=image)["session"]["id"]
    driver.round()
    (contract,) = market.ledger()
    _, answer = market.api("GET", f"/api/v0/instances/{contract['id']}/?owner=me")
    assert answer["instances"]["image_uuid"].startswith(image)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")


@pytest.mark.parametrize(
    "key",
    ["command=\"id\" ssh-ed25519 AAAA x", "ssh-ed25519 AAAA\nssh-ed25519 AAAA evil",
    "ssh-ed25519 AAAA x\r\nPermitRootLogin yes",
     "$(id)", "../../root/.ssh/authorized_keys", "ssh-ed25519 AAAA x\x00", "-----BEGIN OPENSSH PRIVATE KEY-----"],
)  # fmt: skip
def test_a_public_key_is_one_plain_line(market: SandboxProcess, api: Api, key: str) -> None:
    assert api.create(400, ssh_public_key=key)["field"] == "ssh_public_key"
    assert api.get("/sessions")["total"] == 0
