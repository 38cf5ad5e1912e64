"""Provider charges and the rentals that they are for. Here and not in billing, because only this app knows rentals."""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from datetime import UTC, datetime, time

from billing import charges, matching, traffic
from billing.models import ProviderCharge
from sessions_app.models import Rental

log = logging.getLogger(__name__)
BATCH = 500


def step(name: str) -> None:
    """Fetch one day of charges; after a run's last day, match them, put their traffic on the meter, and compare."""
    first_day = charges.step(name)
    if first_day is not None:
        since = datetime.combine(first_day, time.min, UTC)
        assign(name, since)
        traffic.book(name)
        still_open = matching.compare(name, since)
        log.info("charges of %s compared since %s: %d findings are open", name, first_day, still_open)


def assign(name: str, since: datetime) -> None:
    """Find the rental of each charge that was told since then and has none yet: by the machine's id, else by the label.

    A machine that was found to be ours since then has its older charges as well: for all others it is too late.
    """
    orphans = Rental.objects.filter(provider=name, origin=Rental.Origin.ORPHAN, created_at__gte=since)
    adopted = list(orphans.order_by().values_list("instance_id", flat=True))
    waiting = {charge.pk: charge for charge in matching.unassigned(name, since)}
    for start in range(0, len(adopted), BATCH):
        older = matching.unassigned_of(name, adopted[start : start + BATCH])
        waiting |= {charge.pk: charge for charge in older}
    charged = list(waiting.values())
    for start in range(0, len(charged), BATCH):
        _assign(name, charged[start : start + BATCH])


def _assign(name: str, waiting: list[ProviderCharge]) -> None:
    mine = Rental.objects.filter(provider=name).order_by("created_at", "id")
    by_machine: dict[str, list[Rental]] = defaultdict(list)
    for rental in mine.filter(instance_id__in={charge.instance_id for charge in waiting}):
        by_machine[rental.instance_id].append(rental)
    labels = {charge.label for charge in waiting} - {""}
    by_label = {rental.label: rental.id for rental in mine.filter(label__in=labels)}
    found: dict[int, uuid.UUID] = {}
    for charge in waiting:
        owner = _of_machine(charge, by_machine[charge.instance_id]) or by_label.get(charge.label)
        if owner is not None:
            found[charge.pk] = owner
    matching.assign(found)


def _of_machine(charge: ProviderCharge, owners: list[Rental]) -> uuid.UUID | None:
    """Two rentals had one machine where it was given up for gone and came back: then the one that had it last before
    the charge began."""
    before = [rental for rental in owners if charge.starts_at is None or rental.created_at <= charge.starts_at]
    return (before[-1] if before else owners[0]).id if owners else None
