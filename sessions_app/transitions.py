"""The only writers of ``Session.status`` and ``Rental.state``: a guarded update and its event in one transaction.

Zero rows updated is a normal outcome: somebody else moved first. It is returned as ``False``, and whoever
lost does nothing more.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

from django.db import transaction

from gpubroker.common import clock
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
    Event.objects.create(
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
        before = (
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
        before = (
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
