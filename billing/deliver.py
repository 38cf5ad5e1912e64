"""Sending what is due in the outbox: claim one, send it, note what came of it, until nothing is due.

A claim is an atomic update with a lease, so no two workers send the same delivery at once. A worker that dies between
sending and noting leaves a lease that ends: then it is sent again, under the same message id. Order is not promised.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet

from billing import signing
from billing.slots import slots
from billing.webhook_models import WebhookDelivery, WebhookEndpoint, WebhookMessage
from gpubroker.common import clock, crypto, outgoing
from gpubroker.common.counters import increment

log = logging.getLogger(__name__)

State = WebhookDelivery.State
OPEN = (State.PENDING, State.SENDING)
#: Before the second attempt, the third and so on: a day and some minutes in all. Then it is given up.
PAUSES = (
    timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10), timedelta(hours=1),
    timedelta(hours=3), timedelta(hours=8), timedelta(hours=12),
)  # fmt: skip
MOST_TRIES = len(PAUSES) + 1
#: Longer than any attempt takes.
LEASE = timedelta(seconds=45)
#: A receiver that takes longer shares the places of those that fail.
SLOW_SECONDS = 3.0
#: After that a task makes room; the scheduler starts the next one within a second.
TASK_SECONDS = 20.0
GONE = 410
ANSWERED_GONE = "answered 410 Gone"
COUNTER = "gpu_webhook_deliveries_total"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt. ``error`` is empty when it was delivered."""

    error: str = ""
    status: int | None = None
    excerpt: str = ""
    seconds: float = 0.0


def drain(seconds: float = TASK_SECONDS) -> int:
    """Send what is due, one after the other, as long as there is room for it; how many."""
    until = time.monotonic() + seconds
    sent = 0
    while time.monotonic() < until and (claimed := _claim_with_room()) is not None:
        delivery, troubled = claimed
        try:
            note(delivery, send(delivery))
        finally:
            slots.leave(delivery.endpoint_id, troubled=troubled)
        sent += 1
    return sent


def _claim_with_room() -> tuple[WebhookDelivery, bool] | None:
    with slots.choosing:
        if slots.full():
            return None
        waiting = WebhookDelivery.objects.exclude(endpoint_id__in=slots.full_endpoints())
        if slots.full_for_troubled():
            waiting = waiting.filter(endpoint__failing_since__isnull=True, endpoint__slow=False)
        while (delivery := claim(waiting)) is not None:
            if delivery.state == State.SENDING:
                troubled = delivery.endpoint.slow or delivery.endpoint.failing_since is not None
                slots.enter(delivery.endpoint_id, troubled=troubled)
                return delivery, troubled
    return None


def claim(waiting: QuerySet[WebhookDelivery]) -> WebhookDelivery | None:
    """The longest due of ``waiting``, with its lease written and an attempt counted; ``None``: nothing is due.

    One whose endpoint takes no more, or whose last sender never came back, comes back closed instead.
    """
    now = clock.now()
    due = waiting.filter(next_attempt_at__lte=now)
    if not due.exists():  # without a transaction, which on SQLite would keep others from writing
        return None
    skip = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        locked = due.select_for_update(skip_locked=skip, of=("self",), no_key=True)
        delivery = locked.select_related("endpoint", "message__consumer").order_by("next_attempt_at", "id").first()
        if delivery is None:
            return None
        if not delivery.endpoint.active:
            return _close(delivery, State.CANCELLED, delivery.endpoint.disabled_reason or "the webhook was deleted")
        if delivery.tries >= MOST_TRIES:
            return _close(delivery, State.FAILED, "given up: its last sender did not come back")
        delivery.state, delivery.next_attempt_at, delivery.last_attempt_at = State.SENDING, now + LEASE, now
        delivery.attempts += 1
        delivery.tries += 1
        delivery.save(update_fields=["state", "next_attempt_at", "last_attempt_at", "attempts", "tries"])
    _number(delivery)
    return delivery


def _number(delivery: WebhookDelivery) -> None:
    """At its first attempt. Apart from the claim, because whoever switches an endpoint off locks it before its
    deliveries, and so must everybody."""
    if delivery.sequence is not None:
        return
    with transaction.atomic():
        endpoint = WebhookEndpoint.objects.filter(id=delivery.endpoint_id)
        endpoint.update(last_sequence=F("last_sequence") + 1)
        delivery.sequence = endpoint.values_list("last_sequence", flat=True).get()
        delivery.save(update_fields=["sequence"])


def _close(delivery: WebhookDelivery, state: State, why: str) -> WebhookDelivery:
    delivery.state, delivery.next_attempt_at, delivery.last_error = state, None, why
    delivery.save(update_fields=["state", "next_attempt_at", "last_error"])
    increment(COUNTER, outcome=state.value)
    return delivery


def content(delivery: WebhookDelivery) -> bytes:
    message = delivery.message
    told = {
        "id": str(message.id),
        "kind": message.kind,
        "at": clock.iso(message.at),
        "consumer_id": message.consumer.name if message.consumer is not None else None,
        "subject": message.subject,
        "sequence": delivery.sequence,
        "attempt": delivery.attempts,
        "data": message.data,
    }
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()


def signing_keys(endpoint: WebhookEndpoint) -> list[str]:
    """The secrets that sign now: after a rotation also the old one, for a while."""
    keys = [crypto.unseal(endpoint.secret_sealed)]
    if endpoint.old_secret_until is not None and clock.now() < endpoint.old_secret_until:
        keys.append(crypto.unseal(endpoint.old_secret_sealed))
    return keys


