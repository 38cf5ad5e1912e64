"""Looking after running sessions over SSH: does our key still open the door, and is the machine at work?

Each look is one login. What it finds never ends a session by itself, except idleness that the consumer asked to be
ended (:mod:`sessions_app.idle`): whether the machine is still there is the provider's to say (the sweep). A door that
no longer takes our key gets both keys again through the provider, because vendors rewrite the list of keys after hours.
A host key other than the pinned one gets nothing: no login, no keys, and no trust.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F

from gpubroker.common import clock, counters, crypto
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from providers.base import Provider, RemovesKeys
from providers.errors import ProviderError
from sessions_app import idle, moved, samples, verify
from sessions_app.glance import glance
from sessions_app.launch_modes import SSH
from sessions_app.models import Door, Rental, Session
from sessions_app.samples import Reading
from sessions_app.states import Debt, Status
from sessions_app.transitions import record

log = logging.getLogger(__name__)

#: Claimed at once; with a tick twice a second, more than two hundred looks a second.
BATCH = 100
LEASE = timedelta(seconds=60)
#: Looks at once in one process, so that silent machines leave threads for everything else.
MOST_AT_ONCE = 8
#: Where idleness is to be noticed, or something is wrong; else every ``KEY_CHECK_SECONDS``.
OFTEN_SECONDS = 60.0
#: After a first failure, after new keys, or while all slots are taken.
SOON_SECONDS = 10.0
_slots = threading.BoundedSemaphore(MOST_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    door: Door
    reading: Reading
    reason: str = ""


def first_look(session: Session) -> datetime | None:
    """When a session that has just come to run is looked at first; ``None``: never, there is no SSH."""
    return _next_look(session, Door.OPEN, clock.now()) if session.launch_mode == SSH else None


def ensure(session: Session) -> None:
    """A running session that nobody looks at, such as one from before there were looks, is looked at from now on."""
    running = session.status == Status.RUNNING and session.paused_at is None
    if running and session.next_probe_at is None and session.launch_mode == SSH:
        unwatched = Session.objects.filter(
            id=session.id, status=Status.RUNNING, next_probe_at__isnull=True, paused_at__isnull=True
        )  # fmt: skip
        unwatched.update(next_probe_at=first_look(session))


def claim_due(limit: int = BATCH) -> list[str]:
    """Sessions whose machine is to be looked at, each claimed by an atomic update that is its lease."""
    now = clock.now()
    due = Session.objects.filter(next_probe_at__lte=now, status=Status.RUNNING).order_by("next_probe_at")
    if not due.exists():
        return []
    skip = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        ids = list(due.select_for_update(skip_locked=skip, no_key=True).values_list("id", flat=True)[:limit])
        Session.objects.filter(id__in=ids).update(next_probe_at=now + LEASE)
    return ids


def look(session_id: str) -> None:
    """One look at one machine; writes when to look again."""
    up = Session.objects.filter(id=session_id, status=Status.RUNNING, paused_at__isnull=True)
    session = up.filter(launch_mode=SSH).first()
    rental = session.rentals.filter(state=Debt.LIVE).first() if session is not None else None
    if session is None or rental is None:
        return
    if not _slots.acquire(blocking=False):
        _look_again(session.id, SOON_SECONDS * (0.5 + _place(session.id)))
        return
    try:
        found = _knock(session, rental)
        if found.door is not Door.OPEN and moved.follow(session, rental):
            session.refresh_from_db()
            rental.refresh_from_db()
            found = _knock(session, rental)
    finally:
        _slots.release()
    if _note(session.id, rental, found) and found.door is Door.LOCKED:
        _repair(session, rental)


def _knock(session: Session, rental: Rental) -> Look:
    endpoint = verify.Endpoint(session.ssh_host, session.ssh_port or 0, session.ssh_user)
    try:
        reading = glance(endpoint, crypto.unseal(rental.broker_key_sealed), rental.host_key, session.gpu_count)
    except verify.KeyRefused:
        reason = "the machine no longer accepts the broker's key"
        return Look(Door.LOCKED, Reading(note=reason), reason)
    except verify.OtherHostKey as error:
        return Look(Door.CHANGED, Reading(note="another host key"), str(error))
    except verify.NotYet as error:
        reason = f"{endpoint.host}:{endpoint.port} {error}"
        return Look(Door.SILENT, Reading(note=reason), reason)
    return Look(Door.OPEN, reading)


def _note(session_id: str, rental: Rental, found: Look) -> bool:
    """Write down what was found, and when to look again. ``False``: the session ended or was paused meanwhile."""
    now = clock.now()
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        fresh = Rental.objects.select_for_update(no_key=True).get(id=rental.id)
        if session.status != Status.RUNNING or fresh.state != Debt.LIVE or session.paused_at is not None:
            return False
        door = _confirmed(Door(fresh.door), found.door)
        _tell_change(fresh, door, found)
        opened = {"key_checked_at": now} if door is Door.OPEN else {}
        Rental.objects.filter(id=rental.id).update(door=door, last_error=found.reason[:300], **opened)
        samples.take(session_id, samples.Source.PROBE, found.reading)
        session.refresh_from_db()
        at = _next_look(session, door, now)
        Session.objects.filter(id=session_id, status=Status.RUNNING).update(next_probe_at=at)
    return True


def _confirmed(before: Door, now: Door) -> Door:
    """Networks hiccup: one failure to connect is a doubt, the second in a row is told."""
    return Door.DOUBTED if now is Door.SILENT and before is Door.OPEN else now


def _tell_change(rental: Rental, door: Door, found: Look) -> None:
    """An event where the door's state changed; a doubt that passes is none."""
    before = Door(rental.door)
    quiet = {Door.OPEN, Door.DOUBTED}
    if door is before or (door in quiet and before in quiet):
        return
    kind, reason = {
        Door.OPEN: ("ssh_reachable", "the broker's key opens the door again"),
        Door.SILENT: ("ssh_unreachable", found.reason),
        Door.LOCKED: ("keys_lost", found.reason + _unrepairable(rental.provider)),
        Door.CHANGED: ("host_key_changed", found.reason),
    }[door]
    record(kind, session_id=rental.session_id, rental_id=rental.id, reason=reason, details={"before": before.value})
    log.info("session %s: %s: %s", rental.session_id, kind, reason)


