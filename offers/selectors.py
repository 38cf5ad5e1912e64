"""Reads of the inventory: search in memory, one offer from the database."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

import orjson

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.money import as_number, storage_per_hour
from offers import failures, snapshot
from offers.health import machine_key
from offers.listed import Listed, confidence, freshness, judged, shown
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


def _filtered(offers: Sequence[Listed], query: InventoryQuery) -> Sequence[Listed]:
    """Those that the query's filters let pass, in their order. Each filter that is asked for is one pass over what the
    ones before it left: a filter that is not asked for costs nothing, which matters with thousands of offers."""
    if query.max_price is not None:
        offers = offers[: bisect_right(offers, query.max_price, key=attrgetter("price"))]
    if query.provider is not None:
        offers = [offer for offer in offers if offer.provider == query.provider]
    if query.gpu_type is not None:
        wanted = gpu_key(query.gpu_type)
        offers = [offer for offer in offers if offer.gpu_key == wanted]
    if query.min_vram is not None:
        offers = [offer for offer in offers if offer.vram_gb >= query.min_vram]
    if query.min_gpu_count is not None:
        offers = [offer for offer in offers if offer.gpu_count >= query.min_gpu_count]
    if query.min_reliability is not None:
        offers = [offer for offer in offers if offer.reliability >= query.min_reliability]
    if query.min_cuda is not None:
        offers = [offer for offer in offers if offer.cuda is not None and offer.cuda >= query.min_cuda]
    if query.location is not None:
        place = query.location.casefold()
        offers = [offer for offer in offers if place in offer.location]
    return offers


def _sure_ones(
    offers: Sequence[Listed], inventory: Snapshot, now: datetime, least: float | None
) -> Iterator[tuple[Listed, float]]:
    """With the confidence of each; without those of suppressed machines and those that are less sure than asked for."""
    health = inventory.health.at(now)
    fresh = {at: freshness(at, now) for at in inventory.fetched}
    for offer in offers:
        if offer.machine not in health.suppressed:
            factor = health.factor(offer.machine, offer.provider, offer.gpu_type)
            sure = judged(fresh[offer.fetched_at], factor)
            if least is None or sure >= least:
                yield offer, sure


def _ordered(matches: Iterable[tuple[Listed, float]]) -> Iterator[tuple[Listed, float]]:
    """By price, then confidence, then id. They come by price and id, so only equal prices are left to be put right."""
    for _, same in groupby(matches, key=lambda match: match[0].price):
        # Sorting is stable: of equally sure ones the ids stay in order.
        yield from sorted(same, key=lambda match: -match[1])


def _page(
    offers: Sequence[Listed], query: InventoryQuery, inventory: Snapshot, now: datetime
) -> tuple[list[tuple[Listed, float]], int]:
    """The page that is asked for, and how many match in all."""
    end = None if query.limit is None else query.offset + query.limit
    least = query.min_availability_confidence
    same = {freshness(at, now) for at in inventory.fetched}
    if not inventory.health.failures and len(same) == 1:
        # The usual case: everything is equally sure, so it is in order already, and only the page is looked at.
        (sure,) = same
        if least is not None and sure < least:
            return [], 0
        return [(offer, sure) for offer in offers[query.offset : end]], len(offers)
    matches = list(_sure_ones(offers, inventory, now, least))
    return list(islice(_ordered(matches), query.offset, end)), len(matches)


def search(
    query: InventoryQuery,
    fits: Fits | None = None,
    *,
    inventory: Snapshot | None = None,
    now: datetime | None = None,
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """``{"offers": [...], "count": rows here, "total": rows that match}`` as JSON, and ``more`` keys after them.

    ``fits`` may refuse offers by the vendor's own row."""
    inventory, now = inventory or snapshot.current(), now or clock.now()
    offers = _filtered(inventory.offers, query)
    if fits is not None:
        raw = inventory.raw.get()
        offers = [offer for offer in offers if fits(offer.provider, raw.get(offer.id, {}), offer.fetched_at)]
    page, total = _page(offers, query, inventory, now)
    return _printed(page, total, more or {})


def _printed(page: Sequence[tuple[Listed, float]], total: int, more: Mapping[str, Any]) -> bytes:
    """Put together from offers that were printed when they were loaded: a thousand of them in a millisecond."""
    numbers = {sure: orjson.dumps(sure) for sure in {sure for _, sure in page}}
    offers = b",".join([offer.print(numbers[sure]) for offer, sure in page])
    rest = orjson.dumps({"count": len(page), "total": total, **more})
    return b'{"offers":[' + offers + b"]," + rest[1:]


def one(offer_id: str) -> Offer | None:
    """The offer when its provider still lists it and its machine has not failed too often just now."""
    offer = Offer.objects.filter(id=offer_id, withdrawn_at__isnull=True).first()
    return None if offer is None or failures.is_suppressed(offer) else offer


def detail(offer: Offer) -> dict[str, Any]:
    now = clock.now()
    machine = machine_key(offer.provider, offer.machine_id, offer.id)
    factor = failures.remembered().at(now).factor(machine, offer.provider, offer.gpu_type)
    sure = confidence(offer.fetched_at, now, factor)
    available = offer.available and offer.provider not in in_maintenance()
    told = {"available": available, "availability_confidence": sure, "price_includes": price_includes(offer.provider)}
    return {**shown(offer), **told}


def in_maintenance() -> set[str]:
    """Providers that take no new session now, by a person's word."""
    closed = ProviderInventory.objects.filter(maintenance_since__isnull=False)
    return set(closed.values_list("provider", flat=True))


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
