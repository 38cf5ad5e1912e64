"""The driver: finds the rows that are due, claims each by an atomic update that is its lease, and hands it on by id."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from gpubroker.common import clock, idempotency, logs
from gpubroker.common.models import Pulse
from offers import failures
from offers.models import ProviderInventory
from sessions_app import (
    attempts,
    bid,
    boot,
    claims,
    launch,
    nudge,
    outages,
    paused,
    peek,
    preserve,
    reap,
    sweep,
    warning,
    watch,
)
from sessions_app.ending import end_sessions, finish_session
from sessions_app.models import ProviderWatch, Rental, Session
from sessions_app.states import ENDABLE, Debt, EndReason, Status

log = logging.getLogger(__name__)

#: Ends in one transaction: large enough to be quick, small enough not to keep others from writing for long.
ENDS_TOGETHER = 250
PULSE = "tick"
#: Clocks of one deployment's machines differ by less.
SET_BACK = timedelta(minutes=2)
#: What was kept long enough is erased this often.
PURGE = "purge"
PURGE_EVERY = timedelta(seconds=30)
#: The scheduler counts as running while its last tick is younger than this.
PULSE_FRESH = timedelta(seconds=15)


def tick() -> int:
    """One round: how many rows and listings were handed on."""
    _mind_the_clock()
    due, listings = claims.due(), sweep.claim_due()
    for provider, rental_ids in due.debts.items():
        nudge.debts(provider, rental_ids, claimed=True)
    end_due(due.ends)
    nudge.claimed_sessions(due.sessions)
    for rental_id in due.rentals:
        nudge.rental(rental_id)
    for name in listings:
        nudge.sweep(name)
    for name in peek.claim_due():
        nudge.peek(name)
    looks = watch.claim_due()
    for session_id in looks:
        nudge.watch(session_id)
    _beat()
    _purge()
    return due.count() + len(listings) + len(looks)


def _mind_the_clock() -> None:
    """The last tick lies ahead: the clock has been set back. Whatever was put off until a time of the old clock is due
    now; ends and deadlines are times of their own and stay as they are."""
    now = clock.now()
    ahead = Pulse.objects.filter(name=PULSE, at__gt=now + SET_BACK)
    if not ahead.exists():
        return
    with transaction.atomic():
        if ahead.update(at=now):
            log.error("the clock has been set back: what was put off is due now")
            _all_due(now)
            ProviderInventory.objects.update(next_fetch_at=now)


def _all_due(now: datetime) -> int:
    """All open work: attempts, stops, destroys, boots, looks, listings. How many rows; locked in everybody's order."""
    unfinished = [Debt.INTENDED, Debt.UNKNOWN, Debt.PARKING, Debt.DESTROYING]
    with transaction.atomic():
        sessions = _locked(Session.objects.filter(status__in=ENDABLE))
        rentals = _locked(Rental.objects.filter(state__in=unfinished))
        due = sessions.exclude(status=Status.RUNNING).update(next_check_at=now)
        sessions.filter(status=Status.RUNNING, next_probe_at__gt=now).update(next_probe_at=now)
        due += rentals.update(next_check_at=now)
        ProviderWatch.objects.update(next_sweep_at=now, listing_until=None, next_peek_at=None)
    return due


def _locked(rows: QuerySet[Any]) -> QuerySet[Any]:
    list(rows.order_by("id").select_for_update(no_key=True).values_list("id", flat=True))
    return rows


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
        failures.purge()
        outages.look()


def end_due(session_ids: Sequence[str]) -> None:
    """End those whose time is up, many in one transaction. One row that cannot be ended does not keep the others."""
    for start in range(0, len(session_ids), ENDS_TOGETHER):
        batch = session_ids[start : start + ENDS_TOGETHER]
        try:
            _end_if_due(batch)
        except Exception:  # whatever one row did to its batch: each again by itself
            log.exception("%d sessions cannot be ended together", len(batch))
            for session_id in batch:
                _end_alone(session_id)


def _end_alone(session_id: str) -> None:
    try:
        _end_if_due([session_id])
    except Exception:  # told, and tried again when its lease is over
        log.exception("session %s cannot be ended", session_id)


def drive_session(session_id: str) -> None:
    """What this session needs now: its end when its time is up, else the next step of its boot."""
    session = Session.objects.filter(id=session_id).first()
    if session is None or session.status not in (*ENDABLE, Status.STOPPING):
        return
    now = clock.now()
    if session.status == Status.STOPPING:
        finish_session(session.id)  # a safety net: whoever closes the rental has done it
    elif now >= min(session.expires_at, session.hard_max_at):
        _end_if_due([session.id])
    elif session.status == Status.PROVISIONING:
        if warning.due(session, now) is not None:
            warning.tend(session.id)
        boot.step(session)
    elif session.status == Status.PENDING:
        attempts.next_attempt(session.id)
    else:
        watch.ensure(session)
        warning.tend(session.id)
        paused.step(session)


def _end_if_due(session_ids: Sequence[str]) -> None:
    """Their time is up, unless it was extended since we looked: decided with the rows locked, so one of both wins."""
    with transaction.atomic():
        now = clock.now()
        rows = Session.objects.filter(claims.time_is_up(), id__in=session_ids).order_by("id")
        locked = rows.select_for_update(no_key=True).values_list("id", "expires_at", "budget_cut_at")
        ends: dict[EndReason, list[str]] = {EndReason.EXPIRED: [], EndReason.BUDGET: [], EndReason.HARD_MAX: []}
        for session_id, expires_at, budget_cut_at in locked:
            used_up = EndReason.BUDGET if budget_cut_at is not None else EndReason.EXPIRED
            ends[used_up if expires_at <= now else EndReason.HARD_MAX].append(session_id)
        for reason, ids in ends.items():
            if ids:
                end_sessions(ids, reason, due_by=now)


def drive_rental(rental_id: uuid.UUID) -> None:
    """What this debt needs now."""
    rental = Rental.objects.select_related("session").filter(id=rental_id).first()
    if rental is None:
        return
    with logs.context(session_id=rental.session_id or ""):
        _drive(rental)


def _drive(rental: Rental) -> None:
    now = clock.now()
    if rental.state == Debt.INTENDED:
        launch.launch(rental)
    elif rental.state == Debt.CREATING:
        if rental.create_sent_at is not None and now - rental.create_sent_at >= launch.CREATE_LEASE:
            launch.give_up_waiting(rental)
    elif rental.state == Debt.UNKNOWN:
        launch.look_up(rental)
    elif rental.state == Debt.LIVE:
        bid.tend(rental)
    elif rental.state == Debt.PARKING:
        preserve.park(rental)
    elif rental.state == Debt.PRESERVED:
        preserve.expire(rental)
    elif rental.state == Debt.DESTROYING:
        reap.pay(rental)


def recover() -> int:
    """After a crash of everything on this one host: whoever held a lease is dead, so all open work is due now."""
    now = clock.now()
    for rental in Rental.objects.filter(state=Debt.CREATING):
        launch.give_up_waiting(rental)
    return _all_due(now)
