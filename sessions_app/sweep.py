"""The sweep: one provider's complete listing against our open rentals.

Every complete listing is a sweep. A failed, partial or implausible one proves nothing (I5): it is an error of
the provider's, raised before anything here is touched.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DataError, transaction

from gpubroker.common import clock, counters
from gpubroker.common import providers as configured
from gpubroker.common.deployment import deployment_id
from gpubroker.common.errors import ApiError
from providers.base import Instance, InstanceListing, Phase
from providers.errors import ProviderError
from providers.labels import parse_label
from sessions_app import boot, meter, nudge
from sessions_app.ending import close_rental, end_session, owe_destruction
from sessions_app.launch import adopt
from sessions_app.launch_modes import SSH
from sessions_app.models import ProviderWatch, Rental, SeenOrphan, Session
from sessions_app.states import OPEN, Debt, EndReason, Status
from sessions_app.transitions import record

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
QUICK_SECONDS = 2.0
SLOW_SECONDS = 30.0
#: A machine accepted less than this before the listing may not show in it yet.
LISTING_DELAY = timedelta(seconds=5)
COMPLETE_LISTINGS_FOR_A_GHOST = 2
#: How far a vendor's clock may be from ours before its times are not taken over.
CLOCK_TOLERANCE = timedelta(seconds=60)


@dataclass
class Sweep:
    """What one pass saw and did."""

    provider: str
    machines: int = 0
    ours: int = 0
    adopted: int = 0
    orphans: int = 0
    orphans_destroyed: int = 0
    ghosts: int = 0
    missing: list[Rental] = field(default_factory=list)


def claim_due() -> list[str]:
    """Providers whose listing is due, each claimed by an atomic update that is its lease."""
    names = list(configured.configured())
    now = clock.now()
    known = dict(ProviderWatch.objects.filter(provider__in=names).values_list("provider", "next_sweep_at"))
    if len(known) < len(names):
        rows = [ProviderWatch(provider=name, next_sweep_at=now) for name in names]
        ProviderWatch.objects.bulk_create(rows, ignore_conflicts=True)
    due = [name for name in names if known.get(name, now) <= now]
    claim = ProviderWatch.objects.filter(next_sweep_at__lte=now)
    return [name for name in due if claim.filter(provider=name).update(next_sweep_at=now + LEASE)]


def sweep(name: str) -> Sweep | None:
    """List completely and compare; ``None`` when the listing failed, and then nothing has changed."""
    started = clock.now()
    try:
        listing = configured.get(name).list_instances()
    except (ProviderError, ApiError) as error:
        _failed(name, error)
        return None
    result = _compare(name, listing, started)
    for rental in result.missing:
        if rental.missing_listings >= COMPLETE_LISTINGS_FOR_A_GHOST:
            result.ghosts += _look_for_ghost(rental)
    _finished(result, started)
    return result


def _failed(name: str, error: ProviderError | ApiError) -> None:
    watch = ProviderWatch.objects.get(provider=name)
    held = isinstance(error, ProviderError) and error.kind == "gate_closed"
    failures = watch.failures_in_a_row + (0 if held else 1)
    wanted = error.retry_after if isinstance(error, ProviderError) else None
    pause = max(wanted or 0.0, 0.2 if held else min(2.0 * 2 ** min(failures, 10), settings.RECONCILE_SECONDS))
    changes = {"next_sweep_at": clock.now() + timedelta(seconds=pause), "failures_in_a_row": failures}
    ProviderWatch.objects.filter(provider=name).update(**changes, **({} if held else {"last_error": str(error)[:300]}))
    if not held:
        log.warning("machines not listed, %s; again in %.0f s", error, pause)


def _compare(name: str, listing: InstanceListing, started: datetime) -> Sweep:
    result = Sweep(name, machines=len(listing.instances))
    rentals = list(Rental.objects.filter(provider=name, state__in=OPEN).select_related("session"))
    by_machine = {rental.instance_id: rental for rental in rentals if rental.instance_id}
    by_label = {rental.label: rental for rental in rentals if not rental.instance_id}
    seen: set[str] = set()
    strangers: list[Instance] = []
    for instance in listing.instances:
        label = parse_label(instance.label)
        if instance.instance_id in by_machine:
            seen.add(instance.instance_id)
            _note_safely(by_machine[instance.instance_id], instance, listing.listed_at)
        elif label is not None and label.deployment == deployment_id():
            waiting = by_label.pop(instance.label, None)
            if waiting is None:
                strangers.append(instance)
            elif waiting.state == Debt.UNKNOWN:
                adopt(waiting, instance)
                result.adopted += 1
            # CREATING: its answer is still on the way.
        result.ours += label is not None and label.deployment == deployment_id()
    _note_all_seen([by_machine[item] for item in seen], started)
    result.missing = _note_missing([r for r in by_machine.values() if r.instance_id not in seen], started)
    _orphans(result, strangers, started)
    return result


def _note_all_seen(rentals: list[Rental], at: datetime) -> None:
    ids = [rental.id for rental in rentals]
    for start in range(0, len(ids), 500):
        Rental.objects.filter(id__in=ids[start : start + 500]).update(last_seen_at=at, missing_listings=0)


def _note_safely(rental: Rental, instance: Instance, listed_at: datetime) -> None:
    """One machine whose numbers the database refuses must not keep the others from being noted."""
    try:
        # Two transactions: the meter locks the rental, and a session's row must never be locked after its rental's.
        _meter(rental, instance, listed_at)
        _note(rental, instance, listed_at)
    except DataError:
        log.exception("the provider's row of %s cannot be stored", rental.label)


def _note(rental: Rental, instance: Instance, listed_at: datetime) -> None:
    """What the provider says of one machine; written only when it differs from what we have."""
    endpoints = [{"host": e.host, "port": e.port, "user": e.user, "kind": e.kind} for e in instance.ssh_endpoints]
    message = instance.status_message[:300]
    ports: dict[str, list[str | int]] = {str(inside): [*outside] for inside, outside in instance.ports.items()}
    known = (rental.phase, rental.status_message, rental.ssh_endpoints, rental.ports)
    changed = known != (instance.phase, message, endpoints, ports)
    ends = rental.state == Debt.LIVE and _lost(rental, instance)
    if rental.state != Debt.LIVE or not (changed or ends):
        return
    had_address = bool(rental.ssh_endpoints)
    rental.phase, rental.status_message, rental.ssh_endpoints = instance.phase, message, endpoints
    rental.ports = ports
    rental.verify_from = rental.verify_from or (listed_at if endpoints or ports else None)
    rental.machine_id = instance.machine_id or rental.machine_id
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).filter(id=rental.session_id).first()
        rental.save(update_fields=["phase", "status_message", "ssh_endpoints", "ports", "verify_from", "machine_id"])
        if session is None:
            return
        boot.note_endpoint(session, rental)
        if session.status == Status.PROVISIONING and (endpoints or ports or instance.phase == Phase.FAILED):
            if endpoints and not had_address and session.launch_mode == SSH:
                boot.note_address(session, rental)
            Session.objects.filter(id=session.id, status=Status.PROVISIONING).update(next_check_at=clock.now())
            nudge.session(session.id)
        elif session.status == Status.RUNNING and ends:
            reason = message or f"the provider says {instance.status or instance.phase}"
            end_session(session.id, EndReason.PROVIDER_LOST, message=reason)


def _lost(rental: Rental, instance: Instance) -> bool:
    """A session that runs on a machine which does not. Decided anew at every listing, not only when it changes:
    the change may have been noted while the session was still being verified."""
    running = rental.session is not None and rental.session.status == Status.RUNNING
    return running and instance.phase in (Phase.FAILED, Phase.STOPPED)


def _meter(rental: Rental, instance: Instance, listed_at: datetime) -> None:
    """From when the provider bills, at its own rates where it tells them, not from when we came to look."""
    began = _contract_began(rental, instance, listed_at)
    if rental.last_seen_at is None:
        meter.backdate(rental, "disk", began)
    if instance.storage_price_per_hour is not None:
        meter.run(rental, "disk", instance.storage_price_per_hour, listed_at if rental.disk_rate else began)
    if instance.phase == Phase.RUNNING:
        asked = rental.session.price_per_hour if rental.session else None
        rate = instance.gpu_price_per_hour if instance.gpu_price_per_hour is not None else asked
        if rate is not None:
            since = _running_since(rental, instance, listed_at) if rental.gpu_rate is None else listed_at
            meter.run(rental, "gpu", rate, since)
    elif instance.phase == Phase.STOPPED:
        meter.stop_gpu(rental, listed_at)


def _contract_began(rental: Rental, instance: Instance, listed_at: datetime) -> datetime:
    """The vendor's word, unless its clock contradicts ours: not before we asked for it, not after we saw it."""
    asked = rental.create_sent_at or rental.accepted_at or listed_at
    said = instance.created_at or rental.accepted_at or listed_at
    if rental.create_sent_at is None:
        return min(said, listed_at)  # an orphan: we know of no asking
    return said if asked - CLOCK_TOLERANCE <= said <= listed_at + CLOCK_TOLERANCE else asked


