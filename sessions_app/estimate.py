"""What a session would cost. Nothing is written: the same plan as a create's, priced."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from gpubroker.common.money import as_number, storage_per_hour
from sessions_app import session_budget
from sessions_app.planning import Wish, plan


def estimate(wish: Wish) -> dict[str, Any]:
    """Dollars per hour and for the hours asked, GPU and disk apart. Refuses what a create would refuse of the wish."""
    planned = plan(wish)
    offer = planned.offer
    gpu = planned.price_per_hour
    disk = storage_per_hour(offer.storage_price_per_gb_month, planned.disk_gb)
    return {
        "consumer_id": wish.consumer_id,
        "offer_id": offer.id,
        "provider": offer.provider,
        "gpu_type": offer.gpu_type,
        "gpu_count": offer.gpu_count,
        "reservation_hours": wish.reservation_hours,
        "disk_gb": planned.disk_gb,
        "pricing": wish.pricing,
        "bid_price": None if planned.bid_price is None else as_number(planned.bid_price),
        "currency": "USD",
        "per_hour": _prices(gpu, disk, 1),
        "total": _prices(gpu, disk, wish.reservation_hours),
        "disk_estimate": planned.disk_estimate.shown() if planned.disk_estimate is not None else None,
        "budget": session_budget.estimated(wish, planned),
    }


def _prices(gpu: Decimal, disk: Decimal, hours: int) -> dict[str, Decimal]:
    return {"gpu": as_number(gpu * hours), "disk": as_number(disk * hours), "total": as_number((gpu + disk) * hours)}
