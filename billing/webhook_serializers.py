"""Shapes of webhooks: bodies, queries and answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from billing.webhook_kinds import SUBSCRIBABLE
from billing.webhook_models import WebhookDelivery
from gpubroker.common.api import PageQuery, StrictBooleanField, StrictCharField, StrictIntegerField
from gpubroker.common.names import NameField
from gpubroker.common.outgoing import LONGEST_URL

STATES = WebhookDelivery.State.values
URL_HELP = "https:// or http://, any port, no user name; it must lead to public addresses only"


class KindsField(serializers.ListField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            child=serializers.ChoiceField(choices=SUBSCRIBABLE), max_length=len(SUBSCRIBABLE),
            help_text="What to be told of; empty: everything", **kwargs,
        )  # fmt: skip


class WebhookParams(PageQuery):
    consumer_id = serializers.CharField(required=False, max_length=128)


class WebhookBody(serializers.Serializer[Any]):
    url = StrictCharField(max_length=LONGEST_URL, help_text=URL_HELP)
    kinds = KindsField(required=False)
    description = NameField(required=False, max_length=200, allow_blank=True)
    consumer_id = NameField(
        required=False, max_length=128,
        help_text="Whose messages; your own with a consumer's key. None from staff: everybody's, and those for staff",
    )  # fmt: skip


class WebhookChange(serializers.Serializer[Any]):
    url = StrictCharField(required=False, max_length=LONGEST_URL, help_text=URL_HELP)
    kinds = KindsField(required=False)
    description = NameField(required=False, max_length=200, allow_blank=True)
    active = StrictBooleanField(required=False, help_text="false calls off what still waits to be sent")


class RotateSecretBody(serializers.Serializer[Any]):
    overlap_seconds = StrictIntegerField(
        required=False, min_value=0, max_value=30 * 86_400, default=86_400,
        help_text="How long the old secret signs beside the new one; 0: no longer",
    )  # fmt: skip


class ReplayBody(serializers.Serializer[Any]):
    since = serializers.DateTimeField(help_text="Messages of that moment and later; they are kept for 30 days")
    until = serializers.DateTimeField(required=False, help_text="Messages before that moment; default: now")


class DeliveryParams(serializers.Serializer[Any]):
    state = serializers.ChoiceField(required=False, choices=STATES)
    limit = serializers.IntegerField(required=False, min_value=1, max_value=1_000, default=100)
    offset = serializers.IntegerField(required=False, min_value=0, max_value=2**31 - 1, default=0)


class WebhookSchema(serializers.Serializer[Any]):
    """A webhook without its secret."""

    id = serializers.CharField()
    consumer_id = serializers.CharField(allow_null=True, help_text="null: staff's, told of everything")
    url = serializers.CharField()
    kinds = serializers.ListField(child=serializers.ChoiceField(choices=SUBSCRIBABLE))
    description = serializers.CharField()
    active = serializers.BooleanField()
    disabled_reason = serializers.CharField(help_text="Empty while it is active")
    failing_since = serializers.DateTimeField(allow_null=True, help_text="null: the last attempt succeeded")
    old_secret_until = serializers.DateTimeField(allow_null=True, help_text="Until then two secrets sign")
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()


class MadeWebhookSchema(serializers.Serializer[Any]):
    webhook = WebhookSchema()
    webhook_secret = serializers.CharField(help_text="The key of the signatures, shown this once")


class WebhookListSchema(serializers.Serializer[Any]):
    webhooks = WebhookSchema(many=True)
    count = serializers.IntegerField(help_text="In this answer")
    total = serializers.IntegerField()


class DeliverySchema(serializers.Serializer[Any]):
    """One message on its way to one webhook."""

    id = serializers.UUIDField(help_text="The message's id: the same in its body, in GPUBroker-Delivery and here")
    kind = serializers.CharField()
    subject = serializers.CharField(help_text="The id of what it is about")
    at = serializers.DateTimeField()
    state = serializers.ChoiceField(choices=STATES)
    sequence = serializers.IntegerField(
        allow_null=True, help_text="Counts this webhook's messages; null: not tried yet"
    )
    attempts = serializers.IntegerField()
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    last_attempt_at = serializers.DateTimeField(allow_null=True)
    delivered_at = serializers.DateTimeField(allow_null=True)
    duration_ms = serializers.IntegerField(allow_null=True)
    last_status = serializers.IntegerField(allow_null=True, help_text="HTTP status of the last answer")
    last_error = serializers.CharField(help_text="Empty when the last attempt succeeded")
    last_response = serializers.CharField(help_text="How the last answer's body began")


class DeliveryListSchema(serializers.Serializer[Any]):
    deliveries = DeliverySchema(many=True)
    count = serializers.IntegerField(help_text="In this answer")
    total = serializers.IntegerField()


class ReplaySchema(serializers.Serializer[Any]):
    messages = serializers.IntegerField(help_text="How many are on their way again")
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