def _running_since(rental: Rental, instance: Instance, listed_at: datetime) -> datetime:
    """The vendor's word, within what we saw ourselves: after the last listing in which it did not run yet."""
    earliest = rental.last_seen_at or _contract_began(rental, instance, listed_at)
    said = earliest if instance.running_for is None else listed_at - instance.running_for
    return min(max(said, earliest), listed_at)


def _note_missing(rentals: list[Rental], started: datetime) -> list[Rental]:
    """Count complete listings without a machine; young ones may not show yet."""
    missing = []
    for rental in rentals:
        if rental.accepted_at is not None and rental.accepted_at > started - LISTING_DELAY:
            continue
        rental.missing_listings += 1
        Rental.objects.filter(id=rental.id).update(missing_listings=rental.missing_listings)
        if rental.state == Debt.LIVE:
            missing.append(rental)
    return missing


def _look_for_ghost(rental: Rental) -> bool:
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
            end_session(rental.session_id, EndReason.PROVIDER_LOST, message="the provider no longer has the machine")
        closed = close_rental(
            rental, {Debt.LIVE, Debt.DESTROYING}, proof, billed_until=rental.last_seen_at or rental.accepted_at
        )
        if closed:
            counters.increment("gpu_ghosts_detected_total", provider=rental.provider)
    return closed


