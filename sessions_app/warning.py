"""Warnings: what a consumer is told before its session ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from gpubroker.common import clock
from sessions_app.models import Session
from sessions_app.states import ENDABLE, Status
from sessions_app.transitions import record

#: Before an end, in minutes; each given once per end.
MINUTES = (15, 5)
#: A paused session is looked after this often, in case that the word of its machine's return was lost.
PAUSED = timedelta(seconds=60)
#: There is something to save.
WARNED = frozenset({Status.PROVISIONING, Status.RUNNING})


def warn(session: Session, kind: str, reason: str, details: dict[str, Any]) -> None:
    """Every warning to a consumer goes through here, inside the transaction of the change that it tells of; its webhook
    is written with the event (:mod:`sessions_app.tell`).

    ``kind``: ``ending_soon`` or ``idle_warning``; ``details`` hold no secret.
    """
    record(kind, session_id=session.id, reason=reason, details=details)


def end_of(session: Session) -> datetime:
    return min(session.expires_at, session.hard_max_at)


def _still_to_give(session: Session) -> list[int]:
    """Of the present end, the furthest first. One for which the session was too short from the start does not count."""
    room = end_of(session) - session.created_at
    given = session.warned_minutes
    return [m for m in MINUTES if timedelta(minutes=m) < room and (given is None or m < given)]


def due(session: Session, now: datetime) -> int | None:
    """The warning that is due, in minutes. One that was missed is given late, unless the next is due as well."""
    left = end_of(session) - now
    if session.status not in WARNED or left <= timedelta(0):
        return None
    return min((m for m in _still_to_give(session) if left <= timedelta(minutes=m)), default=None)


def next_check(session: Session, now: datetime) -> datetime:
    """When a session that is not booting must be looked at next: its next warning or its end; sooner while paused."""
    end = end_of(session)
    if session.status not in WARNED:
        # A next attempt may be due already: never later than it was.
        return min(session.next_check_at or end, end)
    if due(session, now) is not None:
        return now
    times = [end - timedelta(minutes=m) for m in _still_to_give(session)]
    if session.paused_at is not None:
        times.append(now + PAUSED)
    return min([at for at in [*times, end] if at > now], default=end)


def tend(session_id: str) -> None:
    """Give the warning that is due, and write when to look again; a booting session's driver knows that itself."""
    now = clock.now()
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        if session.status not in ENDABLE:
            return
        minutes = due(session, now)
        if minutes is not None:
            session.warned_minutes = minutes
            _ending_soon(session, minutes, now)
        changes: dict[str, Any] = {"warned_minutes": session.warned_minutes}
        if session.status != Status.PROVISIONING:
            changes["next_check_at"] = next_check(session, now)
        Session.objects.filter(id=session_id).update(**changes)


def _ending_soon(session: Session, minutes: int, now: datetime) -> None:
    end = end_of(session)
    left = int((end - now).total_seconds())
    because = "expires_at" if session.expires_at <= session.hard_max_at else "hard_max_at"
    if because == "expires_at" and session.budget_cut_at is not None:
        because = "budget"
    warn(
        session, "ending_soon", f"ends at {clock.iso(end)}",
        {"ends_at": clock.iso(end), "minutes": minutes, "seconds_left": left, "because": because},
    )  # fmt: skip
