"""Reads of the inventory: search in memory, one offer from the database."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from operator import attrgetter
from typing import Any

import orjson

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.money import as_number, storage_per_hour
from offers import failures, snapshot
from offers.bits import mask_of, places_in
from offers.health import machine_key
from offers.index import Index, Sure
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


@functools.lru_cache(maxsize=1024)
def _gpu(name: str) -> str:
    """Reading a name takes longer than all the rest of a search, and callers ask for the same few."""
    return gpu_key(name)


def _matching(index: Index, query: InventoryQuery) -> int:
    """The offers that the query's filters let pass, as bits. A filter that is not asked for costs nothing."""
    mask = index.all if query.max_price is None else index.cheap(query.max_price)
    if query.provider is not None:
        mask &= index.provider.any_of([query.provider])
    if query.gpu_type is not None:
        mask &= index.gpu_key.any_of([_gpu(query.gpu_type)])
    if query.min_vram is not None:
        mask &= index.vram_gb.at_least(query.min_vram)
    if query.min_gpu_count is not None:
        mask &= index.gpu_count.at_least(query.min_gpu_count)
    if query.min_reliability is not None:
        mask &= index.reliability.at_least(query.min_reliability)
    if query.min_cuda is not None:
        mask &= index.cuda.at_least(query.min_cuda)
    if query.location is not None:
        mask &= index.located(query.location)
    return mask


def _page(mask: int, query: InventoryQuery, inventory: Snapshot, sure: Sure) -> list[tuple[Listed, float]]:
    """What the page shows of these offers, with the confidence of each: by price, then confidence, then id."""
    index, offers = inventory.index, inventory.offers
    places = list(islice(places_in(mask, query.offset), query.limit))
    if len(sure.masks) == 1 or not places:
        # The usual case: everything is equally sure, so it is in order already.
        return [(offers[place], only) for only in sure.masks for place in places]
    # Of equal prices the surer come first: all that cost as much as the page's first or last offer take part.
    first = bisect_left(offers, offers[places[0]].price, key=attrgetter("price"))
    near = places_in(index.cheap(offers[places[-1]].price) & (mask >> first << first))
    before = query.offset - (mask & ((1 << first) - 1)).bit_count()
    # Sorting is stable: of equally sure ones the ids stay in order.
    ordered = sorted(near, key=lambda place: (offers[place].price, -sure.of_kind[index.kinds[place]]))
    chosen = ordered[before : before + len(places)]
    return [(offers[place], sure.of_kind[index.kinds[place]]) for place in chosen]


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
    index = inventory.index
    sure = index.sure(inventory.step(now), now)
    mask = _matching(index, query) & sure.at_least(query.min_availability_confidence)
    if fits is not None:
        raw, offers = inventory.raw.get(), inventory.offers
        chosen = [(place, offers[place]) for place in places_in(mask)]
        fitting = [place for place, offer in chosen if fits(offer.provider, raw.get(offer.id, {}), offer.fetched_at)]
        mask = mask_of(fitting, len(offers))
    return _printed(_page(mask, query, inventory, sure), mask.bit_count(), more or {})


def _printed(page: Sequence[tuple[Listed, float]], total: int, more: Mapping[str, Any]) -> bytes:
    """Put together from offers that were printed when they were loaded: a thousand of them in a millisecond."""
    ends = {sure: orjson.dumps(sure) + b"}," for sure in {sure for _, sure in page}}
    parts = [b'{"offers":[']
    for offer, sure in page:
        parts += offer.printed, ends[sure]
    parts[-1] = parts[-1].removesuffix(b",")
    parts += b"],", orjson.dumps({"count": len(page), "total": total, **more})[1:]
    # They may be megabytes: joined once, so that they are copied once.
    return b"".join(parts)


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
