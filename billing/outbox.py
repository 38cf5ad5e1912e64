"""The outbox: what webhooks are to tell is written in the transaction of what happened, and sent afterwards.

So nothing is told of a change that was rolled back, and nothing is lost of one that was committed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from celery import current_app
from django.db import transaction
from django.db.models import Q
from kombu.exceptions import OperationalError

from billing.webhook_kinds import KINDS, PING, wanted
from billing.webhook_models import WebhookDelivery, WebhookEndpoint, WebhookMessage
from gpubroker.common import clock
from gpubroker.common.renderers import JSONRenderer
from providers.redact import without_secrets

log = logging.getLogger(__name__)

TASK = "billing.tasks.deliver"
#: A nudge that waited longer is of no use: the scheduler has come by.
NUDGE_EXPIRES = 5


@dataclass(frozen=True, slots=True)
class Notice:
    """``data``: what the API's renderer can print (dollars as ``Decimal``, times as text), without secrets.
    ``consumer_id``: the row's id, or ``None`` for what concerns staff only."""

    kind: str
    consumer_id: int | None
    subject: str
    data: dict[str, Any] = field(default_factory=dict)


def somebody_listens() -> bool:
    """Whether there is any endpoint at all: one quick query."""
    return WebhookEndpoint.objects.filter(deleted_at__isnull=True).exists()


def emit(kind: str, consumer_id: int | None, data: dict[str, Any], *, subject: str) -> None:
    """Tell the consumer's endpoints and those of staff; call it inside the transaction of what happened.

    One query when nobody listens, otherwise three: the endpoints, the message, its deliveries.
    """
    emit_all([Notice(kind, consumer_id, subject, data)])


def emit_all(notices: Iterable[Notice]) -> None:
    """:func:`emit` for many, with as many queries as for one (or a few more: 500 rows go in one insert)."""
    told = list(notices)
    unknown = {notice.kind for notice in told} - (KINDS.keys() - {PING})
    if unknown:
        raise ValueError(f"no kinds of webhook messages: {sorted(unknown)}")
    if not told:
        return
    whose = {notice.consumer_id for notice in told if notice.consumer_id is not None}
    listening = WebhookEndpoint.objects.filter(
        Q(consumer_id__in=whose) | Q(consumer__isnull=True), deleted_at__isnull=True
    )
    endpoints = list(listening.only("id", "consumer_id", "kinds", "active"))
    if not endpoints:
        return
    now = clock.now()
    messages: list[WebhookMessage] = []
    deliveries: list[WebhookDelivery] = []
    for notice in told:
        concerned = [
            endpoint for endpoint in endpoints
            if endpoint.consumer_id in (None, notice.consumer_id) and wanted(endpoint.kinds, notice.kind)
        ]  # fmt: skip
        if not concerned:
            continue
        # Also when all of them are switched off: they may ask for a replay later.
        message = WebhookMessage(
            kind=notice.kind, at=now, consumer_id=notice.consumer_id, subject=notice.subject[:64],
            data=_cleaned(json.loads(JSONRenderer().render(notice.data))),
        )  # fmt: skip
        messages.append(message)
        deliveries += [pending(endpoint, message) for endpoint in concerned if endpoint.active]
    with transaction.atomic():
        WebhookMessage.objects.bulk_create(messages, batch_size=500)
        WebhookDelivery.objects.bulk_create(deliveries, batch_size=500)
        if deliveries:
            nudge()


def pending(endpoint: WebhookEndpoint, message: WebhookMessage) -> WebhookDelivery:
    """Not saved yet; due at once."""
    now = clock.now()
    return WebhookDelivery(endpoint=endpoint, message=message, created_at=now, next_attempt_at=now)


def nudge() -> None:
    """After commit, have a worker look for what is due."""
    transaction.on_commit(_send)


def _send() -> None:
    try:
        current_app.send_task(TASK, expires=NUDGE_EXPIRES)
    except (OperationalError, OSError) as error:
        # The scheduler has it done once the queue is back.
        log.warning("queue not reachable, webhooks wait for the next tick: %s", type(error).__name__)


def _cleaned(value: Any) -> Any:
    """Belt and braces for rule I10: what looks like a credential leaves in no text."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {name: _cleaned(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_cleaned(part) for part in value]
    return value