def _orphans(result: Sweep, strangers: list[Instance], at: datetime) -> None:
    """Machines with our label that no open rental knows: remembered, reported, and destroyed after their grace (I4)."""
    known = {row.instance_id: row for row in SeenOrphan.objects.filter(provider=result.provider)}
    grace = timedelta(seconds=settings.ORPHAN_GRACE_SECONDS)
    for instance in strangers:
        result.orphans += 1
        row = known.pop(instance.instance_id, None)
        if row is None:
            row = _new_orphan(result.provider, instance, at)
        if at - row.first_seen_at >= grace:
            _destroy_orphan(result.provider, instance, row)
            result.orphans_destroyed += 1
    SeenOrphan.objects.filter(id__in=[row.id for row in known.values()]).delete()


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


def _destroy_orphan(provider: str, instance: Instance, row: SeenOrphan) -> None:
    """It becomes a rental like any other, without a session, and is owed from the first moment."""
    now = clock.now()
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
            accepted_at=instance.created_at or row.first_seen_at,
        )
        _meter(rental, instance, now)
        owe_destruction(rental, {Debt.LIVE})
        row.delete()
    log.warning("orphan %s is past its grace: destroying it", instance.label)


def _finished(result: Sweep, started: datetime) -> None:
    pause = _pace(result.provider)
    ProviderWatch.objects.filter(provider=result.provider).update(
        last_sweep_at=started,
        next_sweep_at=started + timedelta(seconds=pause),
        failures_in_a_row=0,
        last_error="",
        ours=result.ours,
        machines=result.machines,
    )


def _pace(provider: str) -> float:
    """Seconds to the next listing: quick while something boots or is unclear, slow while something lives."""
    live = Rental.objects.filter(provider=provider, state__in=OPEN)
    if live.filter(state__in=[Debt.UNKNOWN, Debt.CREATING]).exists():
        return _quick()
    if live.filter(state=Debt.LIVE, session__status=Status.PROVISIONING).exists():
        return _quick()
    return min(SLOW_SECONDS if live.exists() else settings.RECONCILE_SECONDS, settings.RECONCILE_SECONDS)


def _quick() -> float:
    return max(QUICK_SECONDS * settings.PROVIDER_PACE, 0.4)