def send(delivery: WebhookDelivery) -> Outcome:
    """One attempt, at most :data:`outgoing.TOTAL_SECONDS` long. Changes nothing in the database."""
    endpoint, body = delivery.endpoint, content(delivery)
    began = time.monotonic()
    try:
        headers = {
            "Content-Type": "application/json",
            signing.HEADER: signing.signature(signing_keys(endpoint), int(clock.now().timestamp()), body),
            "GPUBroker-Event": delivery.message.kind,
            "GPUBroker-Delivery": str(delivery.message_id),
        }
        reply = outgoing.post(endpoint.url, body, headers, allow_private=settings.WEBHOOK_ALLOW_PRIVATE)
    except outgoing.BadUrl as error:
        return Outcome(f"its URL {error}", seconds=time.monotonic() - began)
    except (outgoing.NotDelivered, crypto.SecretUnreadable) as error:
        return Outcome(str(error), seconds=time.monotonic() - began)
    return Outcome(_refusal(reply.status), reply.status, reply.excerpt, time.monotonic() - began)


def _refusal(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"answered {status}, a redirect, which is not followed"
    return ANSWERED_GONE if status == GONE else f"answered {status}"


def pause_after(delivery: WebhookDelivery) -> timedelta | None:
    """How long to wait after this try, spread by a tenth either way so that not all come at once; ``None``: give up."""
    if delivery.tries >= MOST_TRIES:
        return None
    spread = hashlib.sha256(f"{delivery.pk}:{delivery.attempts}".encode()).digest()[0] / 255
    return PAUSES[delivery.tries - 1] * (0.9 + 0.2 * spread)


def note(delivery: WebhookDelivery, outcome: Outcome) -> bool:
    """Write what came of the attempt; ``False`` when its lease had ended and somebody else went on with it."""
    now = clock.now()
    changes: dict[str, Any] = {
        "last_status": outcome.status, "last_error": outcome.error[:200], "last_response": outcome.excerpt[:300],
        "duration_ms": int(outcome.seconds * 1000), "next_attempt_at": None,
    }  # fmt: skip
    pause = pause_after(delivery)
    if not outcome.error:
        changes |= {"state": State.DELIVERED, "delivered_at": now}
    elif outcome.status == GONE or pause is None:
        changes["state"] = State.FAILED
    else:
        changes |= {"state": State.PENDING, "next_attempt_at": now + pause}
    told = "retried" if changes["state"] == State.PENDING else str(changes["state"].value)
    with transaction.atomic():
        mine = WebhookDelivery.objects.filter(pk=delivery.pk, state=State.SENDING, attempts=delivery.attempts)
        if not mine.update(**changes):
            log.info("delivery %s to %s: somebody else went on with it", delivery.message_id, delivery.endpoint_id)
            return False
        _note_endpoint(delivery.endpoint, outcome)
        increment(COUNTER, outcome=told)  # last: everybody counts in the same rows
    if changes["state"] == State.FAILED:
        log.warning("webhook %s: %s given up: %s", delivery.endpoint_id, delivery.message_id, outcome.error)
    return True


def _note_endpoint(endpoint: WebhookEndpoint, outcome: Outcome) -> None:
    mine = WebhookEndpoint.objects.filter(id=endpoint.id)
    if outcome.error:
        mine.filter(failing_since__isnull=True).update(failing_since=clock.now())
    else:
        mine.filter(failing_since__isnull=False).update(failing_since=None)
    slow = outcome.seconds >= SLOW_SECONDS
    if endpoint.slow != slow:
        mine.update(slow=slow)
    if outcome.status == GONE:
        disable(endpoint.id, ANSWERED_GONE)


def disable(endpoint_id: str, reason: str) -> None:
    """It is told no more, and what still waits for it is called off. A delivery that is being written this moment is
    called off by whoever claims it."""
    with transaction.atomic():
        if WebhookEndpoint.objects.filter(id=endpoint_id, active=True).update(active=False, disabled_reason=reason):
            log.info("webhook %s is switched off: %s", endpoint_id, reason)
        waiting = WebhookDelivery.objects.filter(endpoint_id=endpoint_id, state=State.PENDING)
        called_off = waiting.update(state=State.CANCELLED, next_attempt_at=None, last_error=reason)
        if called_off:
            increment(COUNTER, called_off, outcome=State.CANCELLED.value)


#: Messages and their deliveries can be looked at and replayed for so long.
KEPT = timedelta(days=30)
#: A deleted endpoint may still be pointed at by a transaction that began before.
DELETED_KEPT = timedelta(days=1)
PURGED_TOGETHER = 1_000


def purge() -> None:
    """Erase what was kept long enough: old secrets, messages, and endpoints that were deleted."""
    now = clock.now()
    WebhookEndpoint.objects.filter(old_secret_until__lte=now).update(old_secret_sealed="", old_secret_until=None)
    under_way = WebhookDelivery.objects.filter(state__in=OPEN).values("message_id")
    old = WebhookMessage.objects.filter(at__lt=now - KEPT).exclude(id__in=under_way).order_by("at")
    WebhookMessage.objects.filter(id__in=list(old.values_list("id", flat=True)[:PURGED_TOGETHER])).delete()
    gone = Q(deleted_at__lt=now - DELETED_KEPT)
    WebhookEndpoint.objects.filter(gone, deliveries__isnull=True).delete()
