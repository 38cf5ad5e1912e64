"""Listed rows for tests of the inventory, without a marketplace."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from gpubroker.common import clock
from offers import services, snapshot
from offers.models import ProviderInventory
from providers.base import OfferData, OfferListing


def row(provider_id: str, **changes: Any) -> OfferData:
    fields: dict[str, Any] = {
        "provider": "vastai", "provider_id": provider_id, "gpu_name_raw": "RTX 4090", "gpu_count": 1, "vram_mb": 24564,
        "price_per_hour": Decimal("0.45"), "storage_price_per_gb_month": Decimal("0.15"), "location": "Sweden, SE",
        "reliability": 0.98, "cuda_version": 12.4, "disk_gb": 200.0, "machine_id": "7",
    }  # fmt: skip
    return OfferData(**{**fields, **changes})


def apply(rows: list[OfferData], at: datetime | None = None) -> services.Refreshed:
    services.ensure_inventories(["vastai"])
    listing = OfferListing(tuple(rows), at or clock.now())
    result = services.apply_listing("vastai", listing, clock.now())
    snapshot.forget()
    return result


def version() -> int:
    return ProviderInventory.objects.get(provider="vastai").version
