"""Every way to an end leads here: ``stopping`` with a reason, the machine owed to the provider, and a proof at last."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.db import transaction

from billing import budgets
from billing import services as billing
from gpubroker.common import clock, counters
from offers import services as offers
from sessions_app import nudge
from sessions_app.models import Rental, Session
from sessions_app.states import ENDABLE, FAILURES, FINAL, OPEN, PRESERVING, UNSETTLED, Debt, EndReason, Status
from sessions_app.transitions import move_rental, move_rentals, transition, transition_all

log = logging.getLogger(__name__)


def end_session(session_id: str, reason: EndReason, *, actor: str = "broker", message: str = "") -> bool:
    """Start the end of a session. ``False`` when it was already ending or over: then nothing changed."""
    return bool(end_sessions([session_id], reason, actor=actor, message=message))


def end_sessions(
    session_ids: Collection[str],
    reason: EndReason,
    *,
    actor: str = "broker",
    message: str = "",
    due_by: datetime | None = None,
) -> list[str]:
    """Start the end of many sessions in one transaction: the ids of those that this call ended.

    ``due_by``: only of those whose time is up by then, looked at with the rows locked.
    """
    with transaction.atomic():
        ended = transition_all(
            session_ids, ENDABLE, Status.STOPPING, reason=message or reason.label, actor=actor,
            details={"end_reason": reason.value}, due_by=due_by,
            end_reason=reason, end_message=message[:300], next_check_at=None, next_probe_at=None,
        )  # fmt: skip
        ids = [session.id for session in ended]
        rentals = Rental.objects.select_for_update(no_key=True).filter(session_id__in=ids, state__in=OPEN)
        open_rentals = list(rentals.order_by("id"))
        if len(ids) > 1:
            # Some may be over at once: whoever releases for several consumers locks their budgets in one order.
            budgets.lock({session.consumer_id for session in ended})
        live = [rental for rental in open_rentals if rental.state == Debt.LIVE]
        keeping = {session.id for session in ended if keeps_disk(session, reason)}
        _park([rental for rental in live if rental.session_id in keeping])
        _owe([rental for rental in live if rental.session_id not in keeping])
        for rental in open_rentals:
            if rental.state == Debt.INTENDED:
                close_rental(rental, {Debt.INTENDED}, {"call": "none", "answer": "the provider was never asked"})
        # CREATING and UNKNOWN: whoever learns the outcome finds the session stopping, and owes the destruction then.
        for session_id in set(ids) - {rental.session_id for rental in open_rentals}:
            finish_session(session_id)
    for session_id in ids:
        log.info("session %s ends: %s %s", session_id, reason.value, message)
    return ids


def keeps_disk(session: Session, reason: EndReason) -> bool:
    """Whether this end stops the machine and keeps its disk, as ``storage_policy: preserve`` asks.

    ``session`` as it was before the end: one that never ran has nothing to keep.
    """
    return session.storage_policy == "preserve" and session.running_at is not None and reason in PRESERVING


def _park(rentals: list[Rental]) -> None:
    """From now on these machines are to be stopped; the bill of their disks runs on, to a deadline of its own."""
    now = clock.now()
    moved = move_rentals(rentals, Debt.LIVE, Debt.PARKING, stop_requested_at=now, next_check_at=now)
    for rental in moved:
        nudge.rental(rental.id)


def _owe(rentals: list[Rental]) -> None:
    """:func:`owe_destruction` for many that are locked already."""
    now = clock.now()
    nudge.destroys(move_rentals(rentals, Debt.LIVE, Debt.DESTROYING, destroy_requested_at=now, next_check_at=now))


def owe_destruction(rental: Rental, expected: Collection[Debt], **changes: Any) -> bool:
    """From now on the machine is to be destroyed, for ever if need be, until a proof closes the rental."""
    now = clock.now()
    moved = move_rental(rental, expected, Debt.DESTROYING, destroy_requested_at=now, next_check_at=now, **changes)
    if moved:
        nudge.destroy(rental)
    return moved


def close_rental(
    rental: Rental, expected: Collection[Debt], proof: dict[str, Any], *, billed_until: datetime | None = None
) -> bool:
    """The debt is paid or never was: keep the proof, settle the meter, erase our key, finish the session.

    ``billed_until``: when the provider stopped billing, where that is earlier than now.
    """
    now = clock.now()
    with transaction.atomic():
        if rental.session_id:
            # Always the session's row first: one order of locks for everybody.
            Session.objects.select_for_update(no_key=True).filter(id=rental.session_id).first()
        closed = move_rental(
            rental, expected, Debt.CLOSED, reason=str(proof.get("answer", "")),
            details={"proof": {**proof, "at": now.isoformat()}},
            proof={**proof, "at": now.isoformat()}, closed_at=now, next_check_at=None, broker_key_sealed="",
        )  # fmt: skip
        if not closed:
            return False
        billing.settle(rental.id, min(billed_until or now, now))
        if rental.session_id:
            if not finish_session(rental.session_id):
                release_budget(rental.session_id)  # a kept disk outlives its session
            _go_on(rental.session_id)
        if rental.instance_id:
            # Its GPUs come back to the market under another id.
            transaction.on_commit(lambda: offers.refresh_soon(rental.provider))
    return True


def _go_on(session_id: str) -> None:
    """A session that waits for its next attempt may begin it now: nothing of the last one is left (I3)."""
    waiting = Session.objects.filter(id=session_id, status=Status.PENDING, auto_retry=True)
    if waiting.update(next_check_at=clock.now()):
        nudge.session(session_id)


def finish_session(session_id: str) -> bool:
    """``stopping`` is over once no rental is unsettled: ``failed`` after a failure, else ``stopped``."""
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        if session.status != Status.STOPPING or session.rentals.filter(state__in=UNSETTLED).exists():
            return False
        to = Status.FAILED if session.end_reason in FAILURES else Status.STOPPED
        moved = transition(
            session_id, {Status.STOPPING}, to, reason=session.end_message or EndReason(session.end_reason).label,
            ended_at=clock.now(), next_check_at=None, agent_token_hash="", agent_token_sealed="",
        )  # fmt: skip
        if moved:
            counters.increment("gpu_sessions_ended_total", provider=session.provider, reason=session.end_reason)
            release_budget(session_id)
    return moved


def release_budget(session_id: str) -> None:
    """In the transaction of the proof: nothing of a session is billed any more, so its real cost is what counts."""
    over = Session.objects.filter(id=session_id, status__in=FINAL).exclude(rentals__state__in=OPEN)
    if over.exists():
        budgets.release(session_id)
