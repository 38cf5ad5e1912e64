"""Writes to the inventory: one refresh per provider, and withdrawal of a single offer that proved gone."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F

from gpubroker.common import clock, gathered, rows
from gpubroker.common import providers as configured
from gpubroker.common.money import quantize
from offers import bids, prices
from offers.models import FetchRun, Offer, OfferPrice, ProviderInventory
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
#: Columns compared on refresh: only rows that differ are written whole. ``raw`` as such changes at every fetch
#: (scores, times left) and alone is no reason to; what of it templates ask for and hosts rarely change is.
#: ``interruptible`` is kept as :mod:`offers.bids` found it.
STEADY = (
    "bw_nvlink", "cpu_arch", "cpu_cores", "cpu_ghz", "cpu_name", "cpu_ram", "direct_port_count", "driver_version",
    "driver_vers", "end_date", "external", "gpu_arch", "gpu_frac", "gpu_lanes", "gpu_max_power", "gpu_total_ram",
    "has_avx", "hosting_type", "os_version", "pci_gen", "static_ip", "verification", "vms_enabled",
)  # fmt: skip
COMPARED = [
    "gpu_type", "gpu_key", "gpu_name_raw", "gpu_count", "vram_gb", "vram_mb", "price_per_hour",
    "storage_price_per_gb_month", "min_bid_per_hour", "location", "reliability", "cuda_version",
    "compute_capability", "cpu_cores", "ram_gb", "disk_gb", "inet_down_mbps", "inet_up_mbps",
    "verified", "datacenter", "machine_id", "host_id", "raw_digest",
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
    refreshed = apply_listing(name, listing, started)
    if refreshed.outcome == FetchRun.Outcome.APPLIED:
        bids.look(name)
    return refreshed


def _failed(name: str, started: datetime, error: ProviderError) -> Refreshed:
    now = clock.now()
    held = error.kind == "gate_closed"
    failures = ProviderInventory.objects.get(provider=name).failures_in_a_row + (0 if held else 1)
    # Quick at first, for a passing fault; then no more often than the back-off.
    pause = 0.5 if held else min(5.0 * 2 ** min(failures - 1, 10), settings.INVENTORY_BACKOFF_SECONDS)
    pause = max(pause, error.retry_after or 0)
    if held:
        ProviderInventory.objects.filter(provider=name).update(next_fetch_at=now + timedelta(seconds=pause))
        return Refreshed(FetchRun.Outcome.FAILED)
    ProviderInventory.objects.filter(provider=name).update(
        failures_in_a_row=failures,
        last_failure_at=now,
        last_error=str(error)[:300],
        next_fetch_at=now + timedelta(seconds=pause),
    )
    _record(name, started, FetchRun.Outcome.FAILED, error=str(error))
    log.warning("offers not refreshed, %s; again in %.0f s", error, pause)
    return Refreshed(FetchRun.Outcome.FAILED)


def _record(name: str, started: datetime, outcome: str, *, error: str = "", **counts: int) -> None:
    gathered.count("gpu_offer_fetches_total", provider=name, outcome=str(outcome))
    FetchRun.objects.create(
        provider=name, started_at=started, finished_at=clock.now(), outcome=outcome, error=error[:300], **counts
    )


def apply_listing(name: str, listing: OfferListing, started: datetime) -> Refreshed:
    """One transaction: upsert what is listed, withdraw what is not. A collapsed listing is refused whole."""
    wanted = {f"{name}-{data.provider_id}": fields for data in listing.offers if (fields := offer_fields(data))}
    with transaction.atomic():
        state = ProviderInventory.objects.select_for_update(no_key=True).get(provider=name)
        available = Offer.objects.filter(provider=name, withdrawn_at__isnull=True).defer("raw")
        existing = {offer.id: offer for offer in available}
        if _collapsed(len(wanted), len(existing), state.refusals_in_a_row):
            reason = f"{len(wanted)} offers where there were {len(existing)}: not believed yet"
            _refuse(state, started, reason, len(wanted))
            return Refreshed(FetchRun.Outcome.REFUSED)
        result = _upsert(wanted, existing, listing.listed_at)
        # Every applied listing is a new version: ``fetched_at`` shows in every answer.
        state.version += 1
        state.failures_in_a_row = state.refusals_in_a_row = 0
        state.last_error = ""
        state.last_success_at = listing.listed_at
        state.offer_count = len(wanted)
        state.next_fetch_at = clock.now() + timedelta(seconds=settings.INVENTORY_REFRESH_SECONDS)
        state.save()
        _record(
            name, started, FetchRun.Outcome.APPLIED, listed=len(wanted),
            added=result.added, changed=result.changed, withdrawn=result.withdrawn,
        )  # fmt: skip
    return result


def _collapsed(listed: int, before: int, refusals: int) -> bool:
    return before >= COLLAPSE_FLOOR and listed < before * COLLAPSE_SHARE and refusals + 1 < COLLAPSE_PATIENCE


def _refuse(state: ProviderInventory, started: datetime, reason: str, listed: int) -> None:
    state.failures_in_a_row += 1
    state.refusals_in_a_row += 1
    state.last_failure_at = clock.now()
    state.last_error = reason
    state.next_fetch_at = clock.now() + timedelta(seconds=min(15, settings.INVENTORY_REFRESH_SECONDS))
    state.save()
    _record(state.provider, started, FetchRun.Outcome.REFUSED, error=reason, listed=listed)
    log.warning("listing of %s refused: %s", state.provider, reason)


def _upsert(wanted: dict[str, dict[str, Any]], available: dict[str, Offer], at: datetime) -> Refreshed:
    """``available`` are the offers that we believe to be listed; others among ``wanted`` may be known from before."""
    added: list[Offer] = []
    changed: list[Offer] = []
    same: list[str] = []
    moved: list[OfferPrice] = []
    existing = dict(available)
    unknown = [offer_id for offer_id in wanted if offer_id not in existing]
    for start in range(0, len(unknown), 500):
        returned = Offer.objects.filter(id__in=unknown[start : start + 500]).defer("raw")
        existing.update({offer.id: offer for offer in returned})
    for offer_id, fields in wanted.items():
        known = existing.pop(offer_id, None)
        if known is None:
            added.append(Offer(id=offer_id, first_seen_at=at, fetched_at=at, **fields))
        elif known.withdrawn_at is None and all(getattr(known, column) == fields[column] for column in COMPARED):
            same.append(offer_id)
        else:
            if known.price_per_hour != fields["price_per_hour"]:
                moved.append(prices.changed(known, fields["price_per_hour"], at))
            for column, value in fields.items():
                setattr(known, column, value)
            known.withdrawn_at, known.withdrawn_reason = None, ""
            known.fetched_at = at
            changed.append(known)
    Offer.objects.bulk_create(added, batch_size=500)
    columns = [*COMPARED, "max_duration_hours", "raw", "fetched_at", "withdrawn_at", "withdrawn_reason"]
    rows.write_each(changed, columns)
    prices.write(moved, at)
    for start in range(0, len(same), 500):
        Offer.objects.filter(id__in=same[start : start + 500]).update(fetched_at=at)
    gone = list(existing)
    for start in range(0, len(gone), 500):
        Offer.objects.filter(id__in=gone[start : start + 500]).update(
            withdrawn_at=at, withdrawn_reason="no longer listed"
        )
    return Refreshed(FetchRun.Outcome.APPLIED, len(added), len(changed), len(gone))


def _places(value: float | None, places: int, whole_digits: int) -> Decimal | None:
    """In stored precision, so that rows can be compared; what no column could hold is not known."""
    if value is None or not abs(value) < 10**whole_digits:
        return None
    return Decimal(str(value)).quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)


def _storable(data: OfferData) -> bool:
    """Whether the numbers without which an offer is none are such as a machine can have."""
    return (
        0 < data.gpu_count < 10_000
        and 0 <= data.vram_mb < 100_000_000
        and 0 <= data.price_per_hour < 100_000
        and 0 <= data.storage_price_per_gb_month < 100_000
        and len(data.provider_id) <= 96
    )


def offer_fields(data: OfferData) -> dict[str, Any] | None:
    """The columns of :class:`Offer` for one listed row; ``None`` for a row that is no believable offer."""
    if not _storable(data):
        log.warning("offer %s-%s has impossible numbers and is left out", data.provider, data.provider_id[:96])
        return None
    gpu_type = gpu_type_of(data.gpu_name_raw)[:64]
    bid = data.min_bid_per_hour
    return {
        "provider": data.provider,
        "provider_id": data.provider_id,
        "gpu_type": gpu_type,
        "gpu_key": gpu_key(gpu_type)[:64],
        "gpu_name_raw": data.gpu_name_raw[:128],
        "gpu_count": data.gpu_count,
        "vram_gb": vram_gb(data.vram_mb, data.gpu_name_raw),
        "vram_mb": data.vram_mb,
        "price_per_hour": quantize(data.price_per_hour),
        "storage_price_per_gb_month": quantize(data.storage_price_per_gb_month),
        "min_bid_per_hour": quantize(bid) if bid is not None and 0 <= bid < 100_000 else None,
        "location": data.location[:128],
        "reliability": _places(data.reliability, 6, 1),
        "max_duration_hours": _places(data.max_duration_hours, 2, 10),
        "cuda_version": _places(data.cuda_version, 2, 3),
        "compute_capability": data.compute_capability[:16],
        "cpu_cores": _places(data.cpu_cores, 2, 6),
        "ram_gb": _places(data.ram_gb, 2, 8),
        "disk_gb": _places(data.disk_gb, 2, 10),
        "inet_down_mbps": _places(data.inet_down_mbps, 2, 10),
        "inet_up_mbps": _places(data.inet_up_mbps, 2, 10),
        "verified": data.verified,
        "datacenter": data.datacenter,
        "interruptible": data.interruptible,
        "machine_id": data.machine_id[:64],
        "host_id": data.host_id[:64],
        "raw": dict(data.raw),
        "raw_digest": _digest(data.raw),
    }


def _digest(raw: Mapping[str, Any]) -> str:
    steady = json.dumps([raw.get(name) for name in STEADY], default=str)
    return hashlib.blake2b(steady.encode(), digest_size=8).hexdigest()


def due_now(name: str) -> None:
    """A fetch was broken off by our own side: its lease is void."""
    ProviderInventory.objects.filter(provider=name).update(next_fetch_at=clock.now())


#: An early fetch comes no sooner than this after the last good one.
EARLIEST_AGAIN = timedelta(seconds=10)


def refresh_soon(name: str) -> None:
    """The market has just changed by our own doing: fetch again soon. A fetch under way (its lease) is left alone."""
    now = clock.now()
    state = ProviderInventory.objects.filter(provider=name).first()
    if state is None or state.last_success_at is None:
        return
    scheduled = state.last_success_at + timedelta(seconds=settings.INVENTORY_REFRESH_SECONDS + 30)
    ProviderInventory.objects.filter(provider=name, next_fetch_at__gt=now, next_fetch_at__lte=scheduled).update(
        next_fetch_at=max(now, state.last_success_at + EARLIEST_AGAIN)
    )


def withdraw(offer_id: str, reason: str) -> bool:
    """Take one offer out of the inventory at once, e.g. because a create found it gone."""
    with transaction.atomic():
        provider = Offer.objects.values_list("provider", flat=True).filter(id=offer_id).first()
        if provider is None:
            return False
        # The inventory's row first, as a refresh does: one order of locks for everybody.
        inventory = ProviderInventory.objects.filter(provider=provider)
        inventory.select_for_update(no_key=True).first()
        updated = Offer.objects.filter(id=offer_id, withdrawn_at__isnull=True).update(
            withdrawn_at=clock.now(), withdrawn_reason=reason[:64]
        )
        if updated:
            inventory.update(version=F("version") + 1)
    return bool(updated)
