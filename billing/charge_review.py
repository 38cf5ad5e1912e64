"""Where the provider's bill and our books differ, for the person who decides: what is open, and whose a charge is."""

from __future__ import annotations

import logging
import uuid

from django.db import transaction
from django.db.models import QuerySet

from billing import matching
from billing.models import BillFinding, ProviderCharge

log = logging.getLogger(__name__)

Kind, State = BillFinding.Kind, BillFinding.State


def undecided() -> QuerySet[BillFinding]:
    """Nobody has said anything of these yet; oldest first."""
    return BillFinding.objects.filter(state=State.OPEN).order_by("first_seen_at", "id")


def somebody_elses(finding: BillFinding, by: str) -> bool:
    """A charge that is none of our rentals': never told again. ``False``: it is settled, or no such charge."""
    return finding.kind == Kind.UNOWNED and matching.decide(finding, State.IGNORED, by)


def explained(finding: BillFinding, by: str) -> bool:
    """Somebody knows why; told again when the amounts drift further apart. ``False``: it is settled."""
    return matching.decide(finding, State.EXPLAINED, by)


def assign(finding: BillFinding, rental_id: uuid.UUID, by: str) -> bool:
    """The charges of a machine that no rental was known for are this rental's: the next comparison counts them there.

    ``False``: there are no such charges any more, and nothing has changed.
    """
    with transaction.atomic():
        row = BillFinding.objects.select_for_update().filter(pk=finding.pk, kind=Kind.UNOWNED, state=State.OPEN).first()
        if row is None:
            return False
        waiting = ProviderCharge.objects.filter(provider=row.provider, source=row.subject, rental_id__isnull=True)
        found = dict.fromkeys(waiting.values_list("id", flat=True), rental_id)
        if not found or not matching.decide(row, State.EXPLAINED, by):
            return False
        matching.assign(found)
    log.info("charges of %s at %s are rental %s's, says %s", row.subject, row.provider, rental_id, by)
    return True
