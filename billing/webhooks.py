"""Webhook endpoints: made, changed, deleted, their secrets rotated. What is sent to them: ``billing.outbox``; again:
``billing.redelivery``."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from billing import deliver, signing
from billing.services import ensure_consumer
from billing.webhook_kinds import SUBSCRIBABLE
from billing.webhook_models import WebhookEndpoint
from gpubroker.common import clock, crypto, outgoing
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.names import REASON, is_plain

log = logging.getLogger(__name__)

#: Of one consumer, and of staff.
MOST_ENDPOINTS = 20
#: How long the old secret signs beside the new one, unless said otherwise.
OVERLAP = timedelta(hours=24)
SWITCHED_OFF = "switched off"
DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class MadeEndpoint:
    endpoint: WebhookEndpoint
    #: Shown once, kept sealed.
    secret: str = field(repr=False)


def not_found(endpoint_id: str) -> ApiError:
    return ApiError(404, f"webhook {endpoint_id} not found")


def found(endpoint_id: str, consumer: str | None) -> WebhookEndpoint:
    """404, unless it is there and ``consumer`` (``None``: staff) may see it."""
    rows = WebhookEndpoint.objects.select_related("consumer").filter(id=endpoint_id, deleted_at__isnull=True)
    endpoint = rows.first() if consumer is None else rows.filter(consumer__name=consumer).first()
    if endpoint is None:
        raise not_found(endpoint_id)
    return endpoint


def make(
    consumer: str | None, url: str, *, by: str, kinds: Collection[str] = (), description: str = ""
) -> MadeEndpoint:
    """An endpoint for the consumer of that name, who is made if need be, or for staff.

    400 for a URL that may not be called or unknown kinds; 409 when there are :data:`MOST_ENDPOINTS` already.
    """
    _check(url=url, kinds=kinds, description=description)
    if not is_plain(consumer or ""):
        raise BadField("consumer_id", REASON)
    secret = signing.new_secret()
    with transaction.atomic():
        owner = ensure_consumer(consumer) if consumer else None
        # Locked, so that two requests do not both take the last place.
        theirs = WebhookEndpoint.objects.select_for_update(no_key=True).filter(consumer=owner, deleted_at__isnull=True)
        if len(theirs.order_by("id").values_list("id", flat=True)) >= MOST_ENDPOINTS:
            raise ApiError(409, f"there are {MOST_ENDPOINTS} webhooks already; delete one first", limit=MOST_ENDPOINTS)
        endpoint = WebhookEndpoint.objects.create(
            consumer=owner, url=url, kinds=_in_order(kinds), description=description,
            secret_sealed=crypto.seal(secret), created_at=clock.now(), created_by=by,
        )  # fmt: skip
    log.info("webhook %s made by %s for %s", endpoint.id, by, owner or "staff")
    return MadeEndpoint(endpoint, secret)


def change(endpoint: WebhookEndpoint, *, by: str, **wish: Any) -> WebhookEndpoint:
    """``wish``: any of url, kinds, description, active. Switching off calls off what still waits."""
    _check(**wish)
    columns: dict[str, Any] = {name: wish[name] for name in wish.keys() & {"url", "description"}}
    if "kinds" in wish:
        columns["kinds"] = _in_order(wish["kinds"])
    with transaction.atomic():
        mine = WebhookEndpoint.objects.filter(id=endpoint.id, deleted_at__isnull=True)
        if columns:
            mine.update(**columns)
        if wish.get("active") is False:
            deliver.disable(endpoint.id, SWITCHED_OFF)
        elif wish.get("active") is True:
            mine.filter(active=False).update(active=True, disabled_reason="", failing_since=None, slow=False)
        changed = mine.select_related("consumer").first()
    if changed is None:
        raise not_found(endpoint.id)
    log.info("webhook %s changed by %s: %s", endpoint.id, by, ", ".join(sorted(wish)))
    return changed


def delete(endpoint: WebhookEndpoint, *, by: str) -> None:
    with transaction.atomic():
        deliver.disable(endpoint.id, DELETED)
        mine = WebhookEndpoint.objects.filter(id=endpoint.id, deleted_at__isnull=True)
        mine.update(
            active=False, disabled_reason=DELETED, deleted_at=clock.now(), secret_sealed="",
            old_secret_sealed="", old_secret_until=None,
        )  # fmt: skip
    log.info("webhook %s deleted by %s", endpoint.id, by)


def rotate(endpoint: WebhookEndpoint, *, by: str, overlap: timedelta = OVERLAP) -> MadeEndpoint:
    """A new secret; the one before signs beside it for ``overlap``. One older than that signs no more."""
    secret = signing.new_secret()
    with transaction.atomic():
        mine = WebhookEndpoint.objects.select_for_update(no_key=True, of=("self",)).select_related("consumer")
        row = mine.filter(id=endpoint.id, deleted_at__isnull=True).first()
        if row is None:
            raise not_found(endpoint.id)
        stays = overlap > timedelta(0)
        row.old_secret_sealed = row.secret_sealed if stays else ""
        row.old_secret_until = clock.now() + overlap if stays else None
        row.secret_sealed = crypto.seal(secret)
        row.save(update_fields=["secret_sealed", "old_secret_sealed", "old_secret_until"])
    log.info("webhook %s has a new secret, made by %s", endpoint.id, by)
    return MadeEndpoint(row, secret)


def _check(
    url: str | None = None, kinds: Collection[str] = (), description: str = "", active: bool | None = None
) -> None:
    if url is not None:
        try:
            outgoing.parse(url, allow_private=settings.WEBHOOK_ALLOW_PRIVATE)
        except outgoing.BadUrl as error:
            raise BadField("url", str(error)) from None
    unknown = sorted(set(kinds) - set(SUBSCRIBABLE))
    if unknown:
        raise BadField("kinds", f"{unknown[0]!r} is none of {', '.join(SUBSCRIBABLE)}")
    if not is_plain(description):
        raise BadField("description", REASON)


def _in_order(kinds: Collection[str]) -> list[str]:
    """Each once, in the table's order."""
    return [kind for kind in SUBSCRIBABLE if kind in kinds]
