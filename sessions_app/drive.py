"""The driver: finds the rows that are due, claims each by an atomic update that is its lease, and hands it on by id."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.db import connection, transaction

from gpubroker.common import clock
from gpubroker.common.models import Pulse
from sessions_app import boot, idempotency, launch, nudge, reap, sweep
from sessions_app.ending import end_session, finish_session
from sessions_app.models import ProviderWatch, Rental, Session
from sessions_app.states import ENDABLE, Debt, EndReason, Status

BATCH = 200
SESSION_LEASE = timedelta(seconds=30)
RENTAL_LEASE = timedelta(seconds=45)
PULSE = "tick"
#: What was kept long enough is erased this often.
PURGE = "purge"
PURGE_EVERY = timedelta(seconds=30)
#: The scheduler counts as running while its last tick is younger than this.
PULSE_FRESH = timedelta(seconds=15)


def tick() -> int:
    """One round: how many rows and listings were handed on."""
    sessions, rentals, listings = _claim_sessions(), _claim_rentals(), sweep.claim_due()
    for session_id in sessions:
        nudge.session(session_id)
    for rental_id, state in rentals:
        (nudge.destroy if state == Debt.DESTROYING else nudge.rental)(rental_id)
    for name in listings:
        nudge.sweep(name)
    _beat()
    _purge()
    return len(sessions) + len(rentals) + len(listings)


def _beat() -> None:
    now = clock.now()
    if not Pulse.objects.filter(name=PULSE).update(at=now):
        Pulse.objects.bulk_create([Pulse(name=PULSE, at=now)], ignore_conflicts=True)


def _purge() -> None:
    """Now and then, in whichever process comes first."""
    now = clock.now()
    if not Pulse.objects.filter(name=PURGE).exists():
        Pulse.objects.bulk_create([Pulse(name=PURGE, at=now)], ignore_conflicts=True)
    elif Pulse.objects.filter(name=PURGE, at__lte=now - PURGE_EVERY).update(at=now):
        idempotency.purge()


def _claim_sessions() -> list[str]:
    now = clock.now()
    due = Session.objects.filter(next_check_at__lte=now).order_by("next_check_at")
    if not due.exists():
        return []
    with transaction.atomic():
        ids = list(due.select_for_update(skip_locked=_can_skip(), no_key=True).values_list("id", flat=True)[:BATCH])
        Session.objects.filter(id__in=ids).update(next_check_at=now + SESSION_LEASE)
    return ids


def _claim_rentals() -> list[tuple[uuid.UUID, str]]:
    now = clock.now()
    due = Rental.objects.filter(next_check_at__lte=now).order_by("next_check_at")
    if not due.exists():
        return []
    with transaction.atomic():
        rows = list(due.select_for_update(skip_locked=_can_skip(), no_key=True).values_list("id", "state")[:BATCH])
        Rental.objects.filter(id__in=[row[0] for row in rows]).update(next_check_at=now + RENTAL_LEASE)
    return rows


def _can_skip() -> bool:
    return connection.features.has_select_for_update_skip_locked


def drive_session(session_id: str) -> None:
    """What this session needs now: its end when its time is up, else the next step of its boot."""
    session = Session.objects.filter(id=session_id).first()
    if session is None or session.status not in (*ENDABLE, Status.STOPPING):
        return
    now = clock.now()
    if session.status == Status.STOPPING:
        finish_session(session.id)  # a safety net: whoever closes the rental has done it
    elif now >= min(session.expires_at, session.hard_max_at):
        _end_if_due(session.id)
    elif session.status == Status.PROVISIONING:
        boot.step(session)
    else:
        due = min(session.expires_at, session.hard_max_at)
        Session.objects.filter(id=session.id, status=session.status).update(next_check_at=due)


def _end_if_due(session_id: str) -> None:
    """Its time is up, unless it was extended since we looked: decided with the row locked, so one of the two wins."""
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        now = clock.now()
        if now >= session.expires_at:
            end_session(session_id, EndReason.EXPIRED)
        elif now >= session.hard_max_at:
            end_session(session_id, EndReason.HARD_MAX)


def drive_rental(rental_id: uuid.UUID) -> None:
    """What this debt needs now."""
    rental = Rental.objects.select_related("session").filter(id=rental_id).first()
    if rental is None:
        return
    now = clock.now()
    if rental.state == Debt.INTENDED:
        launch.launch(rental)
    elif rental.state == Debt.CREATING:
        if rental.create_sent_at is not None and now - rental.create_sent_at >= launch.CREATE_LEASE:
            launch.give_up_waiting(rental)
    elif rental.state == Debt.UNKNOWN:
        launch.look_up(rental)
    elif rental.state == Debt.DESTROYING:
        reap.pay(rental)


def recover() -> int:
    """After a crash of everything on this one host: whoever held a lease is dead, so all open work is due now."""
    now = clock.now()
    for rental in Rental.objects.filter(state=Debt.CREATING):
        launch.give_up_waiting(rental)
    rentals = Rental.objects.filter(state__in=[Debt.INTENDED, Debt.UNKNOWN, Debt.DESTROYING])
    due = rentals.update(next_check_at=now)
    due += Session.objects.filter(status=Status.PROVISIONING).update(next_check_at=now)
    ProviderWatch.objects.update(next_sweep_at=now)
    return due
