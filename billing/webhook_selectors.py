"""What can be seen of webhooks."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, QuerySet

from billing.deliver import OPEN
from billing.webhook_models import WebhookDelivery, WebhookEndpoint
from gpubroker.common import clock


def endpoints(consumer: str | None = None) -> QuerySet[WebhookEndpoint]:
    """Newest first; ``None``: everybody's and staff's."""
    rows = WebhookEndpoint.objects.filter(deleted_at__isnull=True).select_related("consumer")
    rows = rows.order_by("-created_at", "id")
    return rows if consumer is None else rows.filter(consumer__name=consumer)


def endpoint_shown(endpoint: WebhookEndpoint) -> dict[str, Any]:
    overlapping = endpoint.old_secret_until is not None and clock.now() < endpoint.old_secret_until
    return {
        "id": endpoint.id,
        "consumer_id": endpoint.consumer.name if endpoint.consumer is not None else None,
        "url": endpoint.url,
        "kinds": endpoint.kinds,
        "description": endpoint.description,
        "active": endpoint.active,
        "disabled_reason": endpoint.disabled_reason,
        "failing_since": clock.iso(endpoint.failing_since),
        "old_secret_until": clock.iso(endpoint.old_secret_until) if overlapping else None,
        "created_at": clock.iso(endpoint.created_at),
        "created_by": endpoint.created_by,
    }


def deliveries(endpoint: WebhookEndpoint, state: str | None = None) -> QuerySet[WebhookDelivery]:
    """Newest first."""
    rows = WebhookDelivery.objects.filter(endpoint=endpoint).select_related("message").order_by("-id")
    return rows if state is None else rows.filter(state=state)


def delivery_shown(delivery: WebhookDelivery) -> dict[str, Any]:
    message = delivery.message
    return {
        "id": str(message.id),
        "kind": message.kind,
        "subject": message.subject,
        "at": clock.iso(message.at),
        "state": str(delivery.state),
        "sequence": delivery.sequence,
        "attempts": delivery.attempts,
        "next_attempt_at": clock.iso(delivery.next_attempt_at),
        "last_attempt_at": clock.iso(delivery.last_attempt_at),
        "delivered_at": clock.iso(delivery.delivered_at),
        "duration_ms": delivery.duration_ms,
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
        "last_response": delivery.last_response,
    }


def backlog() -> dict[str, int]:
    """Deliveries that are not over, by state; from the index of those."""
    counted = WebhookDelivery.objects.filter(next_attempt_at__isnull=False).order_by().values_list("state")
    return {state.value: 0 for state in OPEN} | dict(counted.annotate(n=Count("id")))
