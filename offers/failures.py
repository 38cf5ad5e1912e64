"""The memory of attempts: what failed and what worked, written when it happens, forgotten after :data:`KEPT`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet

from gpubroker.common import clock
from offers import health
from offers.health import Failure, Health, Success, machine_key
from offers.models import Offer, OfferFailure, OfferSuccess, ProviderInventory

KEPT = timedelta(days=30)
#: Rows deleted in one go, so that a purge never holds the database for long.
PURGE_BATCH = 2000


def record_failure(
    *, provider: str, offer_id: str, machine_id: str, gpu_type: str, reason: str, message: str = ""
) -> bool:
    """Remember a failed attempt, and let every copy of the inventory know. ``False``: the reason says nothing of the
    machine or offer, so nothing is remembered.

    To be called in the failure's own transaction, after rentals are locked: it locks the inventory's row.
    """
    if reason not in health.WEIGHTS:
        return False
    with transaction.atomic():
        OfferFailure.objects.create(
            provider=provider, offer_id=offer_id[:128], machine_id=machine_id[:64], gpu_type=gpu_type[:64],
            reason=reason, message=message[:300], at=clock.now(),
        )  # fmt: skip
        ProviderInventory.objects.filter(provider=provider).update(version=F("version") + 1)
    return True


@dataclass(frozen=True, slots=True)
class Worked:
    """An attempt that came to a running machine."""

    provider: str
    offer_id: str
    machine_id: str
    gpu_type: str


def record_successes(attempts: Iterable[Worked]) -> None:
    """What failures of a GPU type are held against."""
    now = clock.now()
    OfferSuccess.objects.bulk_create(
        OfferSuccess(
            provider=worked.provider, offer_id=worked.offer_id[:128], machine_id=worked.machine_id[:64],
            gpu_type=worked.gpu_type[:64], at=now,
        )
        for worked in attempts
    )  # fmt: skip


def remembered() -> Health:
    """What counts today, of all providers. At most two queries: without failures successes do not matter."""
    now = clock.now()
    failures = _as_failures(OfferFailure.objects.filter(at__gt=now - health.REMEMBERED))
    if not failures:
        return Health()
    worked = OfferSuccess.objects.filter(at__gt=now - health.TYPE_WINDOW).values_list("provider", "gpu_type", "at")
    return Health(failures, tuple(Success(*row) for row in worked))


def _as_failures(rows: QuerySet[OfferFailure]) -> tuple[Failure, ...]:
    columns = ("provider", "machine_id", "offer_id", "gpu_type", "reason", "at")
    return tuple(
        Failure(machine_key(provider, machine_id, offer_id), provider, gpu_type, reason, at)
        for provider, machine_id, offer_id, gpu_type, reason, at in rows.order_by("at").values_list(*columns)
    )


def counts(offers: Iterable[Offer]) -> dict[str, int]:
    """How often attempts on each offer's machine failed within :data:`KEPT`, by :func:`offers.health.machine_key`; one
    query, and machines without a failure are left out."""
    found: dict[str, int] = {}
    chosen = list(offers)
    named = {offer.machine_id for offer in chosen if offer.machine_id}
    unnamed = {offer.id for offer in chosen if not offer.machine_id}
    theirs = Q(machine_id__in=named) | Q(machine_id="", offer_id__in=unnamed)
    rows = OfferFailure.objects.filter(theirs, at__gt=clock.now() - KEPT).order_by()
    for provider, machine_id, offer_id, failed in rows.values_list("provider", "machine_id", "offer_id").annotate(
        failed=Count("id")
    ):
        machine = machine_key(provider, machine_id, offer_id)
        found[machine] = found.get(machine, 0) + failed
    return found


def of_machine(offer: Offer) -> QuerySet[OfferFailure]:
    """Of the machine that this offer is a part of, the newest first, within :data:`KEPT`."""
    mine = {"machine_id": offer.machine_id} if offer.machine_id else {"machine_id": "", "offer_id": offer.id}
    rows = OfferFailure.objects.filter(provider=offer.provider, at__gt=clock.now() - KEPT, **mine)
    return rows.order_by("-at", "-id")


def is_suppressed(offer: Offer) -> bool:
    """Whether this offer's machine has failed too often just now; one small query."""
    now = clock.now()
    rows = OfferFailure.objects.filter(provider=offer.provider, at__gt=now - health.WINDOW - health.SUPPRESS_FOR)
    rows = rows.filter(machine_id=offer.machine_id) if offer.machine_id else rows.filter(offer_id=offer.id)
    until = health.suppressed_until(_as_failures(rows))
    return until is not None and health.stepped(now) < until


def purge() -> int:
    """Forget what was kept long enough; how many rows."""
    before = clock.now() - KEPT
    return sum(_purge(rows.objects.filter(at__lt=before)) for rows in (OfferFailure, OfferSuccess))


def _purge(rows: QuerySet[Any]) -> int:
    ids = list(rows.order_by("at").values_list("id", flat=True)[:PURGE_BATCH])
    return rows.model.objects.filter(id__in=ids).delete()[0] if ids else 0


def report() -> dict[str, list[dict[str, Any]]]:
    """What the API tells: every machine with remembered failures, the latest first, and the GPU types they are of.

    Reasons only: what a provider said may name a consumer's image."""
    now, known = clock.now(), remembered()
    view = known.at(now)
    machines = known.by_machine()
    listed = _listed_offers(machines)
    rows = []
    for machine, failures in machines.items():
        last, until = failures[-1], health.suppressed_until(failures)
        offer_id, machine_id = _names(machine, last.provider)
        rows.append({
            "provider": last.provider,
            "machine_id": machine_id,
            "offers": listed.get(machine, [offer_id] if offer_id else []),
            "gpu_type": last.gpu_type,
            "failures_30_min": sum(failure.at > now - health.WINDOW for failure in failures),
            "failures": len(failures),
            "last_reason": last.reason,
            "last_failure_at": clock.iso(last.at),
            "confidence_factor": round(view.machines[machine], 2),
            "suppressed_until": clock.iso(until) if machine in view.suppressed else None,
        })  # fmt: skip
    types = health.degradations(known.failures, known.successes, health.stepped(now))
    return {
        "machines": sorted(rows, key=lambda row: (row["last_failure_at"], row["machine_id"]), reverse=True),
        "gpu_types": [
            {"provider": provider, "gpu_type": gpu_type, "failed": found.failed, "attempts": found.attempts,
             "machines": found.machines, "confidence_factor": round(found.factor, 2)}
            for (provider, gpu_type), found in sorted(types.items())
        ],
    }  # fmt: skip


def _names(machine: str, provider: str) -> tuple[str, str]:
    """Offer id and machine id of a key: the one that it is made of, and "" for the other."""
    prefix = f"{provider}:"
    return ("", machine.removeprefix(prefix)) if machine.startswith(prefix) else (machine, "")


def _listed_offers(machines: Iterable[str]) -> dict[str, list[str]]:
    """The offers that providers list on these machines now."""
    ids = [machine.split(":", 1)[1] for machine in machines if ":" in machine]
    found: dict[str, list[str]] = {}
    rows = Offer.objects.filter(machine_id__in=ids, withdrawn_at__isnull=True).order_by("id")
    for offer_id, provider, machine_id in rows.values_list("id", "provider", "machine_id"):
        found.setdefault(machine_key(provider, machine_id, offer_id), []).append(offer_id)
    return found
