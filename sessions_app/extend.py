"""More hours for a session. Against its own expiry there is one winner: both look again with the row locked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F

from gpubroker.common import clock
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.principal import OPEN, Principal
from sessions_app import session_budget, warning
from sessions_app.models import Session
from sessions_app.services import found
from sessions_app.states import ENDABLE, Status
from sessions_app.transitions import record


def extend(session_id: str, hours: int, principal: Principal = OPEN) -> datetime:
    """The new end. 409 once it is stopping, over, or its time is up; 400 beyond the hard maximum; 402 beyond the
    budget."""
    found(session_id, principal)
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        _refuse_late(session)
        before, after = session.expires_at, session.expires_at + timedelta(hours=hours)
        if after > session.hard_max_at:
            latest = clock.iso(session.hard_max_at)
            raise _TooLong(f"the new end would be {clock.iso(after)}; the latest allowed end is {latest}", latest)
        session.expires_at, session.warned_minutes = after, None
        changes: dict[str, Any] = {"expires_at": after, "warned_minutes": None, "budget_cut_at": None}
        if session.status == Status.RUNNING:
            # One that boots or waits for its next attempt is looked at sooner anyway.
            changes["next_check_at"] = warning.next_check(session, clock.now())
        Session.objects.filter(id=session_id, status=session.status, expires_at=before).update(
            reservation_hours=F("reservation_hours") + hours, **changes
        )
        record(
            "extended", session_id=session_id, reason=f"extended by {hours} h", actor=principal.actor,
            details={"hours": hours, "expires_at": clock.iso(after), "before": clock.iso(before)},
        )  # fmt: skip
        session_budget.reserve(session, session_budget.open_rental(session))
    return after


def _refuse_late(session: Session) -> None:
    if session.status not in ENDABLE:
        raise ApiError(
            409, f"session {session.id} is {session.status} and cannot be extended",
            session_id=session.id, status=session.status,
        )  # fmt: skip
    if min(session.expires_at, session.hard_max_at) <= clock.now():
        raise ApiError(
            409, f"session {session.id} expired at {clock.iso(session.expires_at)} and cannot be extended",
            session_id=session.id, status=session.status,
        )  # fmt: skip


class _TooLong(BadField):
    def __init__(self, reason: str, latest: str | None) -> None:
        super().__init__("additional_hours", reason)
        self.extra["latest_expires_at"] = latest
