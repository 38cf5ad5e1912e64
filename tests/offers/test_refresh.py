"""Refreshing the inventory: upsert, withdraw, and refuse what cannot be believed."""

from __future__ import annotations

from decimal import Decimal

import pytest

from offers import services
from offers.models import FetchRun, Offer, ProviderInventory
from tests.harness import MovableClock, refresh_offers
from tests.offers.factory import apply, row, version
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def sandbox_process(sandbox_of_pages: SandboxProcess) -> SandboxProcess:
    return sandbox_of_pages


def test_added_changed_withdrawn_and_back() -> None:
    first = apply([row("1"), row("2")])
    assert (first.added, first.changed, first.withdrawn) == (2, 0, 0)
    second = apply([row("1", price_per_hour=Decimal("0.5")), row("3")])
    assert (second.added, second.changed, second.withdrawn) == (1, 1, 1)
    assert Offer.objects.get(id="vastai-1").price_per_hour == Decimal("0.500000")
    gone = Offer.objects.get(id="vastai-2")
    assert (gone.available, gone.withdrawn_reason) == (False, "no longer listed")
    third = apply([row("1", price_per_hour=Decimal("0.5")), row("2"), row("3")])
    assert (third.added, third.changed, third.withdrawn) == (0, 1, 0)
    assert Offer.objects.get(id="vastai-2").available is True
    assert version() == 3


def test_names_and_memory_are_normalised_and_the_raw_name_kept() -> None:
    apply([row("1", gpu_name_raw="A100 SXM4", vram_mb=81920), row("2", gpu_name_raw="RTX 4090", vram_mb=24564)])
    a100, rtx = Offer.objects.get(id="vastai-1"), Offer.objects.get(id="vastai-2")
    assert (a100.gpu_type, a100.gpu_key, a100.gpu_name_raw, a100.vram_gb) == ("A100", "a100", "A100 SXM4", 80)
    assert (rtx.gpu_type, rtx.gpu_key, rtx.vram_gb, rtx.vram_mb) == ("RTX 4090", "rtx4090", 24, 24564)


def test_unchanged_rows_only_get_a_new_time(time: MovableClock) -> None:
    apply([row("1")])
    before = Offer.objects.get()
    time.advance(minutes=1)
    assert apply([row("1")]).changed == 0
    after = Offer.objects.get()
    assert after.fetched_at > before.fetched_at
    assert after.first_seen_at == before.first_seen_at


def test_what_templates_ask_for_is_kept_current_and_noise_is_not_written() -> None:
    apply([row("1", raw={"static_ip": False, "score": 1.0})])
    assert apply([row("1", raw={"static_ip": False, "score": 2.0})]).changed == 0
    assert Offer.objects.get().raw == {"static_ip": False, "score": 1.0}
    assert apply([row("1", raw={"static_ip": True, "score": 3.0})]).changed == 1
    assert Offer.objects.get().raw == {"static_ip": True, "score": 3.0}


def test_collapsed_listing_is_refused_twice_then_believed() -> None:
    many = [row(str(number)) for number in range(40)]
    apply(many)
    for _ in range(2):
        assert apply(many[:3]).outcome == FetchRun.Outcome.REFUSED
        assert Offer.objects.filter(withdrawn_at__isnull=True).count() == 40
    assert apply(many[:3]).withdrawn == 37


def test_empty_listing_over_a_full_inventory_is_refused() -> None:
    apply([row(str(number)) for number in range(20)])
    assert apply([]).outcome == FetchRun.Outcome.REFUSED
    assert Offer.objects.filter(withdrawn_at__isnull=True).count() == 20


@pytest.mark.parametrize("fault", ["error_5xx", "malformed", "truncated_json", "rate_limited", "auth_error"])
def test_failed_fetch_keeps_everything_and_backs_off(market: SandboxProcess, time: MovableClock, fault: str) -> None:
    before = set(Offer.objects.filter(withdrawn_at__isnull=True).values_list("id", flat=True))
    assert len(before) >= 90
    market.fault(fault, operation="search", times=-1)
    assert services.refresh("vastai").outcome == FetchRun.Outcome.FAILED
    assert set(Offer.objects.filter(withdrawn_at__isnull=True).values_list("id", flat=True)) == before
    state = ProviderInventory.objects.get(provider="vastai")
    assert state.failures_in_a_row == 1
    assert state.last_error != ""
    assert services.claim_due_fetches() == []
    market.clear_faults()
    time.advance(minutes=6)
    assert services.claim_due_fetches() == ["vastai"]
    assert services.refresh("vastai").outcome == FetchRun.Outcome.APPLIED
    assert ProviderInventory.objects.get(provider="vastai").failures_in_a_row == 0


def test_a_fetch_is_claimed_by_one_only(time: MovableClock, sandbox: SandboxProcess) -> None:
    services.ensure_inventories(["vastai"])
    assert services.claim_due_fetches() == ["vastai"]
    assert services.claim_due_fetches() == []


def test_every_offer_of_the_marketplace_is_found(market: SandboxProcess) -> None:
    """More than the 64 rows that one search gives."""
    refresh_offers()
    assert Offer.objects.filter(withdrawn_at__isnull=True).count() == len(
        set(Offer.objects.values_list("provider_id", flat=True))
    )
    assert Offer.objects.filter(withdrawn_at__isnull=True).count() > 64


def test_withdraw_is_at_once_and_once() -> None:
    apply([row("1")])
    assert services.withdraw("vastai-1", "gone at create") is True
    assert services.withdraw("vastai-1", "gone at create") is False
    assert services.withdraw("vastai-9", "gone at create") is False
    assert version() == 2


def test_collapsed_listing_is_not_believed_after_ordinary_failures(sandbox: SandboxProcess) -> None:
    apply([row(str(number)) for number in range(20)])
    sandbox.fault("error_5xx", operation="search", times=-1)
    for _ in range(2):
        services.refresh("vastai")
    assert apply([]).outcome == FetchRun.Outcome.REFUSED
    assert Offer.objects.filter(withdrawn_at__isnull=True).count() == 20


def test_a_very_long_outage_is_still_recorded(sandbox: SandboxProcess) -> None:
    apply([row("1")])
    ProviderInventory.objects.update(failures_in_a_row=5000)
    sandbox.fault("error_5xx", operation="search", times=-1)
    services.refresh("vastai")
    assert ProviderInventory.objects.get().failures_in_a_row == 5001
