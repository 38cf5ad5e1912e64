"""Reads of sessions: pages, one session, and what the API prints of them."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from gpubroker.common import clock
from gpubroker.common.money import as_number
from sessions_app.models import Event, Rental, Session
from sessions_app.states import ENDABLE, FINAL, OPEN, Status


def shown(session: Session) -> dict[str, Any]:
    """A session as the API prints it. ``ssh_host`` is "" and ``ssh_port`` 0 until the provider tells them."""
    body: dict[str, Any] = {
        "id": session.id,
        "consumer_id": session.consumer.name,
        "provider": session.provider,
        "offer_id": session.offer_id,
        "gpu_type": session.gpu_type,
        "gpu_count": session.gpu_count,
        "status": session.status,
        "ssh_host": session.ssh_host,
        "ssh_port": session.ssh_port or 0,
        "ssh_user": session.ssh_user or "root",
        "workload_type": session.workload_type,
        "launch_mode": session.launch_mode,
        "storage_policy": session.storage_policy,
        "idle_threshold_minutes": session.idle_threshold_minutes,
        "reservation_hours": session.reservation_hours,
        "price_per_hour": as_number(session.price_per_hour),
        "disk_gb": session.disk_gb,
        "created_at": clock.iso(session.created_at),
        "expires_at": clock.iso(session.expires_at),
        "end_reason": session.end_reason,
        "end_message": session.end_message,
        "ended_at": clock.iso(session.ended_at),
    }
    if session.api_endpoint:
        body["api_endpoint"] = session.api_endpoint
    if session.template_hash_id:
        body["template_hash_id"] = session.template_hash_id
    if session.docker_image:
        body["docker_image"] = session.docker_image
    stands_still = session.paused_at is not None and session.status in ENDABLE
    return body | {
        "pricing": session.pricing,
        "bid_price": None if session.bid_price is None else as_number(session.bid_price),
        "paused": stands_still,
        "paused_at": clock.iso(session.paused_at) if stands_still else None,
        "auto_retry": session.auto_retry,
        "max_retries": session.max_retries,
        "retry_scope": session.retry_scope,
        "max_price": None if session.max_price is None else as_number(session.max_price),
    }


#: Columns that :func:`shown` never looks at: a third of them all, the longest among them. A page is quicker without.
HIDDEN = (
    "agent_token_hash", "agent_token_sealed", "hard_max_at", "hard_max_reason", "idle_since", "idle_warned_at",
    "launch_options", "next_check_at", "next_probe_at", "preserve_hours", "running_at", "ssh_public_key",
    "storage_price_per_gb_month", "vram_mb", "warned_minutes",
)  # fmt: skip


def matching(consumer_id: str | None, status: str | None, provider: str | None) -> QuerySet[Session]:
    """Newest first, to be shown."""
    sessions = Session.objects.select_related("consumer").defer(*HIDDEN).order_by("-created_at", "-id")
    if consumer_id is not None:
        sessions = sessions.filter(consumer__name=consumer_id)
    if status is not None:
        sessions = sessions.filter(status=status)
    if provider is not None:
        sessions = sessions.filter(provider=provider)
    return sessions


def page_of(
    sessions: QuerySet[Session], limit: int | None, offset: int = 0, after: Session | None = None
) -> tuple[list[Session], str | None]:
    """One page, and the id to ask for the next one by; ``None``: there is no more.

    From ``after`` on the index is entered where that session stands, however many came before it; an offset counts
    through all of them."""
    if after is not None:
        at = after.created_at
        sessions = sessions.filter(Q(created_at__lt=at) | Q(id__lt=after.id), created_at__lte=at)
    # One more tells whether there is a next page.
    page = list(sessions[offset : None if limit is None else offset + limit + 1])
    more = limit is not None and len(page) > limit
    page = page[:limit]
    return page, page[-1].id if more else None


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
