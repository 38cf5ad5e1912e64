"""The sweep: one provider's complete listing against our open rentals.

Every complete listing is a sweep. A failed, partial or implausible one proves nothing (I5): it is an error of
the provider's, raised before anything here is touched.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.db import Error, close_old_connections, connections
from django.db.models import Case, Q, Value, When

from gpubroker.common import clock, gathered
from gpubroker.common import providers as configured
from gpubroker.common.deployment import deployment_id
from gpubroker.common.errors import ApiError
from providers.base import Instance, InstanceListing
from providers.errors import ProviderError
from providers.labels import parse_label
from sessions_app import attempts, nudge, paused, preserve, price, sightings, strays, trust
from sessions_app.launch import adopt, found_first
from sessions_app.models import Pricing, ProviderWatch, Rental
from sessions_app.sightings import STANDING
from sessions_app.states import OPEN, Debt, EndReason, Status
from sessions_app.strays import Orphan
from sessions_app.trust import Intent

log = logging.getLogger(__name__)

#: A listing whose worker died is begun again after so long. One that takes longer, as it does with thousands of
#: machines, has it renewed.
LEASE = timedelta(seconds=60)
RENEW_SECONDS = LEASE.total_seconds() / 3
#: Not for ever: 100,000 machines take an hour and a half, and a worker that is stuck must not keep the others.
LONGEST_SECONDS = 7200.0
QUICK_SECONDS = 2.0
SLOW_SECONDS = 30.0
#: While an interruptible machine lives, which may stop and start at any time, and is billed by that.
BID_SECONDS = 10.0
#: After a sweep comes a rest of so many times as long as its work took.
REST = 2
#: Rentals that are in memory as a whole at a time.
TOGETHER = 500


class _Known(NamedTuple):
    """As much of an open rental as the comparison needs of all of them."""

    id: uuid.UUID
    instance_id: str
    label: str
    state: str
    last_seen_at: datetime | None
    preserved_at: datetime | None


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
    #: Machines that stand in our books.
    standing: int = 0
    #: The trust gate held it: nothing was ended.
    held: bool = False
    lost: list[tuple[Rental, Instance]] = field(default_factory=list)
    #: Machines that run and cost more than their session's ``max_price``, and why.
    dear: list[tuple[Rental, str]] = field(default_factory=list)
    suspects: list[Rental] = field(default_factory=list)
    due_orphans: list[Orphan] = field(default_factory=list)


def claim_due() -> list[str]:
    """Providers whose listing is due, each claimed by an atomic update that is its lease."""
    names = list(configured.configured())
    now = clock.now()
    known = dict(ProviderWatch.objects.filter(provider__in=names).values_list("provider", "next_sweep_at"))
    if len(known) < len(names):
        rows = [ProviderWatch(provider=name, next_sweep_at=now) for name in names]
        ProviderWatch.objects.bulk_create(rows, ignore_conflicts=True)
    due = [name for name in names if known.get(name, now) <= now]
    free = Q(listing_until__isnull=True) | Q(listing_until__lte=now)
    claim = ProviderWatch.objects.filter(free, next_sweep_at__lte=now)
    lease = {"next_sweep_at": now + LEASE, "listing_until": now + LEASE}
    return [name for name in due if claim.filter(provider=name).update(**lease)]


def ask(name: str) -> bool:
    """Somebody wants a sweep: the next tick begins it, or the one after the listing that is under way. ``False``: this
    provider is not watched."""
    return bool(ProviderWatch.objects.filter(provider=name).update(next_sweep_at=clock.now()))


def give_back(name: str) -> None:
    """A listing was broken off: it may begin again at once."""
    ProviderWatch.objects.filter(provider=name).update(next_sweep_at=clock.now(), listing_until=None)


@contextmanager
def _renewed(name: str) -> Iterator[None]:
    """The lease lasts as long as the block: two listings at once would take each other's turns with the provider, be
    twice as slow, and let a third begin."""
    over, ends = threading.Event(), time.monotonic() + LONGEST_SECONDS
    # Not once it is given back: the sweep may end at the very moment.
    held = ProviderWatch.objects.filter(provider=name, listing_until__isnull=False)

    def renew() -> None:
        try:
            while not over.wait(RENEW_SECONDS) and time.monotonic() < ends:
                try:
                    held.update(listing_until=clock.now() + LEASE)
                except Error as error:
                    log.warning("the listing of %s is not renewed: %s", name, error)
                    close_old_connections()
        finally:
            connections.close_all()

    thread = threading.Thread(target=renew, name=f"listing-{name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sweep(name: str) -> Sweep | None:
    """List completely and compare; ``None`` when the listing failed, and then nothing has changed."""
    with _renewed(name):
        return _sweep(name)


def _sweep(name: str) -> Sweep | None:
    started = clock.now()
    before = ProviderWatch.objects.filter(provider=name).values_list("next_sweep_at", flat=True).first()
    try:
        listing = configured.get(name).list_instances()
    except (ProviderError, ApiError) as error:
        _failed(name, error)
        return None
    listed = clock.now()
    result = _compare(name, listing, started)
    nudge.tick()
    _act(result)
    _finished(result, started, before, clock.now() - listed)
    return result


def _failed(name: str, error: ProviderError | ApiError) -> None:
    watch = ProviderWatch.objects.get(provider=name)
    held = isinstance(error, ProviderError) and error.kind == "gate_closed"
    failures = watch.failures_in_a_row + (0 if held else 1)
    wanted = error.retry_after if isinstance(error, ProviderError) else None
    pause = max(wanted or 0.0, 0.2 if held else min(2.0 * 2 ** min(failures, 10), settings.RECONCILE_SECONDS))
    changes = {
        "next_sweep_at": clock.now() + timedelta(seconds=pause), "failures_in_a_row": failures, "listing_until": None,
    }  # fmt: skip
    ProviderWatch.objects.filter(provider=name).update(**changes, **({} if held else {"last_error": str(error)[:300]}))
    gathered.count("gpu_listings_total", provider=name, outcome="put_off" if held else "failed")
    if not held:
        log.warning("machines not listed, %s; again in %.0f s", error, pause)


def _compare(name: str, listing: InstanceListing, started: datetime) -> Sweep:
    """Match every machine to a rental and write down what is seen; nothing is ended here."""
    result = Sweep(name, machines=len(listing.instances))
    rentals = Rental.objects.filter(provider=name, state__in=OPEN)
    books = [_Known(*row) for row in rentals.values_list(*_Known._fields).iterator()]
    by_machine = {rental.instance_id: rental for rental in books if rental.instance_id}
    by_label = {rental.label: rental for rental in books if not rental.instance_id}
    result.standing = sum(rental.state in STANDING for rental in by_machine.values())
    #: Looked at since they were listed (:mod:`sessions_app.peek`): of these the listing is old news.
    since = {item for item, rental in by_machine.items() if _newer(rental, listing.listed_at)}
    seen: set[uuid.UUID] = set()
    known: dict[uuid.UUID, Instance] = {}
    strangers: list[Instance] = []
    unknown: list[Instance] = []
    unanswered: dict[uuid.UUID, Instance] = {}
    for instance in listing.instances:
        label = parse_label(instance.label)
        rental = by_machine.get(instance.instance_id)
        if rental is not None:
            if instance.instance_id in since:
                continue
            seen.add(rental.id)
            if rental.preserved_at is not None and listing.listed_at < rental.preserved_at:
                continue  # it was listed before it stopped
            known[rental.id] = instance
        elif label is not None and label.deployment == deployment_id():
            waiting = by_label.pop(instance.label, None)
            if waiting is None:
                strangers.append(instance)
            else:
                unanswered[waiting.id] = instance
        elif label is None:
            unknown.append(instance)
        result.ours += label is not None and label.deployment == deployment_id()
    for found in _whole(list(unanswered)).values():
        # CREATING: its answer is on the way.
        if found.state == Debt.UNKNOWN or found_first(found):
            adopt(found, unanswered[found.id])
            result.adopted += 1
    strangers = strays.not_closed_since(name, strangers, started)
    _note(known, listing.listed_at, result)
    sightings.update_in_order(list(seen), last_seen_at=started, missing_listings=0)
    missing = [rental.id for item, rental in by_machine.items() if rental.id not in seen and item not in since]
    result.suspects = strays.note_missing(list(_whole(missing).values()), started)
    result.orphans = len(strangers)
    result.due_orphans = strays.note_orphans(name, strangers, started)
    strays.note_unknown(name, unknown, started)
    return result


def _whole(ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Rental]:
    """Those that are open still, with their sessions."""
    found: dict[uuid.UUID, Rental] = {}
    for start in range(0, len(ids), TOGETHER):
        some = Rental.objects.filter(id__in=ids[start : start + TOGETHER], state__in=OPEN)
        found.update((rental.id, rental) for rental in some.select_related("session"))
    return found


def _newer(rental: _Known, listed_at: datetime) -> bool:
    return rental.last_seen_at is not None and listed_at < rental.last_seen_at <= clock.now()


def _runs(rental: Rental) -> bool:
    return rental.session is not None and rental.session.status == Status.RUNNING


def _note(known: dict[uuid.UUID, Instance], listed_at: datetime, result: Sweep) -> None:
    """Machines that stand in our books: write down what is seen, and find those that are lost or too dear. Some at a
    time: ten thousand whole rentals with their sessions weigh a hundred megabytes."""
    ids = list(known)
    for start in range(0, len(ids), TOGETHER):
        some = [(rental, known[rental.id]) for rental in _whole(ids[start : start + TOGETHER]).values()]
        sightings.note_all(some, listed_at)
        for rental, instance in some:
            preserve.note(rental, instance)
            paused.note(rental, instance)
            if sightings.lost(rental, instance):
                result.lost.append((rental, instance))
            elif _runs(rental) and (why := price.above(rental, instance)):
                result.dear.append((rental, why))


def _act(result: Sweep) -> None:
    """End what the listing shows to be lost and destroy the orphans that are due, unless that would be too much. What a
    person has decided on, one by one, is not held."""
    for orphan in [each for each in result.due_orphans if each.asked_for]:
        _destroy(result, orphan)
        result.due_orphans.remove(orphan)
    intent = Intent(
        result.provider,
        ends=[rental.label for rental in [*(r for r, _ in [*result.lost, *result.dear]), *result.suspects]],
        orphans=[orphan.instance.instance_id for orphan in result.due_orphans],
        standing=result.standing,
        ours=result.ours,
        dear=len(result.dear),
    )
    result.held = not trust.allows(intent)
    if result.held:
        return
    for rental, instance in result.lost:
        attempts.fail(rental, EndReason.PROVIDER_LOST, sightings.why_lost(rental, instance))
    for rental, why in result.dear:
        attempts.fail(rental, EndReason.PRICE, why)
    for rental in result.suspects:
        result.ghosts += strays.look_for_ghost(rental)
    for orphan in result.due_orphans:
        _destroy(result, orphan)


def _destroy(result: Sweep, orphan: Orphan) -> None:
    strays.destroy_orphan(result.provider, orphan)
    result.orphans_destroyed += 1


def _finished(result: Sweep, started: datetime, before: datetime | None, work: timedelta) -> None:
    """``before``: when the next one was due as this one began; who has changed that since wants one right after."""
    gathered.count("gpu_listings_total", provider=result.provider, outcome="held" if result.held else "complete")
    pause = _pace(result.provider)
    # Where a thousand machines boot, comparing takes long: most of the time belongs to those who look at the machines.
    rest = min(work * REST, timedelta(seconds=min(SLOW_SECONDS, settings.RECONCILE_SECONDS)))
    now = clock.now()
    asked = When(~Q(next_sweep_at=before), next_sweep_at__lte=now, then=Value(now + rest))
    ProviderWatch.objects.filter(provider=result.provider).update(
        last_sweep_at=started,
        next_sweep_at=Case(asked, default=Value(max(started + timedelta(seconds=pause), now + rest))),
        listing_until=None,
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
    if live.filter(state=Debt.LIVE, session__pricing=Pricing.INTERRUPTIBLE).exists():
        return min(BID_SECONDS, settings.RECONCILE_SECONDS)
    return min(SLOW_SECONDS if live.exists() else settings.RECONCILE_SECONDS, settings.RECONCILE_SECONDS)


def _quick() -> float:
    return max(QUICK_SECONDS * settings.PROVIDER_PACE, 0.4)
