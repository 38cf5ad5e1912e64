"""Writes to the inventory: one refresh per provider, and withdrawal of a single offer that proved gone."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.money import quantize
from offers.models import FetchRun, Offer, ProviderInventory
from providers.base import OfferData, OfferListing
from providers.errors import ProviderError
from providers.gpus import gpu_key, vram_gb
from providers.gpus import gpu_type as gpu_type_of

log = logging.getLogger(__name__)

#: A listing with fewer than this share of the offers that we have is not believed at once ...
COLLAPSE_SHARE = 0.3
#: ... unless there were too few to tell, or it is the third such listing in a row: then the market really shrank.
COLLAPSE_FLOOR = 10
COLLAPSE_PATIENCE = 3
#: A big market takes minutes to list at the vendor's pace.
FETCH_LEASE = timedelta(seconds=600)
#: Columns compared on refresh: only rows that differ are written whole. ``raw`` changes at every fetch (scores,
#: times left) and alone is no reason to.
COMPARED = [
    "gpu_type", "gpu_key", "gpu_name_raw", "gpu_count", "vram_gb", "vram_mb", "price_per_hour",
    "storage_price_per_gb_month", "min_bid_per_hour", "location", "reliability", "cuda_version",
    "compute_capability", "cpu_cores", "ram_gb", "disk_gb", "inet_down_mbps", "inet_up_mbps",
    "verified", "datacenter", "interruptible", "machine_id", "host_id",
]  # fmt: skip


@dataclass(frozen=True)
class Refreshed:
    outcome: str
    added: int = 0
    changed: int = 0
    withdrawn: int = 0


def ensure_inventories(names: Iterable[str], now: datetime | None = None) -> None:
    """A row for every configured provider, due at once when new."""
    now = now or clock.now()
    rows = [ProviderInventory(provider=name, next_fetch_at=now) for name in names]
    ProviderInventory.objects.bulk_create(rows, ignore_conflicts=True)


def claim_due_fetches() -> list[str]:
    """Providers whose fetch is due, each claimed by an atomic update that is its lease."""
    names = list(configured.configured())
    now = clock.now()
    known = dict(ProviderInventory.objects.filter(provider__in=names).values_list("provider", "next_fetch_at"))
    if len(known) < len(names):
        ensure_inventories(set(names) - set(known), now)
        known = {**dict.fromkeys(names, now), **known}
    due = [name for name in names if known[name] <= now]
    return [
        name
        for name in due
        if ProviderInventory.objects.filter(provider=name, next_fetch_at__lte=now).update(
            next_fetch_at=now + FETCH_LEASE
        )
    ]


def refresh(name: str) -> Refreshed:
    """Ask one provider for all its offers and apply the answer; a failure keeps what we have and backs off."""
    started = clock.now()
    try:
        listing = configured.get(name).list_offers()
    except ProviderError as error:
        return _failed(name, started, error)
    return apply_listing(name, listing, started)


def _failed(name: str, started: datetime, error: ProviderError) -> Refreshed:
    now = clock.now()
    failures = ProviderInventory.objects.get(provider=name).failures_in_a_row + 1
    # Quick at first, for a passing fault; then no more often than the back-off.
    pause = min(5.0 * 2 ** (failures - 1), settings.INVENTORY_BACKOFF_SECONDS)
    pause = max(pause, error.retry_after or 0)
    ProviderInventory.objects.filter(provider=name).update(
        failures_in_a_row=failures,
        last_failure_at=now,
        last_error=str(error)[:300],
        next_fetch_at=now + timedelta(seconds=pause),
    )
    if error.kind != "gate_closed":
        _record(name, started, FetchRun.Outcome.FAILED, error=str(error))
        log.warning("offers not refreshed, %s; again in %.0f s", error, pause)
    return Refreshed(FetchRun.Outcome.FAILED)


def _record(name: str, started: datetime, outcome: str, *, error: str = "", **counts: int) -> None:
    FetchRun.objects.create(
        provider=name, started_at=started, finished_at=clock.now(), outcome=outcome, error=error[:300], **counts
    )


def apply_listing(name: str, listing: OfferListing, started: datetime) -> Refreshed:
    """One transaction: upsert what is listed, withdraw what is not. A collapsed listing is refused whole."""
    with transaction.atomic():
        state = ProviderInventory.objects.select_for_update().get(provider=name)
        existing = {offer.id: offer for offer in Offer.objects.filter(provider=name).defer("raw")}
        listed_now = sum(1 for offer in existing.values() if offer.withdrawn_at is None)
        if _collapsed(len(listing.offers), listed_now, state.failures_in_a_row):
            reason = f"{len(listing.offers)} offers where there were {listed_now}: not believed yet"
            _refuse(state, started, reason, len(listing.offers))
            return Refreshed(FetchRun.Outcome.REFUSED)
        result = _upsert(name, listing, existing)
        # Every applied listing is a new version: ``fetched_at`` shows in every answer.
        state.version += 1
        state.failures_in_a_row = 0
        state.last_error = ""
        state.last_success_at = listing.listed_at
        state.offer_count = len(listing.offers)
        state.next_fetch_at = clock.now() + timedelta(seconds=settings.INVENTORY_REFRESH_SECONDS)
        state.save()
        _record(
            name, started, FetchRun.Outcome.APPLIED, listed=len(listing.offers),
            added=result.added, changed=result.changed, withdrawn=result.withdrawn,
        )  # fmt: skip
    return result


def _collapsed(listed: int, before: int, failures: int) -> bool:
    return before >= COLLAPSE_FLOOR and listed < before * COLLAPSE_SHARE and failures + 1 < COLLAPSE_PATIENCE


def _refuse(state: ProviderInventory, started: datetime, reason: str, listed: int) -> None:
    state.failures_in_a_row += 1
    state.last_failure_at = clock.now()
    state.last_error = reason
    state.next_fetch_at = clock.now() + timedelta(seconds=min(15, settings.INVENTORY_REFRESH_SECONDS))
    state.save()
    _record(state.provider, started, FetchRun.Outcome.REFUSED, error=reason, listed=listed)
    log.warning("listing of %s refused: %s", state.provider, reason)


def _upsert(name: str, listing: OfferListing, existing: dict[str, Offer]) -> Refreshed:
    added: list[Offer] = []
    changed: list[Offer] = []
    same: list[str] = []
    for data in {item.provider_id: item for item in listing.offers}.values():
        fields = offer_fields(data)
        offer_id = f"{name}-{data.provider_id}"
        known = existing.pop(offer_id, None)
        if known is None:
            added.append(Offer(id=offer_id, first_seen_at=listing.listed_at, fetched_at=listing.listed_at, **fields))
        elif known.withdrawn_at is None and all(getattr(known, column) == fields[column] for column in COMPARED):
            same.append(offer_id)
        else:
            for column, value in fields.items():
                setattr(known, column, value)
            known.withdrawn_at, known.withdrawn_reason = None, ""
            known.fetched_at = listing.listed_at
            changed.append(known)
    Offer.objects.bulk_create(added, batch_size=500)
    columns = [*COMPARED, "max_duration_hours", "raw", "fetched_at", "withdrawn_at", "withdrawn_reason"]
    Offer.objects.bulk_update(changed, columns, batch_size=100)
    for start in range(0, len(same), 500):
        Offer.objects.filter(id__in=same[start : start + 500]).update(fetched_at=listing.listed_at)
    gone = [offer.id for offer in existing.values() if offer.withdrawn_at is None]
    for start in range(0, len(gone), 500):
        Offer.objects.filter(id__in=gone[start : start + 500]).update(
            withdrawn_at=listing.listed_at, withdrawn_reason="no longer listed"
        )
    return Refreshed(FetchRun.Outcome.APPLIED, len(added), len(changed), len(gone))


def _places(value: float | None, places: int) -> Decimal | None:
    if value is None:
        return None
    return Decimal(str(value)).quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)


def offer_fields(data: OfferData) -> dict[str, Any]:
    """The columns of :class:`Offer` for one listed row, in stored precision so that rows can be compared."""
    gpu_type = gpu_type_of(data.gpu_name_raw)
    return {
        "provider": data.provider,
        "provider_id": data.provider_id,
        "gpu_type": gpu_type,
        "gpu_key": gpu_key(gpu_type),
        "gpu_name_raw": data.gpu_name_raw,
        "gpu_count": data.gpu_count,
        "vram_gb": vram_gb(data.vram_mb, data.gpu_name_raw),
        "vram_mb": data.vram_mb,
        "price_per_hour": quantize(data.price_per_hour),
        "storage_price_per_gb_month": quantize(data.storage_price_per_gb_month),
        "min_bid_per_hour": None if data.min_bid_per_hour is None else quantize(data.min_bid_per_hour),
        "location": data.location,
        "reliability": _places(data.reliability, 6),
        "max_duration_hours": _places(data.max_duration_hours, 2),
        "cuda_version": _places(data.cuda_version, 2),
        "compute_capability": data.compute_capability,
        "cpu_cores": _places(data.cpu_cores, 2),
        "ram_gb": _places(data.ram_gb, 2),
        "disk_gb": _places(data.disk_gb, 2),
        "inet_down_mbps": _places(data.inet_down_mbps, 2),
        "inet_up_mbps": _places(data.inet_up_mbps, 2),
        "verified": data.verified,
        "datacenter": data.datacenter,
        "interruptible": data.interruptible,
        "machine_id": data.machine_id,
        "host_id": data.host_id,
        "raw": dict(data.raw),
    }


def withdraw(offer_id: str, reason: str) -> bool:
    """Take one offer out of the inventory at once, e.g. because a create found it gone."""
    with transaction.atomic():
        updated = Offer.objects.filter(id=offer_id, withdrawn_at__isnull=True).update(
            withdrawn_at=clock.now(), withdrawn_reason=reason[:64]
        )
        if updated:
            provider = Offer.objects.values_list("provider", flat=True).get(id=offer_id)
            ProviderInventory.objects.filter(provider=provider).update(version=F("version") + 1)
    return bool(updated)
