"""Open rentals without a machine (ghosts), and machines with our label that no open rental knows (orphans)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F

from gpubroker.common import clock, counters
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from providers.base import Instance
from providers.errors import ProviderError
from sessions_app import attempts, sightings
from sessions_app.ending import close_rental, owe_destruction
from sessions_app.models import Rental, SeenOrphan, UnknownMachine
from sessions_app.sightings import STANDING
from sessions_app.states import Debt, EndReason
from sessions_app.transitions import record

log = logging.getLogger(__name__)

#: A machine accepted less than this before the listing may not show in it yet.
LISTING_DELAY = timedelta(seconds=5)
COMPLETE_LISTINGS_FOR_A_GHOST = 2


def note_missing(rentals: list[Rental], started: datetime) -> list[Rental]:
    """Count complete listings without a machine; young ones may not show yet. Returns those that may be ghosts: what
    was never listed only when it is too old for the provider not to know it yet."""
    old = [r for r in rentals if r.accepted_at is None or r.accepted_at <= started - LISTING_DELAY]
    sightings.update_in_order([rental.id for rental in old], missing_listings=F("missing_listings") + 1)
    for rental in old:
        rental.missing_listings += 1
    known_since = started - timedelta(seconds=settings.LISTING_LAG_SECONDS)
    known = [r for r in old if r.last_seen_at is not None or r.accepted_at is None or r.accepted_at <= known_since]
    return [r for r in known if r.state in STANDING and r.missing_listings >= COMPLETE_LISTINGS_FOR_A_GHOST]


def look_for_ghost(rental: Rental) -> bool:
    """Two complete listings did not have it: ask directly, and only that answer closes the rental."""
    try:
        instance = configured.get(rental.provider).get_instance(rental.instance_id)
    except (ProviderError, ApiError) as error:
        log.warning("is %s a ghost? %s", rental.label, error)
        return False
    if instance is not None:
        return False
    proof = {
        "call": f"get instance {rental.instance_id}",
        "answer": f"the provider has no such machine, nor had {rental.missing_listings} complete listings",
    }
    with transaction.atomic():
        if rental.session_id:
            attempts.fail(rental, EndReason.PROVIDER_LOST, "the provider no longer has the machine")
        closed = close_rental(
            rental, STANDING | {Debt.DESTROYING}, proof, billed_until=rental.last_seen_at or rental.accepted_at
        )
        if closed:
            counters.increment("gpu_ghosts_detected_total", provider=rental.provider)
    return closed


@dataclass(frozen=True, slots=True)
class Orphan:
    """A machine with our label that no open rental knows (I4), and since when we know of it."""

    instance: Instance
    seen: SeenOrphan

    @property
    def asked_for(self) -> bool:
        """A person wants it destroyed."""
        return self.seen.decision == SeenOrphan.Decision.DESTROY


def not_closed_since(provider: str, strangers: list[Instance], started: datetime) -> list[Instance]:
    """Without those whose destruction was proved while the listing was read: it showed them before."""
    labels = [instance.label for instance in strangers]
    just = Rental.objects.filter(provider=provider, state=Debt.CLOSED, closed_at__gt=started)
    closed: set[str] = set()
    for start in range(0, len(labels), 500):
        closed.update(just.filter(label__in=labels[start : start + 500]).values_list("instance_id", flat=True))
    return [instance for instance in strangers if instance.instance_id not in closed]


def note_orphans(provider: str, strangers: list[Instance], at: datetime) -> list[Orphan]:
    """Remember and report them; those whose grace is over are returned. Forgets the ones that are gone."""
    known = {row.instance_id: row for row in SeenOrphan.objects.filter(provider=provider)}
    grace = timedelta(seconds=settings.ORPHAN_GRACE_SECONDS)
    due = []
    for instance in strangers:
        row = known.pop(instance.instance_id, None) or _new_orphan(provider, instance, at)
        if _is_due(row, at - grace):
            due.append(Orphan(instance, row))
    SeenOrphan.objects.filter(id__in=[row.id for row in known.values()]).delete()
    return due


def _is_due(row: SeenOrphan, latest: datetime) -> bool:
    """When its grace is over, unless a person has said otherwise: at once, or never."""
    if row.decision == SeenOrphan.Decision.LEAVE:
        return False
    return row.decision == SeenOrphan.Decision.DESTROY or row.first_seen_at <= latest


def note_unknown(provider: str, found: list[Instance], at: datetime) -> None:
    """Remember machines that carry no label of any GPU broker, for people to see. Forgets the ones that are gone."""
    known = set(UnknownMachine.objects.filter(provider=provider).values_list("instance_id", flat=True))
    there = {instance.instance_id[:96]: instance for instance in found}
    if there.keys() == known:
        return
    UnknownMachine.objects.bulk_create(
        (
            UnknownMachine(
                provider=provider, instance_id=name, label=instance.label[:200], first_seen_at=at
            )
            for name, instance in there.items()
            if name not in known
        ),
        batch_size=500, ignore_conflicts=True,
    )  # fmt: skip
    gone = sorted(known - there.keys())
    for start in range(0, len(gone), 500):
        UnknownMachine.objects.filter(provider=provider, instance_id__in=gone[start : start + 500]).delete()


def _new_orphan(provider: str, instance: Instance, at: datetime) -> SeenOrphan:
    with transaction.atomic():
        row, made = SeenOrphan.objects.get_or_create(
            provider=provider,
            instance_id=instance.instance_id,
            defaults={"label": instance.label[:64], "first_seen_at": at},
        )
        if made:
            counters.increment("gpu_orphans_detected_total", provider=provider)
            record(
                "orphan_seen", reason="a machine with our label that no open rental knows",
                details={"provider": provider, "instance_id": instance.instance_id, "label": instance.label},
            )  # fmt: skip
            log.warning("orphan at %s: machine %s labelled %s", provider, instance.instance_id, instance.label)
    return row


def destroy_orphan(provider: str, orphan: Orphan) -> None:
    """It becomes a rental like any other, without a session, and is owed from the first moment."""
    now, instance = clock.now(), orphan.instance
    with transaction.atomic():
        rental = Rental.objects.create(
            origin=Rental.Origin.ORPHAN,
            provider=provider,
            state=Debt.LIVE,
            label=instance.label[:64],
            instance_id=instance.instance_id,
            machine_id=instance.machine_id,
            phase=instance.phase,
            created_at=now,
            accepted_at=instance.created_at or orphan.seen.first_seen_at,
        )
        sightings.take_rates(rental, instance, now)
        owe_destruction(rental, {Debt.LIVE})
        orphan.seen.delete()
    log.warning("orphan %s is past its grace: destroying it", instance.label)
