"""Webhooks: where to, what happened, and how telling it goes."""

from __future__ import annotations

import secrets
import uuid
from typing import ClassVar

from django.db import models


def new_endpoint_id() -> str:
    return f"wh-{secrets.token_hex(8)}"


class WebhookEndpoint(models.Model):
    """A URL that is told what happens: to one consumer, or (``consumer`` null) to everybody, for staff.

    It is never deleted while something may still point at it: ``deleted_at`` hides it, and the purge erases it later.
    """

    id = models.CharField(max_length=24, primary_key=True, default=new_endpoint_id)
    consumer = models.ForeignKey("billing.Consumer", on_delete=models.PROTECT, null=True, related_name="webhooks")
    url = models.CharField(max_length=2000)
    #: Kinds and groups subscribed to; empty: all.
    kinds = models.JSONField(default=list)
    description = models.CharField(max_length=200, blank=True)
    active = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=100, blank=True)
    secret_sealed = models.TextField()
    #: The secret before the last rotation; until then both sign.
    old_secret_sealed = models.TextField(blank=True)
    old_secret_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=160)
    deleted_at = models.DateTimeField(null=True)
    #: The number that its last delivery got, at its first attempt.
    last_sequence = models.PositiveBigIntegerField(default=0)
    #: Since when no attempt has succeeded; null: the last one did.
    failing_since = models.DateTimeField(null=True)
    #: The last attempt took long: it shares the places of those that fail.
    slow = models.BooleanField(default=False)

    class Meta:
        verbose_name = "webhook"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=models.Q(active=False) | models.Q(deleted_at__isnull=True), name="webhook_deleted_is_inactive"
            ),
        ]

    def __str__(self) -> str:
        return self.id


class WebhookMessage(models.Model):
    """Something that happened, as it is told. Written once, in the transaction of what it tells of, never changed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    kind = models.CharField(max_length=40)
    at = models.DateTimeField()
    #: Whom it concerns; null: staff only.
    consumer = models.ForeignKey(
        "billing.Consumer", on_delete=models.PROTECT, null=True, related_name="+", db_index=False
    )  # fmt: skip
    #: The id of what it is about: a session, a rental, a provider, an endpoint.
    subject = models.CharField(max_length=64)
    data = models.JSONField()

    class Meta:
        verbose_name = "webhook message"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["consumer", "at"], name="webhook_message_by_consumer"),
            models.Index(fields=["at"], name="webhook_message_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"


class WebhookDelivery(models.Model):
    """One message on its way to one endpoint. Outside it is named by the message's id. Written by
    ``billing.outbox``, ``billing.redelivery`` and ``billing.deliver`` only."""

    class State(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        DELIVERED = "delivered"
        FAILED = "failed"
        CANCELLED = "cancelled"

    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.PROTECT, related_name="deliveries", db_index=False
    )  # fmt: skip
    message = models.ForeignKey(WebhookMessage, on_delete=models.CASCADE, related_name="deliveries")
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    created_at = models.DateTimeField()
    #: Pending: when it is sent. Sending: until when its sender is believed to be alive. Otherwise null.
    next_attempt_at = models.DateTimeField(null=True)
    sequence = models.PositiveBigIntegerField(null=True)
    #: All of them: whoever notes an outcome must have made the last one.
    attempts = models.PositiveIntegerField(default=0)
    #: Since it was written or asked for again: how long the next pause is, and when to give up.
    tries = models.PositiveIntegerField(default=0)
    last_attempt_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)
    duration_ms = models.PositiveIntegerField(null=True)
    last_status = models.PositiveSmallIntegerField(null=True)
    last_error = models.CharField(max_length=200, blank=True)
    last_response = models.CharField(max_length=300, blank=True)

    class Meta:
        verbose_name = "webhook delivery"
        verbose_name_plural = "webhook deliveries"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["endpoint", "message"], name="webhook_delivery_once"),
            models.CheckConstraint(
                condition=models.Q(state__in=["pending", "sending"], next_attempt_at__isnull=False)
                | models.Q(state__in=["delivered", "failed", "cancelled"], next_attempt_at__isnull=True),
                name="webhook_delivery_due_while_open",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["next_attempt_at"], name="webhook_delivery_due",
                condition=models.Q(next_attempt_at__isnull=False),
            ),
            models.Index(fields=["endpoint", "-id"], name="webhook_delivery_newest"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.message_id} to {self.endpoint_id}"
