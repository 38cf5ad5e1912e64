"""A marketplace, an inventory with templates, and a session that runs, made only over the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from templates_app import services as templates
from tests.conformance.seed import EXAMPLES
from tests.harness import Api, Driver, cheapest_offer
from tests.sandbox import SandboxProcess


@pytest.fixture
def stocked(market: SandboxProcess) -> SandboxProcess:
    """With the templates synced, the seed's Ollama among them."""
    templates.sync("vastai")
    return market


@pytest.fixture
def fitting(stocked: SandboxProcess, api: Api) -> str:
    """An offer for the seed's template, with disk enough for the seed's request."""
    hash_id = EXAMPLES["create_request"]["template_hash_id"]
    offers = api.get("/inventory", template_hash_id=hash_id)["offers"]
    return str(next(offer["id"] for offer in offers if (offer["disk_gb"] or 0) >= 200))


@pytest.fixture
def run(market: SandboxProcess, api: Api, driver: Driver) -> Callable[..., Any]:
    """Create a session and drive it until it runs; its representation."""

    def made(**changes: Any) -> Any:
        session_id = api.create(offer_id=changes.pop("offer_id", None) or cheapest_offer(), **changes)["session"]["id"]
        driver.until_status(session_id, "running")
        return api.get(f"/sessions/{session_id}")

    return made


@pytest.fixture
def running(run: Callable[..., Any]) -> Any:
    return run()
