"""Another hard maximum for one session: a decision of staff, with a reason and an end that is written down."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from gpubroker.common import clock
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.principal import OPEN, Principal
from sessions_app import warning
from sessions_app.models import Session
from sessions_app.services import found
from sessions_app.states import ENDABLE, Status
from sessions_app.transitions import record

#: No session lives longer, whoever says so.
LATEST = timedelta(days=30)


def override(session_id: str, hard_max_at: datetime, reason: str, principal: Principal = OPEN) -> Session:
    """Later or earlier than it was. An earlier one takes the session's end with it.

    409 once it is stopping, over, or its time is up; 400 for a moment that has passed or lies over 30 days after the
    session's creation.
    """
    found(session_id, principal)
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        now = clock.now()
        _refuse_late(session, now)
        _refuse_moment(session, hard_max_at, now)
        before, expired = session.hard_max_at, session.expires_at
        session.hard_max_at, session.hard_max_reason = hard_max_at, reason
        changes: dict[str, Any] = {"hard_max_at": hard_max_at, "hard_max_reason": reason}
        record(
            "hard_max_override", session_id=session_id, reason=reason, actor=principal.actor,
            details={"before": clock.iso(before), "hard_max_at": clock.iso(hard_max_at)},
        )  # fmt: skip
        if expired > hard_max_at:
            changes |= _cut(session, expired, principal.actor)
        if session.status != Status.PROVISIONING:
            changes["next_check_at"] = warning.next_check(session, now)
        Session.objects.filter(id=session_id).update(**changes)
    return session


def _refuse_late(session: Session, now: datetime) -> None:
    if session.status not in ENDABLE:
        raise ApiError(
            409, f"session {session.id} is {session.status}; its hard maximum cannot be moved",
            session_id=session.id, status=session.status,
        )  # fmt: skip
    end = warning.end_of(session)
    if end <= now:
        raise ApiError(
            409, f"session {session.id} ended at {clock.iso(end)}; its hard maximum cannot be moved",
            session_id=session.id, status=session.status,
        )  # fmt: skip


def _refuse_moment(session: Session, hard_max_at: datetime, now: datetime) -> None:
    if hard_max_at <= now:
        raise BadField("hard_max_at", f"must lie ahead, got {clock.iso(hard_max_at)}; to end a session, delete it")
    latest = session.created_at + LATEST
    if hard_max_at > latest:
        raise BadField("hard_max_at", f"at most 30 days after the session's creation, which is {clock.iso(latest)}")


def _cut(session: Session, expired: datetime, actor: str) -> dict[str, Any]:
    """It ends with its hard maximum, and the warnings of the new end are due anew."""
    session.expires_at, session.warned_minutes = session.hard_max_at, None
    record(
        "cut_short", session_id=session.id, reason="the hard maximum now lies before the reserved end", actor=actor,
        details={"before": clock.iso(expired), "expires_at": clock.iso(session.expires_at)},
    )  # fmt: skip
    return {"expires_at": session.expires_at, "warned_minutes": None}
