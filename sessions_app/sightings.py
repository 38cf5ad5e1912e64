"""What a complete listing tells of one machine: its address and ports, how it is, and since when it costs what."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DataError, transaction

from gpubroker.common import clock, rows
from gpubroker.common import providers as configured
from providers.base import Instance, Phase
from sessions_app import boot, meter, moved, price
from sessions_app.models import Pricing, Rental, Session
from sessions_app.states import Debt, Status

log = logging.getLogger(__name__)

Seen = tuple[Rental, Instance]
#: Machines noted in one transaction: large enough to be quick, small enough not to keep others from writing for long.
TOGETHER = 100
#: What is written down of a machine as the provider tells it.
_TOLD = ["phase", "status_message", "ssh_endpoints", "ports", "verify_from", "machine_id"]

#: How far a vendor's clock may be from ours before its times are not taken over.
CLOCK_TOLERANCE = timedelta(seconds=60)
LONG_AGO = datetime.min.replace(tzinfo=UTC)
#: Words for a machine that stands still.
DOWN = frozenset({Phase.FAILED, Phase.STOPPED})
#: A machine that is, or was, of use to somebody: what the provider says of it is written down.
STANDING = frozenset({Debt.LIVE, Debt.PARKING, Debt.PRESERVED})


def update_in_order(ids: list[uuid.UUID], **changes: Any) -> None:
    """Many rentals at once, locked in the one order that everybody keeps: that of their ids."""
    wanted = sorted(ids)
    for start in range(0, len(wanted), 500):
        with transaction.atomic():
            some = Rental.objects.filter(id__in=wanted[start : start + 500]).order_by("id")
            locked = list(some.select_for_update(no_key=True).values_list("id", flat=True))
            Rental.objects.filter(id__in=locked).update(**changes)


def note_all(seen: Sequence[Seen], listed_at: datetime) -> None:
    """Many machines, some together. One whose numbers the database refuses must not keep the others from being noted,
    so whoever was together with it is noted alone."""
    for start in range(0, len(seen), TOGETHER):
        some = seen[start : start + TOGETHER]
        try:
            _note(some, listed_at)
        except DataError:
            for rental, instance in some:
                _note_alone(rental, instance, listed_at)


def _note_alone(rental: Rental, instance: Instance, listed_at: datetime) -> None:
    try:
        rental.refresh_from_db(fields=_TOLD)
        _note([(rental, instance)], listed_at)
    except DataError:
        log.exception("the provider's row of %s cannot be stored", rental.label)


def _note(seen: Sequence[Seen], listed_at: datetime) -> None:
    # Two transactions: the meter locks the rental, and a session's row must never be locked after its rental's.
    _before_rates(seen, listed_at)
    meter.run_all(rate for rental, instance in seen for rate in _rates(rental, instance, listed_at))
    for rental, instance in seen:
        _settle_reboot(rental, instance, listed_at)
    _write_down(seen, listed_at)
    price.note_all(seen)


def _write_down(seen: Sequence[Seen], listed_at: datetime) -> None:
    """What the provider says of each machine; written only when it differs from what we have."""
    told = [(rental, said) for rental, instance in seen if (said := _news(rental, instance, listed_at))]
    if not told:
        return
    told.sort(key=lambda each: each[0].id)
    had_address = {rental.id for rental, _ in told if rental.ssh_endpoints}
    with transaction.atomic():
        mine = Session.objects.filter(id__in={rental.session_id for rental, _ in told}).order_by("id")
        sessions = {session.id: session for session in mine.select_for_update(no_key=True)}
        for rental, said in told:
            for name, value in said.items():
                setattr(rental, name, value)
        rows.write_each([rental for rental, _ in told], _TOLD)
        due = [s.id for rental, _ in told if (s := sessions.get(rental.session_id or "")) and _wakes(s, rental)]
        live = set(Rental.objects.filter(id__in=[r.id for r, _ in told], state=Debt.LIVE).values_list("id", flat=True))
        # A slow look may come back to a session that has another machine by now.
        theirs = [(s, r) for r, _ in told if r.id in live and (s := sessions.get(r.session_id or ""))]
        for session, rental in theirs:
            boot.note_endpoint(session, rental)
        boot.note_addresses([(s, r) for s, r in theirs if r.ssh_endpoints and r.id not in had_address])
        moved.wake(theirs)
        # Not nudged one by one: the tick that follows the sweep takes all of them in hand together.
        Session.objects.filter(id__in=due, status=Status.PROVISIONING).update(next_check_at=clock.now())


def _news(rental: Rental, instance: Instance, listed_at: datetime) -> dict[str, Any]:
    """The columns as the provider's word makes them; empty where nothing is new, or nobody is interested."""
    endpoints = [{"host": e.host, "port": e.port, "user": e.user, "kind": e.kind} for e in instance.ssh_endpoints]
    message = instance.status_message[:300]
    ports: dict[str, list[str | int]] = {str(inside): [*outside] for inside, outside in instance.ports.items()}
    known = (rental.phase, rental.status_message, rental.ssh_endpoints, rental.ports)
    if rental.state not in STANDING or known == (instance.phase, message, endpoints, ports):
        return {}
    return {
        "phase": instance.phase,
        "status_message": message,
        "ssh_endpoints": endpoints,
        "ports": ports,
        "verify_from": rental.verify_from or (listed_at if endpoints or ports else None),
        "machine_id": instance.machine_id or rental.machine_id,
    }


