"""Every way to an end leads here: ``stopping`` with a reason, the machine owed to the provider, and a proof at last."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from django.db import transaction

from billing import services as billing
from gpubroker.common import clock, counters
from offers import services as offers
from sessions_app import nudge
from sessions_app.models import Rental, Session
from sessions_app.states import ENDABLE, FAILURES, OPEN, Debt, EndReason, Status
from sessions_app.transitions import move_rental, transition

log = logging.getLogger(__name__)


def end_session(session_id: str, reason: EndReason, *, actor: str = "broker", message: str = "") -> bool:
    """Start the end of a session. ``False`` when it was already ending or over: then nothing changed."""
    with transaction.atomic():
        moved = transition(
            session_id, ENDABLE, Status.STOPPING, reason=message or reason.label, actor=actor,
            details={"end_reason": reason.value}, end_reason=reason, end_message=message[:300], next_check_at=None,
        )  # fmt: skip
        if not moved:
            return False
        rental = Rental.objects.select_for_update(no_key=True).filter(session_id=session_id, state__in=OPEN).first()
        if rental is None:
            finish_session(session_id)
        elif rental.state == Debt.INTENDED:
            close_rental(rental, {Debt.INTENDED}, {"call": "none", "answer": "the provider was never asked"})
        elif rental.state == Debt.LIVE:
            owe_destruction(rental, {Debt.LIVE})
        # CREATING and UNKNOWN: whoever learns the outcome finds the session stopping, and owes the destruction then.
    log.info("session %s ends: %s %s", session_id, reason.value, message)
    return True


def owe_destruction(rental: Rental, expected: set[Debt], **changes: Any) -> bool:
    """From now on the machine is to be destroyed, for ever if need be, until a proof closes the rental."""
    now = clock.now()
    moved = move_rental(rental, expected, Debt.DESTROYING, destroy_requested_at=now, next_check_at=now, **changes)
    if moved:
        nudge.destroy(rental.id)
    return moved


def close_rental(
    rental: Rental, expected: set[Debt], proof: dict[str, Any], *, billed_until: datetime | None = None
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
            finish_session(rental.session_id)
        if rental.instance_id:
            # Its GPUs come back to the market under another id.
            transaction.on_commit(lambda: offers.refresh_soon(rental.provider))
    return True


def finish_session(session_id: str) -> bool:
    """``stopping`` is over once no rental is open: ``failed`` after a failure, else ``stopped``."""
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        if session.status != Status.STOPPING or session.rentals.filter(state__in=OPEN).exists():
            return False
        to = Status.FAILED if session.end_reason in FAILURES else Status.STOPPED
        moved = transition(
            session_id, {Status.STOPPING}, to, reason=session.end_message or EndReason(session.end_reason).label,
            ended_at=clock.now(), next_check_at=None, agent_token_hash="", agent_token_sealed="",
        )  # fmt: skip
        if moved:
            counters.increment("gpu_sessions_ended_total", provider=session.provider, reason=session.end_reason)
    return moved
