"""The seed's examples replayed: health, metrics, inventory, templates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from gpubroker import health
from sessions_app import drive
from tests.conformance.seed import EXAMPLES, assert_like
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import SandboxProcess

HASH = EXAMPLES["template"]["hash_id"]


@pytest.fixture(scope="module")
def sandbox_process(sandbox_of_pages: SandboxProcess) -> SandboxProcess:
    return sandbox_of_pages


@pytest.fixture
def starting(time: MovableClock) -> Iterator[MovableClock]:
    """As in a process that has just started."""
    before = health._started, health._swept
    time.advance(hours=1)
    health._started, health._swept = time(), False
    yield time
    health._started, health._swept = before


def test_health_and_readiness(starting: MovableClock, market: SandboxProcess, driver: Driver) -> None:
    for path, example in (("/health", "health_starting"), ("/ready", "not_ready")):
        response = Client().get(path)
        assert response.status_code == 503
        assert_like(example, response.json())
    assert Client().get("/health").json()["services"].items() >= EXAMPLES["health_starting"]["services"].items()
    starting.advance(seconds=11)
    drive.tick()
    driver.sweep_now()
    for path, example in (("/health", "health"), ("/ready", "ready")):
        response = Client().get(path)
        assert response.status_code == 200
        assert_like(example, response.json())
    assert Client().get("/health").json()["services"].items() >= EXAMPLES["health"]["services"].items()
    assert Client().get("/health").json()["status"] == "ok"
    assert Client().get("/ready").json()["ready"] is True


def test_metrics_have_the_seeds_names_and_labels(market: SandboxProcess, running: Any) -> None:
    text = Client().get("/metrics").content.decode()
    for name, labels in EXAMPLES["metrics"].items():
        assert f"# TYPE {name} " in text
        for line in re.findall(rf"^{name}{{(.*?)}} ", text, re.MULTILINE):
            assert set(labels) <= set(re.findall(r"(\w+)=", line))
    assert 'gpu_sessions_active{provider="vastai",status="running"} 1.0' in text


def test_inventory(stocked: SandboxProcess, api: Api) -> None:
    answer = api.get("/inventory")
    told = [offer for offer in answer["offers"] if "cuda_version" in offer]
    assert_like("inventory", {**answer, "offers": told})
    assert answer["count"] == answer["total"] == len(answer["offers"]) > 64
    first = answer["offers"][0]
    assert first["id"] == f"vastai-{first['provider_id']}"
    assert first["available"] is True


def test_every_parameter_of_the_seed_is_understood(stocked: SandboxProcess, api: Api) -> None:
    parameters = EXAMPLES["inventory_parameters"]
    whole = {offer["id"] for offer in api.get("/inventory")["offers"]}
    for name, value in parameters.items():
        found = {offer["id"] for offer in api.get("/inventory", 200, **{name: value})["offers"]}
        assert found, name
        assert found <= whole, name
    together = api.get("/inventory", 200, **parameters)
    assert together["count"] == len(together["offers"]) <= 10
    assert all(offer["gpu_type"] == "RTX 4090" and offer["price_per_hour"] <= 5.5 for offer in together["offers"])


def test_one_offer(market: SandboxProcess, api: Api) -> None:
    listed = next(offer for offer in api.get("/inventory")["offers"] if "cuda_version" in offer)
    offer = api.get(f"/inventory/{listed['id']}")
    assert_like("inventory", {"offers": [offer], "count": 1, "total": 1})
    assert offer.pop("price_includes") == ["gpu", "vcpu", "ram"]
    assert offer == listed
    assert_like("error", api.get("/inventory/vastai-0", 404))


def test_compatible_templates(fitting: str, api: Api) -> None:
    answer = api.get(f"/inventory/{fitting}/compatible-templates")
    assert_like("compatible_templates", answer)
    assert answer["offer_id"] == fitting
    assert answer["count"] == len(answer["compatible_templates"])
    example = EXAMPLES["compatible_templates"]["compatible_templates"][0]
    assert example in answer["compatible_templates"]
    assert_like("error", api.get("/inventory/vastai-0/compatible-templates", 404))


def test_templates(stocked: SandboxProcess, api: Api) -> None:
    answer = api.get("/templates")
    assert_like("templates", answer)
    assert answer["count"] == len(answer["templates"]) == 12
    assert [item["name"] for item in api.get("/templates", name="ollam")["templates"]] == ["Ollama"]
    one = api.get(f"/templates/{HASH}")
    assert_like("template", one)
    assert (one["id"], one["name"], one["image"]) == (338630, "Ollama", "vastai/ollama")
    assert_like("error", api.get("/templates/0000", 404))
