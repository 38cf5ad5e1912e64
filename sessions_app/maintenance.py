"""Maintenance: a provider that takes no new session for now, by a person's word. Nothing that runs there is touched.

Creates and estimates on its offers are refused, retries choose other providers, and its offers are left out of the
inventory. Sweeps, destroys, extensions, ends, and the bids of machines that are there already go on. The state is a
column of the provider's inventory, read at every create: all processes see it at once.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import F, QuerySet

from gpubroker.common import clock
from gpubroker.common.errors import ApiError
from offers import selectors as inventory
from offers import services as offers
from offers import snapshot
from offers.models import Offer, ProviderInventory
from sessions_app.transitions import record

log = logging.getLogger(__name__)

#: In the answer to a create.
ERROR_TYPE = "provider_maintenance"


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Of one provider: since when, why, and who said so."""

    provider: str
    since: datetime
    reason: str
    by: str


def under() -> set[str]:
    """The names of the providers in maintenance."""
    return inventory.in_maintenance()


def all_of_them() -> dict[str, Maintenance]:
    """By the provider's name."""
    rows = ProviderInventory.objects.filter(maintenance_since__isnull=False).order_by("provider")
    return {
        row.provider: Maintenance(row.provider, row.maintenance_since, row.maintenance_reason, row.maintenance_by)
        for row in rows
        if row.maintenance_since is not None
    }


def refuse(offer: Offer) -> None:
    """503 where nothing new is rented at the offer's provider. Why not is the operator's business."""
    if offer.provider in under():
        raise ApiError(
            503, f"{offer.provider} takes no new sessions at present: it is in maintenance",
            error_type=ERROR_TYPE, provider=offer.provider, offer_id=offer.id, retry_suggested=False,
        )  # fmt: skip


def begin(provider: str, reason: str, actor: str) -> bool:
    """From now on nothing new is rented there. ``False``: that was so already, and nothing has changed."""
    now = clock.now()
    offers.ensure_inventories([provider], now)
    row = ProviderInventory.objects.filter(provider=provider, maintenance_since__isnull=True)
    return _changed(
        row, provider, "maintenance_begun", reason, actor,
        maintenance_since=now, maintenance_reason=reason[:300], maintenance_by=actor[:160],
    )  # fmt: skip


def end(provider: str, actor: str) -> bool:
    """New sessions are taken there again. ``False``: they were."""
    row = ProviderInventory.objects.filter(provider=provider, maintenance_since__isnull=False)
    return _changed(
        row, provider, "maintenance_ended", "new sessions are taken again", actor,
        maintenance_since=None, maintenance_reason="", maintenance_by="",
    )  # fmt: skip


def _changed(
    row: QuerySet[ProviderInventory], provider: str, kind: str, reason: str, actor: str, **changes: object
) -> bool:
    """A guarded update, a new version of what is listed, and the event, in one transaction."""
    with transaction.atomic():
        changed = row.update(version=F("version") + 1, **changes)
        if changed:
            record(kind, reason=reason, actor=actor, details={"provider": provider})
    if changed:
        snapshot.forget()
        log.warning("%s: %s, by %s: %s", provider, kind.replace("_", " "), actor, reason)
    return bool(changed)
