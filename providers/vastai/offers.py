"""Offer rows into :class:`OfferData` (Vast.ai contract, sections 2.4 and 5.6)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from providers import fields
from providers.base import OfferData

_MB_PER_GB = 1024
_SECONDS_PER_HOUR = 3600


def read_offer(row: object, provider: str, listed_at: datetime) -> OfferData | None:
    """The offer in a row, or ``None`` where the row lacks what an offer cannot be without: id, GPU name, count,
    memory and price.

    ``price_per_hour`` is ``dph_base``: what the GPUs cost, the same in every search; ``dph_total`` holds storage
    at the size that the search happened to name. ``raw`` keeps the whole row as plain JSON (floats, not for money).
    """
    if not isinstance(row, dict):
        return None
    offer_id = fields.identifier(row.get("id")) or fields.identifier(row.get("ask_contract_id"))
    name = fields.text(row.get("gpu_name"), 100)
    gpus = fields.count(row.get("num_gpus"))
    price = _gpu_price(row)
    if not (offer_id and name and gpus and price):
        return None
    vram_mb = fields.count(row.get("gpu_ram")) or fields.count(row.get("gpu_total_ram")) // gpus
    if not vram_mb:
        return None
    return OfferData(
        provider=provider,
        provider_id=offer_id,
        gpu_name_raw=name,
        gpu_count=gpus,
        vram_mb=vram_mb,
        price_per_hour=price,
        storage_price_per_gb_month=fields.money(row.get("storage_cost")) or Decimal(0),
        location=fields.text(row.get("geolocation"), 200).lstrip(", "),
        reliability=_share(row.get("reliability2"), row.get("reliability")),
        max_duration_hours=_hours_left(row, listed_at),
        cuda_version=fields.number(row.get("cuda_max_good")) or None,
        compute_capability=_capability(row.get("compute_cap")),
        cpu_cores=fields.number(row.get("cpu_cores_effective")) or fields.number(row.get("cpu_cores")),
        ram_gb=_ram_gb(row),
        disk_gb=fields.number(row.get("disk_space")),
        inet_down_mbps=fields.number(row.get("inet_down")),
        inet_up_mbps=fields.number(row.get("inet_up")),
        verified=is_verified(row),
        datacenter=fields.count(row.get("hosting_type")) == 1,
        interruptible=row.get("is_bid") is True,
        min_bid_per_hour=fields.money(row.get("min_bid")) or None,
        machine_id=fields.identifier(row.get("machine_id")),
        host_id=fields.identifier(row.get("host_id")),
        raw=fields.json_safe(row),
    )


def is_verified(row: dict[str, Any]) -> bool:
    """``verification`` is the field to trust where it is told; the other two are its shadows."""
    word = row.get("verification")
    if isinstance(word, str):
        return word == "verified"
    return row.get("verified") is True or fields.count(row.get("vericode")) == 1


def is_known_unverified(row: dict[str, Any]) -> bool:
    """Whether the row itself says that it is not verified; one that says nothing was let through by the search."""
    told = any(row.get(field) is not None for field in ("verification", "verified", "vericode"))
    return told and not is_verified(row)


def is_rentable(row: dict[str, Any]) -> bool:
    """Not taken, not withdrawn, and not of the pool that other vendors list here."""
    return row.get("rentable") is not False and row.get("rented") is not True and row.get("external") is not True


def total_price(row: object) -> Decimal | None:
    """``dph_total``, by which the search is ordered."""
    return fields.money(row.get("dph_total")) if isinstance(row, dict) else None


def _gpu_price(row: dict[str, Any]) -> Decimal | None:
    base = fields.money(row.get("dph_base"))
    if base:
        return base
    total, storage = fields.money(row.get("dph_total")), fields.money(row.get("storage_total_cost"))
    if total is None or storage is None or total <= storage:
        return None
    return total - storage


def _share(*values: object) -> float | None:
    for value in values:
        share = fields.number(value)
        if share is not None and share <= 1:
            return share
    return None


def _hours_left(row: dict[str, Any], listed_at: datetime) -> float | None:
    seconds = fields.number(row.get("duration"))
    if seconds is None:
        ends_at = fields.moment(row.get("end_date"))
        seconds = None if ends_at is None else max(0.0, (ends_at - listed_at).total_seconds())
    return None if seconds is None else seconds / _SECONDS_PER_HOUR


def _capability(value: object) -> str:
    """890 is compute capability 8.9; 1200 is 12.0."""
    hundredths = fields.count(value)
    return f"{hundredths // 100}.{hundredths % 100 // 10}" if hundredths else ""


def _ram_gb(row: dict[str, Any]) -> float | None:
    """``cpu_ram`` is the whole machine's, in MB; an offer of half the cores gets half of it."""
    ram = fields.number(row.get("cpu_ram"))
    if ram is None:
        return None
    cores, share = fields.number(row.get("cpu_cores")), fields.number(row.get("cpu_cores_effective"))
    part = min(1.0, share / cores) if cores and share else 1.0
    return round(ram * part / _MB_PER_GB, 1)
