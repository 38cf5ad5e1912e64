"""The only writers of ``Session.status`` and ``Rental.state``: a guarded update and its event in one transaction.

Zero rows updated is a normal outcome: somebody else moved first. It is returned as ``False``, and whoever
lost does nothing more.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet

from gpubroker.common import clock
from sessions_app import tell
from sessions_app.models import Event, Rental, Session
from sessions_app.states import RENTAL_MOVES, SESSION_MOVES, Debt, Status


class IllegalMove(Exception):
    """A programming error: this move stands in no table."""


def record(
    kind: str,
    *,
    session_id: str | None = None,
    rental_id: uuid.UUID | None = None,
    reason: str = "",
    actor: str = "broker",
    details: dict[str, Any] | None = None,
    from_state: str = "",
    to_state: str = "",
) -> None:
    """An event that is no change of state, e.g. a refused destroy; call it inside the change's transaction."""
    event = Event.objects.create(
        session_id=session_id,
        rental_id=rental_id,
        at=clock.now(),
        kind=kind,
        from_state=from_state,
        to_state=to_state,
        reason=reason[:300],
        actor=actor,
        details=details or {},
    )
    tell.told([event])


def transition(
    session_id: str,
    expected: Collection[Status],
    to: Status,
    *,
    reason: str = "",
    actor: str = "broker",
    details: dict[str, Any] | None = None,
    **changes: Any,
) -> bool:
    """Move a session if its status is one of ``expected``; ``changes`` are further columns set with it."""
    for status in expected:
        if to not in SESSION_MOVES[status]:
            raise IllegalMove(f"session {status} -> {to}")
    with transaction.atomic():
        before = _only(expected) or (
            Session.objects.select_for_update(no_key=True)
            .values_list("status", flat=True)
            .filter(id=session_id)
            .first()
        )
        if before is None or Status(before) not in expected:
            return False
        moved = Session.objects.filter(id=session_id, status=before).update(status=to, **changes)
        if moved:
            record(
                "session", session_id=session_id, reason=reason, actor=actor, details=details,
                from_state=before, to_state=to,
            )  # fmt: skip
    return bool(moved)


def move_rental(
    rental: Rental,
    expected: Collection[Debt],
    to: Debt,
    *,
    reason: str = "",
    actor: str = "broker",
    details: dict[str, Any] | None = None,
    quiet: bool = False,
    **changes: Any,
) -> bool:
    """Move a rental if its state is one of ``expected``; the object in hand is only its address.

    ``quiet`` writes no event: for taking a create in hand and handing it back when nothing was sent.
    """
    for state in expected:
        if to not in RENTAL_MOVES[state]:
            raise IllegalMove(f"rental {state} -> {to}")
    with transaction.atomic():
        before = _only(expected) or (
            Rental.objects.select_for_update(no_key=True).values_list("state", flat=True).filter(id=rental.id).first()
        )
        if before is None or Debt(before) not in expected:
            return False
        moved = Rental.objects.filter(id=rental.id, state=before).update(state=to, **changes)
        if moved and not quiet:
            record(
                "rental", session_id=rental.session_id, rental_id=rental.id, reason=reason, actor=actor,
                details=details, from_state=before, to_state=to,
            )  # fmt: skip
    return bool(moved)


def _only(expected: Collection[str]) -> str | None:
    """Where one state is expected, the guarded update is question enough; else the row tells what it was."""
    return next(iter(expected)) if len(expected) == 1 else None


def transition_all(
    session_ids: Collection[str],
    expected: Collection[Status],
    to: Status,
    *,
    reason: str = "",
    actor: str = "broker",
    details: dict[str, Any] | None = None,
    due_by: datetime | None = None,
    **changes: Any,
) -> list[Session]:
    """:func:`transition` for many at once: those that moved, as they were before, in the order of their ids.

    ``due_by``: only those whose ``expires_at`` or ``hard_max_at`` is not later, decided with the rows locked.
    """
    for status in expected:
        if to not in SESSION_MOVES[status]:
            raise IllegalMove(f"session {status} -> {to}")
    with transaction.atomic():
        wanted = Session.objects.select_for_update(no_key=True).filter(id__in=session_ids, status__in=expected)
        if due_by is not None:
            wanted = wanted.filter(Q(expires_at__lte=due_by) | Q(hard_max_at__lte=due_by))
        found = list(wanted.order_by("id"))
        Session.objects.filter(id__in=[session.id for session in found]).update(status=to, **changes)
        record_all(
            Event(session_id=session.id, kind="session", from_state=session.status, to_state=to, reason=reason[:300],
                  actor=actor, details=details or {})
            for session in found
        )  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class Move:
    """One of :func:`transition_each`: with its own reason, details and further columns."""

    session_id: str
    reason: str
    details: dict[str, Any]
    changes: dict[str, Any]


def transition_each(moves: Iterable[Move], expected: Status, to: Status) -> None:
    """:func:`transition` for many that are locked already, each with its own words; whoever moved first stays first."""
    if to not in SESSION_MOVES[expected]:
        raise IllegalMove(f"session {expected} -> {to}")
    with transaction.atomic():
        moved = [
            move
            for move in moves
            if Session.objects.filter(id=move.session_id, status=expected).update(status=to, **move.changes)
        ]
        record_all(
            Event(session_id=move.session_id, kind="session", from_state=expected, to_state=to,
                  reason=move.reason[:300], details=move.details)
            for move in moved
        )  # fmt: skip


def move_rentals(
    rentals: Collection[Rental], expected: Debt, to: Debt, *, reason: str = "", **changes: Any
) -> list[Rental]:
    """:func:`move_rental` for many that are locked already; those that moved."""
    if to not in RENTAL_MOVES[expected]:
        raise IllegalMove(f"rental {expected} -> {to}")
    moving = [rental for rental in rentals if rental.state == expected]
    with transaction.atomic():
        Rental.objects.filter(id__in=[rental.id for rental in moving], state=expected).update(state=to, **changes)
        record_all(
            Event(session_id=rental.session_id, rental_id=rental.id, kind="rental", from_state=expected, to_state=to,
                  reason=reason[:300])
            for rental in moving
        )  # fmt: skip
    return moving


def lock_rentals(rentals: Iterable[Rental], state: Debt) -> QuerySet[Rental]:
    """Those that are still in ``state``, locked in the one order that everybody keeps: that of their ids."""
    mine = Rental.objects.filter(id__in=[rental.id for rental in rentals], state=state)
    locked = list(mine.select_for_update(no_key=True).order_by("id").values_list("id", flat=True))
    return Rental.objects.filter(id__in=locked)


def record_all(events: Iterable[Event]) -> None:
    """:func:`record` for many; ``at`` is set here."""
    rows = list(events)
    for row in rows:
        row.at = clock.now()
    Event.objects.bulk_create(rows, batch_size=500)
    tell.told(rows)
