"""What may be bid (Vast.ai contract, sections 3.1, 4.6 and 4.8). Dollars per hour for a whole machine, without disk."""

from __future__ import annotations

from decimal import Decimal

from gpubroker.common import providers as configured
from gpubroker.common.errors import BadField
from gpubroker.common.money import as_number
from offers.models import Offer
from sessions_app.models import Pricing

LEAST = Decimal("0.001")
#: Of one create; a change goes to so much per GPU.
MOST, MOST_PER_GPU = Decimal(128), Decimal(32)


def bid_for(pricing: str, asked: Decimal | None, offer: Offer, max_price: Decimal | None) -> Decimal | None:
    """The bid for this offer: as asked, else the least that it takes; ``None`` on demand. 400 for what cannot win."""
    if pricing != Pricing.INTERRUPTIBLE:
        if asked is not None:
            raise BadField("bid_price", "only with pricing interruptible")
        return None
    if not configured.get(offer.provider).capabilities.interruptible:
        raise BadField("pricing", f"{offer.provider} has no interruptible machines; use on_demand")
    if not offer.interruptible:
        raise BadField("pricing", "no bids are taken on this offer; use on_demand")
    least = offer.min_bid_per_hour
    if asked is None and least is None:
        raise BadField("bid_price", "needed: this offer does not tell the least bid")
    bid = asked if asked is not None else max(least or LEAST, LEAST)
    if least is not None and bid < least:
        raise BadField("bid_price", f"at least {shown(least)} an hour on this offer, got {shown(bid)}")
    refuse_bounds(bid, offer.gpu_count, max_price, "bid_price" if asked is not None else "max_price")
    return bid


def refuse_bounds(bid: Decimal, gpu_count: int, max_price: Decimal | None, field: str = "bid_price") -> None:
    """400 for what the vendor or the session's own ``max_price`` does not allow."""
    most = min(MOST, MOST_PER_GPU * gpu_count)
    if bid < LEAST:
        raise BadField(field, f"at least {LEAST} an hour, got {shown(bid)}")
    if bid > most:
        raise BadField(field, f"at most {most} an hour for {gpu_count} GPUs, got {shown(bid)}")
    if max_price is not None and bid > max_price:
        raise BadField(field, f"a bid of {shown(bid)} an hour is above max_price, {shown(max_price)}")


def shown(amount: Decimal) -> str:
    text = f"{as_number(amount):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
