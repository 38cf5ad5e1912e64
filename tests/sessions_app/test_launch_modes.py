"""Launch modes: what is sent for each, and what proves that a machine without SSH runs."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import urllib.request
from typing import Any

import pytest

from offers.models import Offer
from sessions_app import launch_modes, probe
from sessions_app.models import Event, Rental, Session
from sessions_app.verify import NotYet
from templates_app import services as templates
from templates_app.models import Template
from tests.harness import Api, Driver, MovableClock, offers_on_different_machines
from tests.sandbox import SandboxProcess

VLLM: dict[str, Any] = {
    "workload_type": "llm_vllm", "launch_mode": "entrypoint", "model_id": "Qwen/Qwen2.5-7B-Instruct",
    "quantization": "awq",
}  # fmt: skip


def one_gpu_offer() -> str:
    found = Offer.objects.filter(id__in=offers_on_different_machines(50), gpu_count=1).order_by("price_per_hour", "id")
    return str(found.values_list("id", flat=True)[0])


def test_a_model_behind_vllm(market: SandboxProcess, api: Api, driver: Driver) -> None:
    created = api.create(offer_id=one_gpu_offer(), **VLLM)
    assert "ssh_private_key" not in created
    session_id = created["session"]["id"]
    session = driver.until_status(session_id, "running")
    machine = market.alive()[0]
    assert (machine["runtype"], machine["image"]) == ("args", "vllm/vllm-openai:latest")
    assert machine["args"] == [
        "--model", "Qwen/Qwen2.5-7B-Instruct", "--host", "0.0.0.0", "--port", "8000", "--quantization", "awq",
    ]  # fmt: skip
    assert machine["keys"] == []
    outside = machine["ports"]["8000/tcp"]
    endpoint = f"http://127.0.0.1:{outside}"
    shown = api.get(f"/sessions/{session_id}")
    assert shown["api_endpoint"] == session.api_endpoint == endpoint
    assert (shown["ssh_host"], shown["ssh_port"], shown["launch_mode"]) == ("", 0, "entrypoint")
    assert Rental.objects.get().ports == {"8000": ["127.0.0.1", outside]}
    with urllib.request.urlopen(endpoint) as answer:
        assert json.load(answer)["args"][1] == "Qwen/Qwen2.5-7B-Instruct"
    told = Event.objects.get(session=session, to_state="running")
    assert (told.reason, told.details["answer"]) == ("HTTP answered", "HTTP/1.1 200 OK")
    diagnostics = api.get(f"/sessions/{session_id}/diagnostics")
    assert (diagnostics["api_endpoint"], diagnostics["ssh_available"]) == (endpoint, False)
    assert (diagnostics["host_key"], diagnostics["launch_mode"]) == ("", "entrypoint")
    assert api.post(f"/sessions/{session_id}/rekey", {}, 409)["error"].endswith("has no SSH")
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    assert market.alive() == []
    with pytest.raises(NotYet):
        probe.answer("127.0.0.1", outside)


def test_tgi_and_ones_own_image(market: SandboxProcess, api: Api, driver: Driver) -> None:
    first, second = offers_on_different_machines(2)
    wanted: dict[str, Any] = {"launch_mode": "entrypoint", "exposed_ports": [9000, 9001]}
    ids = [
        api.create(offer_id=first, **{**VLLM, "workload_type": "llm_tgi", "quantization": ""})["session"]["id"],
        api.create(offer_id=second, docker_image="me/server", **wanted)["session"]["id"],
    ]
    for session_id in ids:
        driver.until_status(session_id, "running")
    tgi, own = sorted(market.alive(), key=lambda machine: str(machine["image"]))
    assert tgi["image"] == "ghcr.io/huggingface/text-generation-inference:latest"
    assert tgi["args"][:6] == ["--model-id", "Qwen/Qwen2.5-7B-Instruct", "--hostname", "0.0.0.0", "--port", "80"]
    assert (own["image"], own["args"], own["runtype"]) == ("me/server:latest", [], "args")
    assert set(own["ports"]) == {"9000/tcp", "9001/tcp"}
    assert api.get(f"/sessions/{ids[1]}")["api_endpoint"] == f"http://127.0.0.1:{own['ports']['9000/tcp']}"


def test_ones_own_image_without_ports_exposes_the_usual_one(market: SandboxProcess, api: Api, driver: Driver) -> None:
    created = api.create(offer_id=one_gpu_offer(), launch_mode="entrypoint", docker_image="me/server")
    driver.until_status(created["session"]["id"], "running")
    machine = market.alive()[0]
    assert set(machine["ports"]) == {"8000/tcp"}


def test_nothing_answers_in_time(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, settings: Any
) -> None:
    market.fault("no_ssh")
    session_id = api.create(offer_id=one_gpu_offer(), **VLLM)["session"]["id"]
    driver.until(lambda: Rental.objects.get().verify_failures > 0)
    assert Session.objects.get().status == "provisioning"
    time.advance(seconds=settings.SSH_VERIFY_SECONDS + 1)
    driver.round()
    assert Session.objects.get().status == "provisioning"  # image and weights take longer to fetch than that
    time.advance(hours=1)
    session = driver.until_status(session_id, "failed")
    assert session.end_reason == "boot_timeout"
    assert session.end_message.startswith("no HTTP answer on port 8000 within ")
    assert market.alive() == []


def test_a_machine_that_dies_ends_the_session(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create(offer_id=one_gpu_offer(), **VLLM)["session"]["id"]
    driver.until_status(session_id, "running")
    market.machine_dies(market.alive()[0]["id"], "exited")
    driver.sweep_now()
    assert driver.until_status(session_id, "failed").end_reason == "provider_lost"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"launch_mode": "entrypoint"}, "docker_image"),
        ({"launch_mode": "entrypoint", "workload_type": "llm_vllm"}, "docker_image"),
        ({**VLLM, "on_start_cmd": "echo hi"}, "on_start_cmd"),
        ({"preserve_hours": 5}, "preserve_hours"),
    ],
)
def test_refusals(market: SandboxProcess, api: Api, changes: dict[str, Any], field: str) -> None:
    answer = api.create(400, **changes)
    assert answer["field"] == field
    assert answer["error"].startswith(f"{field}: ")
    assert not any(model.objects.exists() for model in (Session, Rental, Event))


def test_a_machine_that_publishes_no_ports(market: SandboxProcess, api: Api) -> None:
    offer = Offer.objects.get(id=one_gpu_offer())
    Offer.objects.filter(id=offer.id).update(raw={**offer.raw, "direct_port_count": 0})
    assert api.create(400, offer_id=offer.id, **VLLM)["field"] == "launch_mode"


def test_ssh_with_image_start_command_and_ports(market: SandboxProcess, api: Api, driver: Driver) -> None:
    options: dict[str, Any] = {
        "docker_image": "pytorch/pytorch",
        "on_start_cmd": "pip install x",
        "exposed_ports": [8888],
    }
    session_id = api.create(**options)["session"]["id"]
    session = driver.until_metered(session_id)
    machine = market.alive()[0]
    assert (machine["image"], machine["onstart"], machine["args"]) == ("pytorch/pytorch:latest", "pip install x", [])
    assert "ssh" in machine["runtype"]
    assert session.api_endpoint == f"http://127.0.0.1:{machine['ports']['8888/tcp']}"
    assert api.get(f"/sessions/{session_id}/diagnostics")["ssh_available"] is True


@pytest.mark.parametrize("runtype", ["args", "jupyter", "ssh"])
def test_ssh_is_always_enabled_with_a_template(market: SandboxProcess, api: Api, driver: Driver, runtype: str) -> None:
    assert templates.sync("vastai")
    asked = {
        "name": f"mine {runtype}",
        "image": "me/image",
        "tag": "1",
        "runtype": runtype,
        "use_ssh": runtype != "args",
    }
    status, made = market.api("POST", "/api/v0/template/", {**asked, "env": "-e A=1 -p 7000:7000", "onstart": "run.sh"})
    assert status == 200, made
    assert templates.sync("vastai")
    hash_id = Template.objects.get(name=f"mine {runtype}").hash_id
    session_id = api.create(template_hash_id=hash_id)["session"]["id"]
    driver.until_status(session_id, "running")
    machine = market.alive()[0]
    assert "ssh" in machine["runtype"]
    assert (machine["image"], machine["onstart"], machine["template_hash_id"]) == ("me/image:1", "run.sh", hash_id)
    assert machine["env"]["A"] == "1"
    assert machine["env"]["GPUBROKER_SESSION_ID"] == session_id
    answer = api.create(400, template_hash_id=hash_id, offer_id=offers_on_different_machines(2)[1], **VLLM)
    assert answer["field"] == "template_hash_id"


@pytest.mark.parametrize(
    ("image", "expected"),
    [("a/b", "a/b:latest"), ("a/b:1", "a/b:1"), ("localhost:5000/a", "localhost:5000/a:latest"), ("", ""),
     ("localhost:5000/a:2", "localhost:5000/a:2"), ("a@sha256:0f", "a@sha256:0f")],
)  # fmt: skip
def test_tags(image: str, expected: str) -> None:
    assert launch_modes.with_tag(image) == expected


# -- the probe against servers that misbehave ------------------------------------------------------------


def serve_once(behave: Any) -> int:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError), listener, listener.accept()[0] as sock:
            sock.recv(1000)
            behave(sock)

    threading.Thread(target=serve, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize(
    "line", ["HTTP/1.1 200 OK", "HTTP/1.0 503 Loading", "HTTP/1.1 404 Not Found", "HTTP/1.1 301 X"]
)
def test_any_status_counts(line: str) -> None:
    port = serve_once(lambda sock: sock.sendall(f"{line}\r\n\r\n".encode()))
    assert probe.answer("127.0.0.1", port) == line


def test_what_is_no_http_does_not_count() -> None:
    port = serve_once(lambda sock: sock.sendall(b"SSH-2.0-OpenSSH\r\n"))
    with pytest.raises(NotYet, match="does not speak HTTP"):
        probe.answer("127.0.0.1", port)


def test_silence_and_dripping_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TOTAL_SECONDS", 0.5)

    def drip(sock: socket.socket) -> None:
        for _ in range(40):
            sock.sendall(b"H")
            threading.Event().wait(0.1)

    for behave in (lambda sock: threading.Event().wait(3), drip):
        with pytest.raises(NotYet):
            probe.answer("127.0.0.1", serve_once(behave))


def test_nobody_there() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(NotYet, match="does not answer"):
            probe.answer("127.0.0.1", silent.getsockname()[1])
