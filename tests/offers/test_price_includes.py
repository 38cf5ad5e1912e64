"""An offer says what its price pays for, as its provider's capabilities have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpubroker.common import providers as configured
from tests.harness import Api, cheapest_offer, refresh_offers
from tests.sandbox import DEFAULT_TENSORDOCK_TOKEN, SandboxProcess

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def both(market: SandboxProcess, settings: Any) -> SandboxProcess:
    settings.TENSORDOCK_API_TOKEN = DEFAULT_TENSORDOCK_TOKEN
    settings.TENSORDOCK_BASE_URL = market.tensordock_url
    configured.configured.cache_clear()
    refresh_offers("tensordock")
    return market


def test_offers_of_both_say_what_their_price_contains(both: SandboxProcess, api: Api) -> None:
    dock = api.get("/inventory", provider="tensordock", limit=1)["offers"][0]["id"]
    for offer_id in (cheapest_offer(), dock):
        offer = api.get(f"/inventory/{offer_id}", disk_gb=100)
        assert offer["price_includes"] == ["gpu", "vcpu", "ram"]
        assert offer["quote"]["price_includes"] == ["gpu", "vcpu", "ram", "storage"]
        assert offer["quote"]["gpu_per_hour"] == offer["price_per_hour"]


def test_the_document_tells_it_of_every_provider() -> None:
    page = (ROOT / "docs" / "prices.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| `price_includes` |")]
    assert row.count("`gpu`, `vcpu`, `ram`") == len(configured.KNOWN)
    assert "(docs/prices.md)" in (ROOT / "README.md").read_text()
