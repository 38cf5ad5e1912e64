"""Reads of sessions: pages, one session, and what the API prints of them."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from gpubroker.common import clock
from gpubroker.common.money import as_number
from sessions_app.models import Event, Session
from sessions_app.states import FINAL, Status


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
    return body


def matching(consumer_id: str | None, status: str | None, provider: str | None) -> QuerySet[Session]:
    """Newest first."""
    sessions = Session.objects.select_related("consumer").order_by("-created_at", "-id")
    if consumer_id is not None:
        sessions = sessions.filter(consumer__name=consumer_id)
    if status is not None:
        sessions = sessions.filter(status=status)
    if provider is not None:
        sessions = sessions.filter(provider=provider)
    return sessions


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


def left_pending(session_id: str) -> Session | None:
    """The session once the provider's verdict on its create is known."""
    return Session.objects.select_related("consumer").filter(id=session_id).exclude(status=Status.PENDING).first()


def finished(session_id: str) -> Session | None:
    return Session.objects.filter(id=session_id, status__in=FINAL).first()
