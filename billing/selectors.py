"""What things cost (see :mod:`billing.costs`), and who holds which key."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from billing.costs import Costs as Costs
from billing.costs import of_period as of_period
from billing.costs import of_session as of_session
from billing.models import ApiKey, Consumer
from billing.periods import Period as Period
from billing.periods import days as days
from billing.periods import month_of as month_of
from gpubroker.common import clock


def consumers() -> QuerySet[Consumer]:
    return Consumer.objects.order_by("name")


def consumer_shown(consumer: Consumer) -> dict[str, Any]:
    return {"consumer_id": consumer.name, "created_at": clock.iso(consumer.created_at)}


def api_keys(consumer: str | None = None) -> QuerySet[ApiKey]:
    """Newest first; all of them, also those that work no more."""
    found = ApiKey.objects.select_related("consumer", "rotated_from").order_by("-created_at", "-id")
    return found if consumer is None else found.filter(consumer__name=consumer)


def key_shown(key: ApiKey) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "consumer_id": key.consumer.name if key.consumer is not None else None,
        "name": key.name,
        "scopes": key.scopes.split(","),
        "state": key.state(clock.now()),
        "created_at": clock.iso(key.created_at),
        "created_by": key.created_by,
        "expires_at": clock.iso(key.expires_at),
        "last_used_at": clock.iso(key.last_used_at),
        "revoked_at": clock.iso(key.revoked_at),
        "rotated_from": key.rotated_from.prefix if key.rotated_from is not None else None,
    }
