"""Sending again what was sent before: a test, one delivery, or all messages of a time."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from billing import outbox
from billing.webhook_kinds import KINDS, PING, wanted
from billing.webhook_models import WebhookDelivery, WebhookEndpoint, WebhookMessage
from gpubroker.common import clock
from gpubroker.common.errors import ApiError, BadField

State = WebhookDelivery.State
CLOSED = (State.DELIVERED, State.FAILED, State.CANCELLED)
#: In one replay.
MOST_REPLAYED = 5_000


@dataclass(frozen=True, slots=True)
class Replay:
    """``messages``: how many are on their way again, those included that still were."""

    messages: int
    since: datetime
    until: datetime


def _only_active(endpoint: WebhookEndpoint) -> None:
    if not endpoint.active:
        raise ApiError(409, f"webhook {endpoint.id} is not active ({endpoint.disabled_reason}); switch it on first")


def _again() -> dict[str, Any]:
    """The columns of a closed delivery that is to be sent again."""
    return {"state": State.PENDING, "next_attempt_at": clock.now(), "tries": 0}


def ping(endpoint: WebhookEndpoint, *, by: str) -> WebhookDelivery:
    """Have a test message sent to this endpoint alone. 409 when it is not active."""
    _only_active(endpoint)
    with transaction.atomic():
        message = WebhookMessage.objects.create(
            kind=PING, at=clock.now(), consumer_id=endpoint.consumer_id, subject=endpoint.id,
            data={"webhook_id": endpoint.id, "asked_by": by},
        )  # fmt: skip
        delivery = outbox.pending(endpoint, message)
        delivery.save(force_insert=True)
        outbox.nudge()
    return delivery


def found(endpoint: WebhookEndpoint, message_id: str) -> WebhookDelivery:
    """404 when this endpoint has none of that name."""
    try:
        wanted_id = uuid.UUID(message_id)
    except ValueError:
        wanted_id = None
    rows = WebhookDelivery.objects.select_related("message", "endpoint").filter(endpoint=endpoint)
    delivery = rows.filter(message_id=wanted_id).first() if wanted_id is not None else None
    if delivery is None:
        raise ApiError(404, f"delivery {message_id[:64]} not found")
    return delivery


def redeliver(delivery: WebhookDelivery) -> WebhookDelivery:
    """Send it again now, under the same message id; one that waits for its next attempt is not kept waiting. One that
    is being sent this moment goes on as it is. 409 when the endpoint is not active."""
    _only_active(delivery.endpoint)
    with transaction.atomic():
        mine = WebhookDelivery.objects.filter(pk=delivery.pk)
        again = mine.filter(state__in=CLOSED).update(**_again())
        if again or mine.filter(state=State.PENDING).update(next_attempt_at=clock.now()):
            outbox.nudge()
    return WebhookDelivery.objects.select_related("message", "endpoint").get(pk=delivery.pk)


def replay(endpoint: WebhookEndpoint, since: datetime, until: datetime | None = None) -> Replay:
    """Send all messages from ``since`` (inclusive) to ``until`` (exclusive) that this endpoint subscribes to now, the
    delivered ones too. 400 when these are more than :data:`MOST_REPLAYED`; 409 when it is not active."""
    _only_active(endpoint)
    now = clock.now()
    end = until if until is not None else now
    if since >= end:
        raise BadField("since", "must be before until, and in the past")
    chosen = list(_messages(endpoint, since, end)[: MOST_REPLAYED + 1])
    if len(chosen) > MOST_REPLAYED:
        raise BadField(
            "since", f"more than {MOST_REPLAYED} messages lie between since and until; ask for a shorter time"
        )
    ids = [message.id for message in chosen]
    with transaction.atomic():
        # One replay of a webhook at a time, so that two do not lock the same rows in different orders.
        WebhookEndpoint.objects.select_for_update(no_key=True).get(id=endpoint.id)
        theirs = WebhookDelivery.objects.filter(endpoint=endpoint)
        known = set(theirs.filter(message__at__gte=since, message__at__lt=end).values_list("message_id", flat=True))
        for start in range(0, len(ids), 500):
            theirs.filter(message_id__in=ids[start : start + 500], state__in=CLOSED).update(**_again())
        missing = [outbox.pending(endpoint, message) for message in chosen if message.id not in known]
        WebhookDelivery.objects.bulk_create(missing, batch_size=500)
        if ids:
            outbox.nudge()
    return Replay(len(ids), since, end)


def _messages(endpoint: WebhookEndpoint, since: datetime, end: datetime) -> QuerySet[WebhookMessage]:
    kinds = [kind for kind in KINDS if kind != PING and wanted(endpoint.kinds, kind)]
    rows = WebhookMessage.objects.filter(at__gte=since, at__lt=end, kind__in=kinds).order_by("at", "id")
    return rows if endpoint.consumer_id is None else rows.filter(consumer_id=endpoint.consumer_id)
