"""On which offers bids are taken: asked for by itself, kept between listings, shown in the inventory."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from gpubroker.common import providers as configured
from offers import bids, services, snapshot
from offers.models import Offer, ProviderInventory
from tests.harness import MovableClock, refresh_offers
from tests.offers.factory import version
from tests.sandbox import SandboxProcess


@pytest.fixture(scope="module")
def sandbox_process(sandbox_of_pages: SandboxProcess) -> SandboxProcess:
    return sandbox_of_pages


def inventory() -> ProviderInventory:
    return ProviderInventory.objects.get(provider="vastai")


def biddable() -> set[str]:
    return set(Offer.objects.filter(interruptible=True).values_list("id", flat=True))


def everything() -> set[str]:
    return set(Offer.objects.filter(withdrawn_at__isnull=True).values_list("id", flat=True))


def test_a_listing_is_followed_by_the_look(market: SandboxProcess, time: MovableClock) -> None:
    assert biddable() == everything()
    assert len(everything()) > 64
    offers = Client().get("/api/v1/inventory").json()["offers"]
    assert {each["interruptible"] for each in offers} == {True}
    assert all(0 < each["min_bid_per_hour"] < each["price_per_hour"] for each in offers)


def test_it_is_made_every_five_minutes_and_kept_meanwhile(market: SandboxProcess, time: MovableClock) -> None:
    due = inventory().next_bids_at
    assert due is not None
    market.take_offer(min(everything()).removeprefix("vastai-"))
    time.advance(minutes=1)
    refresh_offers()
    fresh = everything() - biddable()
    # The machine's offers have new ids, which are listed, and not yet known to take bids.
    assert (len(fresh) > 0, inventory().next_bids_at) == (True, due)
    time.advance(minutes=5)
    before = version()
    refresh_offers()
    assert biddable() >= everything()
    # The listing is one version, what the look changed another.
    assert version() == before + 2


def test_one_that_takes_none_any_more(market: SandboxProcess, time: MovableClock) -> None:
    known = Offer.objects.filter(withdrawn_at__isnull=True).earliest("id")
    bids._apply("vastai", {known.provider_id})
    assert biddable() == {known.id}
    before = version()
    bids._apply("vastai", {known.provider_id})
    assert version() == before
    bids._apply("vastai", set())
    assert (biddable(), version()) == (set(), before + 1)


def test_a_look_that_fails_keeps_what_is_known(market: SandboxProcess, time: MovableClock) -> None:
    known = biddable()
    time.advance(minutes=6)
    # Of the two listings of a refresh the first one works, page by page.
    pages = -(-len(everything()) // 64)
    market.fault("error_5xx", operation="search", times=-1, skip=pages + 1)
    assert services.refresh("vastai").outcome == "applied"
    assert biddable() == known
    due = inventory().next_bids_at
    assert due is not None
    assert due - time() < bids.EVERY
    market.clear_faults()
    time.advance(minutes=1)
    services.refresh("vastai")
    assert biddable() == known


def test_the_least_bid_is_the_listings(market: SandboxProcess, time: MovableClock) -> None:
    row = market.api("POST", "/api/v0/bundles/", {"limit": 1, "order": [["dph_total", "asc"]]})[1]["offers"][0]
    assert Offer.objects.get(id=f"vastai-{row['id']}").min_bid_per_hour == Decimal(str(row["min_bid"]))


def test_a_provider_without_bids_is_not_asked(sandbox: SandboxProcess, db: None, settings: Any) -> None:
    settings.TENSORDOCK_API_TOKEN = sandbox.tensordock_tokens[0]
    settings.TENSORDOCK_BASE_URL = sandbox.tensordock_url
    configured.configured.cache_clear()
    refresh_offers("tensordock")
    assert everything() != set()
    assert biddable() == set()
    assert bids.look("tensordock") is False
    snapshot.forget()
