"""A provider in maintenance takes no new session, and nothing that runs there is touched."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db.models import F
from django.test import Client

from gpubroker.common import clock
from gpubroker.common import providers as configured
from offers import services as offers
from offers import snapshot
from offers.models import Offer, ProviderInventory
from providers.base import OfferListing
from sessions_app import alternatives, maintenance
from sessions_app.models import Event, Session
from sessions_app.states import Debt, Status
from tests import invariants
from tests.harness import Api, Driver, cheapest_offer
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_rental, make_session

WHY = "their billing is down"


def begin() -> None:
    assert maintenance.begin("vastai", WHY, "staff:ann") is True


def refusal(answer: dict[str, Any]) -> tuple[Any, ...]:
    return answer["error_type"], answer["provider"], answer["retry_suggested"], WHY in str(answer)


def test_a_create_is_refused_and_changes_nothing(market: SandboxProcess, api: Api) -> None:
    offer = cheapest_offer()
    bids = Offer.objects.filter(withdrawn_at__isnull=True).order_by("price_per_hour").first()
    assert bids is not None
    Offer.objects.filter(id=bids.id).update(interruptible=True)
    begin()
    before = invariants.digest()
    answer = api.create(503, offer_id=offer)
    assert refusal(answer) == ("provider_maintenance", "vastai", False, False)
    assert (answer["offer_id"], answer["error"]) == (
        offer, "vastai takes no new sessions at present: it is in maintenance",
    )  # fmt: skip
    bid = api.create(503, offer_id=bids.id, pricing="interruptible", bid_price=1)
    assert refusal(bid) == ("provider_maintenance", "vastai", False, False)
    body = {"consumer_id": "my-application", "offer_id": offer, "workload_type": "llm", "reservation_hours": 2}
    assert refusal(api.post("/sessions/estimate", body, 503)) == ("provider_maintenance", "vastai", False, False)
    assert invariants.digest() == before
    assert (Session.objects.count(), market.ledger()) == (0, [])
    assert maintenance.end("vastai", "staff:ben") is True
    assert api.create(offer_id=offer)["session"]["status"] == "pending"


def test_its_offers_are_left_out_and_come_back(market: SandboxProcess, api: Api) -> None:
    offer = cheapest_offer()
    before = api.get("/inventory")["total"]
    assert (before > 0, api.get(f"/inventory/{offer}")["available"]) == (True, True)
    begin()
    assert api.get("/inventory")["total"] == 0
    assert api.get(f"/inventory/{offer}")["available"] is False
    assert maintenance.end("vastai", "staff:ann") is True
    assert (api.get("/inventory")["total"], api.get(f"/inventory/{offer}")["available"]) == (before, True)


def test_what_another_process_wrote_counts_at_once(market: SandboxProcess, api: Api) -> None:
    offer = cheapest_offer()
    assert api.get("/inventory")["total"] > 0
    version = snapshot.current().version
    # As another process leaves it: nothing of this one's memory was told.
    ProviderInventory.objects.update(maintenance_since=clock.now(), version=F("version") + 1)
    assert api.create(503, offer_id=offer)["error_type"] == "provider_maintenance"
    assert snapshot._holder.look().offers == ()
    assert snapshot.current().version != version


def test_what_was_asked_for_before_runs_on_and_ends(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    begin()
    driver.until_metered(session_id)
    swept = driver.sweep_now()
    assert swept is not None
    assert (swept.machines, swept.lost, swept.suspects) == (1, [], [])
    longer = api.post(f"/sessions/{session_id}/extend", {"additional_hours": 1})
    assert longer["new_expires_at"] is not None
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    assert market.alive() == []


def tensordock(monkeypatch: pytest.MonkeyPatch, price: str) -> None:
    """Another provider with one offer as good as the market's."""
    monkeypatch.setitem(configured.configured(), "tensordock", configured.get("vastai"))
    offers.ensure_inventories(["tensordock"])
    listing = OfferListing((row("9", provider="tensordock", price_per_hour=Decimal(price)),), clock.now())
    offers.apply_listing("tensordock", listing, clock.now())


@pytest.mark.django_db
def test_a_retry_chooses_another_provider(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    apply([row("1", machine_id="1"), row("2", machine_id="2")])
    tensordock(monkeypatch, "0.6")
    session = make_session(Status.PENDING, auto_retry=True, max_retries=3, price_per_hour=Decimal("0.45"))
    first = make_rental(
        session, Debt.CLOSED, offer_provider_id="1", machine_id="1", price_asked=Decimal("0.45"), failure="boot_failed"
    )
    nearest = alternatives.choose(session, [first])
    assert nearest is not None
    assert nearest.offer.id == "vastai-2"
    begin()
    elsewhere = alternatives.choose(session, [first])
    assert elsewhere is not None
    assert elsewhere.offer.id == "tensordock-9"
    assert maintenance.begin("tensordock", WHY, "staff:ann") is True
    assert alternatives.choose(session, [first]) is None


def test_without_another_provider_the_session_fails_with_its_own_reason(
    market: SandboxProcess, api: Api, driver: Driver
) -> None:
    market.fault("boot_error", mode="oci")
    session_id = api.create(auto_retry=True)["session"]["id"]
    begin()
    session = driver.until_status(session_id, "failed")
    assert (session.end_reason, "no other offer fits" in session.end_message) == ("boot_failed", True)
    assert market.alive() == []


@pytest.mark.django_db
def test_it_is_told_to_events_health_metrics_and_the_api(sandbox: SandboxProcess, api: Api) -> None:
    def told() -> tuple[Any, ...]:
        health = Client().get("/health").json()["services"].get("maintenance")
        shown = {row["provider"]: row["maintenance"] for row in api.get("/providers")["providers"]}
        gauge = [
            line for line in Client().get("/metrics").content.decode().splitlines()
            if line.startswith("gpu_provider_maintenance{")
        ]  # fmt: skip
        return health, shown["vastai"], gauge

    offers.ensure_inventories(["vastai"])
    assert told() == (None, None, ['gpu_provider_maintenance{provider="vastai"} 0.0'])
    begin()
    assert maintenance.begin("vastai", "another reason", "staff:ben") is False
    row = maintenance.all_of_them()["vastai"]
    shown = {"since": clock.iso(row.since), "reason": WHY, "by": "staff:ann"}
    assert told() == ("vastai", shown, ['gpu_provider_maintenance{provider="vastai"} 1.0'])
    assert maintenance.end("vastai", "staff:ben") is True
    assert maintenance.end("vastai", "staff:ben") is False
    assert told() == (None, None, ['gpu_provider_maintenance{provider="vastai"} 0.0'])
    events = Event.objects.order_by("id").values_list("kind", "reason", "actor", "details")
    assert list(events) == [
        ("maintenance_begun", WHY, "staff:ann", {"provider": "vastai"}),
        ("maintenance_ended", "new sessions are taken again", "staff:ben", {"provider": "vastai"}),
    ]