def _wakes(session: Session, rental: Rental) -> bool:
    """Whether a boot can go on with what is known of its machine now."""
    told = rental.ssh_endpoints or rental.ports or rental.phase == Phase.FAILED
    return session.status == Status.PROVISIONING and bool(told)


def lost(rental: Rental, instance: Instance) -> bool:
    """A session that runs on a machine which does not. Decided anew at every listing, not only when it changes:
    the change may have been noted while the session was still being verified."""
    running = rental.session is not None and rental.session.status == Status.RUNNING
    if not running or rental.state != Debt.LIVE or reboot_ends_at(rental) > clock.now():
        return False
    down = DOWN if rental.rebooted_at is None else DOWN | {Phase.BOOTING}
    if rental.session is not None and rental.session.pricing == Pricing.INTERRUPTIBLE:
        down -= {Phase.STOPPED}  # outbid: see paused.py
    return instance.phase in down


def why_lost(rental: Rental, instance: Instance) -> str:
    said = instance.status_message or f"the provider says {instance.status or instance.phase}"
    return f"it did not come back from its reboot: {said}" if rental.rebooted_at is not None else said


def reboot_ends_at(rental: Rental) -> datetime:
    """Until then a machine that we rebooted may stand still; in the past for all others."""
    grace = timedelta(seconds=settings.SSH_VERIFY_SECONDS)
    return LONG_AGO if rental.rebooted_at is None else rental.rebooted_at + grace


def _settle_reboot(rental: Rental, instance: Instance, listed_at: datetime) -> None:
    """It runs when its time to come back is over. Not sooner: right after a reboot the old word may still be told."""
    if rental.rebooted_at is None or instance.phase != Phase.RUNNING or listed_at < reboot_ends_at(rental):
        return
    Rental.objects.filter(id=rental.id, rebooted_at=rental.rebooted_at).update(rebooted_at=None)
    rental.rebooted_at = None


def take_rates(rental: Rental, instance: Instance, listed_at: datetime) -> None:
    """From when the provider bills, at its own rates where it tells them, not from when we came to look."""
    _before_rates([(rental, instance)], listed_at)
    meter.run_all(_rates(rental, instance, listed_at))


def take_answers(rentals: Iterable[Rental]) -> None:
    """What answered us was running, although no listing has shown it since: its GPU costs from then on. Not one that
    has stood still since: its answer does not tell from when it runs again."""
    found = []
    for rental in rentals:
        session = rental.session
        metered = rental.gpu_rate is not None or rental.gpu_from is not None
        if session is None or session.running_at is None or metered:
            continue
        since = rental.create_sent_at if _bills_from_order(rental) else None
        price = session.price_per_hour if rental.price_actual is None else rental.price_actual
        found.append(meter.Rate(rental, "gpu", price, since or session.running_at))
    meter.run_all(found)


def _before_rates(seen: Sequence[Seen], listed_at: datetime) -> None:
    """What rarely happens: the first listing that shows a machine, and a machine that stands still."""
    first = [(r, _contract_began(r, instance, listed_at)) for r, instance in seen if r.last_seen_at is None]
    meter.backdate(first, "disk")
    for rental, instance in seen:
        if instance.phase == Phase.STOPPED and not _bills_from_order(rental):
            meter.stop_gpu(rental, listed_at)


def _rates(rental: Rental, instance: Instance, listed_at: datetime) -> list[meter.Rate]:
    began = _contract_began(rental, instance, listed_at)
    found = []
    if instance.storage_price_per_hour is not None:
        since = listed_at if rental.disk_rate else began
        found.append(meter.Rate(rental, "disk", instance.storage_price_per_hour, since))
    from_order = _bills_from_order(rental)
    asked = rental.session.price_per_hour if rental.session else None
    rate = instance.gpu_price_per_hour if instance.gpu_price_per_hour is not None else asked
    if rate is not None and (instance.phase == Phase.RUNNING or from_order):
        first = began if from_order else _running_since(rental, instance, listed_at)
        found.append(meter.Rate(rental, "gpu", rate, first if rental.gpu_rate is None else listed_at))
    return found


def _bills_from_order(rental: Rental) -> bool:
    return configured.get(rental.provider).capabilities.bills_from_order


def _contract_began(rental: Rental, instance: Instance, listed_at: datetime) -> datetime:
    """The vendor's word, unless its clock contradicts ours: not before we asked for it, not after we saw it."""
    asked = rental.create_sent_at or rental.accepted_at or listed_at
    # One that was found after its answer was lost was accepted long before it was found.
    accepted = asked if rental.unknown_since is not None else rental.accepted_at
    said = instance.created_at or accepted or listed_at
    if rental.create_sent_at is None:
        return min(said, listed_at)  # an orphan: we know of no asking
    return said if asked - CLOCK_TOLERANCE <= said <= listed_at + CLOCK_TOLERANCE else asked


def _running_since(rental: Rental, instance: Instance, listed_at: datetime) -> datetime:
    """The vendor's word, within what we saw ourselves: after the last listing in which it did not run yet."""
    earliest = rental.last_seen_at or _contract_began(rental, instance, listed_at)
    said = earliest if instance.running_for is None else listed_at - instance.running_for
    return min(max(said, earliest), listed_at)
