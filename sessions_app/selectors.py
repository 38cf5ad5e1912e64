"""Reads of sessions: their timeline, their attempts, and how far they are. How one is shown stands in
:mod:`sessions_app.shown`, pages of them in :mod:`sessions_app.pages`."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from gpubroker.common import clock
from gpubroker.common.money import as_number
from sessions_app.models import Event, Rental, Session
from sessions_app.states import FINAL, OPEN, Status


def timeline(session_id: str) -> QuerySet[Event]:
    """Oldest first."""
    return Event.objects.filter(session_id=session_id).order_by("id")


def event_shown(event: Event) -> dict[str, Any]:
    """``details`` are written by us, fact by fact, and hold no secret."""
    return {
        "at": clock.iso(event.at),
        "kind": event.kind,
        "from": event.from_state,
        "to": event.to_state,
        "reason": event.reason,
        "actor": event.actor,
        "details": event.details,
    }


def attempts_of(session: Session) -> dict[str, Any]:
    """Every attempt, the first one first. The newest is the session's machine; only that one can have run."""
    rentals = list(session.rentals.order_by("attempt"))
    starting = session.status in (Status.PENDING, Status.PROVISIONING) and session.auto_retry
    return {
        "session_id": session.id,
        "attempts": [_attempt_shown(rental, session, rental is rentals[-1]) for rental in rentals],
        "count": len(rentals),
        "retries_left": max(session.max_retries + 1 - len(rentals), 0) if starting else 0,
    }


def _attempt_shown(rental: Rental, session: Session, newest: bool) -> dict[str, Any]:
    ran = newest and session.running_at is not None
    error = {"reason": rental.failure, "message": rental.failure_message, "at": clock.iso(rental.failed_at)}
    length = (rental.closed_at or clock.now()) - rental.created_at
    return {
        "attempt": rental.attempt,
        "offer_id": f"{rental.provider}-{rental.offer_provider_id}",
        "provider": rental.provider,
        "gpu_type": rental.gpu_type or session.gpu_type,
        "machine_id": rental.machine_id,
        "price_asked": None if rental.price_asked is None else as_number(rental.price_asked),
        "price_actual": None if rental.price_actual is None else as_number(rental.price_actual),
        "phase": "run" if ran else "boot" if rental.accepted_at is not None else "create",
        "state": rental.state,
        "error": error if rental.failure else None,
        "started_at": clock.iso(rental.created_at),
        "ended_at": clock.iso(rental.closed_at),
        "seconds": round(length.total_seconds(), 3),
    }


def left_pending(session_id: str) -> Session | None:
    """The session once the provider's verdict on its create is known."""
    return Session.objects.select_related("consumer").filter(id=session_id).exclude(status=Status.PENDING).first()


def gone(session_id: str) -> Session | None:
    """The session once it is over and nothing of it is left at a provider, not even a disk."""
    over = Session.objects.filter(id=session_id, status__in=FINAL)
    return over.exclude(rentals__state__in=OPEN).first()
