"""On which offers bids are taken. Listings tell on-demand prices and a least bid, but only a search of its own tells
where a bid would be taken at all: it costs as much as a listing, at the vendor's slow pace, so it is made less often.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from offers.models import Offer, ProviderInventory
from providers.errors import ProviderError
from providers.extras import RentsByBid

log = logging.getLogger(__name__)

EVERY = timedelta(minutes=5)
AGAIN_AFTER_A_FAILURE = timedelta(minutes=1)


def look(name: str) -> bool:
    """Ask one provider, if it takes bids and is due; a failure keeps what is known. Whether it was asked and answered.

    Called after a good listing, by whoever made it; the claim lies in its own due time.
    """
    due = Q(next_bids_at__isnull=True) | Q(next_bids_at__lte=clock.now())
    mine = ProviderInventory.objects.filter(due, provider=name)
    # Claimed first: one that dies here is late by its pause, and no two ask at once.
    if not mine.exists() or not mine.update(next_bids_at=clock.now() + EVERY):
        return False
    try:
        provider = configured.get(name)
        if not (provider.capabilities.interruptible and isinstance(provider, RentsByBid)):
            return False
        wanted = provider.biddable_offers()
    except (ProviderError, ApiError) as error:
        log.warning("where %s takes bids is not known anew: %s", name, error)
        later = clock.now() + AGAIN_AFTER_A_FAILURE
        ProviderInventory.objects.filter(provider=name).update(next_bids_at=later)
        return False
    _apply(name, wanted)
    return True


def _apply(name: str, wanted: Collection[str]) -> None:
    """Written where it differs; that is a new version of the inventory."""
    ids = {f"{name}-{provider_id}" for provider_id in wanted}
    with transaction.atomic():
        # The inventory's row first, as a refresh does: one order of locks for everybody.
        inventory = ProviderInventory.objects.filter(provider=name)
        inventory.select_for_update(no_key=True).first()
        known = Offer.objects.filter(provider=name, withdrawn_at__isnull=True)
        flags = dict(known.values_list("id", "interruptible"))
        changed = 0
        for flag in (True, False):
            differ = [offer_id for offer_id, now in flags.items() if (offer_id in ids) is flag and now is not flag]
            for start in range(0, len(differ), 500):
                changed += Offer.objects.filter(id__in=differ[start : start + 500]).update(interruptible=flag)
        if changed:
            inventory.update(version=F("version") + 1)
