"""Reads of the inventory: search in memory, one offer from the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.money import as_number, storage_per_hour
from offers import failures, snapshot
from offers.health import machine_key
from offers.listed import Listed, confidence, shown
from offers.models import Offer, ProviderInventory
from offers.snapshot import Snapshot
from providers.gpus import gpu_key

STALE_AFTER = timedelta(minutes=5)
#: (provider, the vendor's row, when it was fetched) -> whether the offer may be listed
Fits = Callable[[str, Mapping[str, Any], datetime], bool]


@dataclass(frozen=True, slots=True)
class InventoryQuery:
    """Filters compose (AND); ``None`` means not asked."""

    provider: str | None = None
    gpu_type: str | None = None
    location: str | None = None
    min_vram: int | None = None
    max_price: Decimal | None = None
    min_gpu_count: int | None = None
    min_reliability: float | None = None
    min_availability_confidence: float | None = None
    min_cuda: float | None = None
    limit: int | None = None
    offset: int = 0


def _matches(
    inventory: Snapshot, query: InventoryQuery, fits: Fits | None, now: datetime
) -> Iterator[tuple[Listed, float]]:
    raw = inventory.raw.get() if fits is not None else {}
    wanted_gpu = gpu_key(query.gpu_type) if query.gpu_type is not None else None
    wanted_place = query.location.casefold() if query.location is not None else None
    health = inventory.health.at(now)
    for offer in inventory.offers:
        if query.max_price is not None and offer.price > query.max_price:
            return  # sorted by price: nothing cheaper follows
        if (
            (query.provider is not None and offer.provider != query.provider)
            or (wanted_gpu is not None and offer.gpu_key != wanted_gpu)
            or (wanted_place is not None and wanted_place not in offer.location)
            or (query.min_vram is not None and offer.vram_gb < query.min_vram)
            or (query.min_gpu_count is not None and offer.gpu_count < query.min_gpu_count)
            or (query.min_reliability is not None and offer.reliability < query.min_reliability)
            or (query.min_cuda is not None and (offer.cuda is None or offer.cuda < query.min_cuda))
            or offer.machine in health.suppressed
            or (fits is not None and not fits(offer.provider, raw.get(offer.id, {}), offer.fetched_at))
        ):
            continue
        factor = health.factor(offer.machine, offer.provider, offer.gpu_type)
        sure = confidence(offer.fetched_at, now, factor)
        if query.min_availability_confidence is None or sure >= query.min_availability_confidence:
            yield offer, sure


def search(
    query: InventoryQuery,
    fits: Fits | None = None,
    *,
    inventory: Snapshot | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """``{"offers": [...], "count": rows here, "total": rows that match}``: price, then confidence, then id.

    ``fits`` may refuse offers by the vendor's own row."""
    matches = _matches(inventory or snapshot.current(), query, fits, now or clock.now())
    found = sorted(matches, key=lambda pair: (pair[0].price, -pair[1], pair[0].id))
    end = None if query.limit is None else query.offset + query.limit
    page = [{**offer.shown, "availability_confidence": sure} for offer, sure in found[query.offset : end]]
    return {"offers": page, "count": len(page), "total": len(found)}


def one(offer_id: str) -> Offer | None:
    """The offer when its provider still lists it and its machine has not failed too often just now."""
    offer = Offer.objects.filter(id=offer_id, withdrawn_at__isnull=True).first()
    return None if offer is None or failures.is_suppressed(offer) else offer


def detail(offer: Offer) -> dict[str, Any]:
    now = clock.now()
    machine = machine_key(offer.provider, offer.machine_id, offer.id)
    factor = failures.remembered().at(now).factor(machine, offer.provider, offer.gpu_type)
    sure = confidence(offer.fetched_at, now, factor)
    return {**shown(offer), "availability_confidence": sure, "price_includes": price_includes(offer.provider)}


def price_includes(provider: str) -> list[str]:
    """What ``price_per_hour`` pays for at this provider; empty where it is not configured any more."""
    found = configured.configured().get(provider)
    return list(found.capabilities.price_includes) if found is not None else []


def quote(offer: Offer, disk_gb: int) -> dict[str, Any]:
    """What an hour of this offer costs with that much disk, in dollars."""
    storage = storage_per_hour(offer.storage_price_per_gb_month, disk_gb)
    included = price_includes(offer.provider)
    return {
        "disk_gb": disk_gb,
        "gpu_per_hour": as_number(offer.price_per_hour),
        "storage_per_hour": as_number(storage),
        "total_per_hour": as_number(offer.price_per_hour + storage),
        "price_includes": [*included, "storage"] if included else [],
    }


def health(names: list[str]) -> str:
    """``ok``, ``stale`` (every provider's last good fetch is over 5 minutes old or failed) or ``empty``."""
    rows = list(ProviderInventory.objects.filter(provider__in=names))
    if not any(row.offer_count for row in rows):
        return "empty"
    now = clock.now()
    fresh = [
        row
        for row in rows
        if row.last_success_at and row.failures_in_a_row == 0 and now - row.last_success_at <= STALE_AFTER
    ]
    return "ok" if fresh else "stale"