def _unrepairable(provider: str) -> str:
    return "" if _attaches_keys(provider) else f"; {provider} cannot put keys on a running machine"


def _attaches_keys(name: str) -> Provider | None:
    """The provider, if it is there and can put a key on a running machine."""
    try:
        provider = configured.get(name)
    except ApiError:
        return None
    return provider if provider.capabilities.attach_ssh_key else None


def _repair(session: Session, rental: Rental) -> None:
    """Both keys on the machine again, outside any transaction; whether that helped shows at the next look."""
    provider = _attaches_keys(rental.provider)
    if provider is None:
        return
    session.refresh_from_db(fields=["ssh_public_key"])
    consumers = session.ssh_public_key
    try:
        provider.attach_ssh_key(rental.instance_id, consumers, rental.broker_public_key)
    except ProviderError as error:
        log.warning("the keys of %s are not on its machine again: %s", rental.label, error)
        Rental.objects.filter(id=rental.id).update(last_error=str(error)[:300])
        _look_again(session.id, max(error.retry_after or 0.0, SOON_SECONDS))
        return
    if not _note_repair(session.id, rental, consumers):
        _take_off(provider, rental, consumers)


def _note_repair(session_id: str, rental: Rental, consumers: str) -> bool:
    """``False``: the consumer got another key meanwhile, so the one that we put on the machine is nobody's."""
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        if session.status != Status.RUNNING:
            return True
        if session.ssh_public_key != consumers:
            return False
        Rental.objects.filter(id=rental.id).update(key_repairs=F("key_repairs") + 1, keys_attached_at=clock.now())
        record(
            "keys_repaired", session_id=session_id, rental_id=rental.id,
            reason="the provider took both keys for the machine again",
            details={"repairs": rental.key_repairs + 1, "key": verify.fingerprint(consumers)},
        )  # fmt: skip
        counters.increment("gpu_key_repairs_total", provider=rental.provider)
    # Keys take some seconds; a door that stays shut is tried at growing pauses.
    _look_again(session_id, SOON_SECONDS * 2 ** min(rental.key_repairs, 6))
    return True


def _take_off(provider: Provider, rental: Rental, public_key: str) -> None:
    if isinstance(provider, RemovesKeys):
        try:
            provider.remove_ssh_key(rental.instance_id, public_key)
        except ProviderError as error:
            log.error("a replaced key may be on the machine of %s: %s", rental.label, error)
    _look_again(str(rental.session_id), SOON_SECONDS)


def _look_again(session_id: str, seconds: float) -> None:
    at = clock.now() + timedelta(seconds=seconds)
    up = Session.objects.filter(id=session_id, status=Status.RUNNING, paused_at__isnull=True)
    up.update(next_probe_at=at)


def _next_look(session: Session, door: Door, now: datetime) -> datetime:
    """On a grid of its own, so that ten thousand sessions spread evenly, also after an outage; sooner where a look
    decides whether an idle session is warned or ended."""
    if door is Door.DOUBTED:
        return now + timedelta(seconds=SOON_SECONDS)
    often = session.idle_threshold_minutes > 0 or door is not Door.OPEN
    period = min(OFTEN_SECONDS, settings.KEY_CHECK_SECONDS) if often else settings.KEY_CHECK_SECONDS
    offset = _place(session.id) * period
    turns = math.floor((now.timestamp() - offset) / period) + 1
    ahead = idle.plan(session.idle_since, session.idle_warned_at, session.idle_threshold_minutes)
    decisive = [at for at in (ahead.warns_at, ahead.ends_at) if at > now] if ahead is not None else []
    return min([datetime.fromtimestamp(turns * period + offset, UTC), *decisive])


def _place(session_id: str) -> float:
    """0 to 1, the same for a session everywhere and always."""
    return int.from_bytes(hashlib.sha256(session_id.encode()).digest()[:4]) / 2**32
