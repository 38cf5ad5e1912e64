"""Webhooks in the admin: where to, what is on its way, and sending it again. Secrets are on no page."""

from __future__ import annotations

import json

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from billing import redelivery
from billing.webhook_models import WebhookDelivery, WebhookEndpoint
from gpubroker.common.admin import ReadOnlyAdmin
from gpubroker.common.errors import ApiError


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(ReadOnlyAdmin):
    list_display = ("id", "consumer", "url", "kinds", "active", "disabled_reason", "failing_since", "created_at")
    list_filter = ("active", ("failing_since", admin.EmptyFieldListFilter))
    list_select_related = ("consumer",)
    search_fields = ("id", "url", "description", "consumer__name")
    ordering = ("-created_at",)
    exclude = ("secret_sealed", "old_secret_sealed")


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    list_display = (
        "message_id", "kind", "subject", "endpoint", "state", "attempts", "last_status", "last_error",
        "next_attempt_at", "created_at",
    )  # fmt: skip
    list_filter = ("state", "message__kind")
    list_select_related = ("message", "endpoint")
    search_fields = ("=message__id", "=message__subject", "=endpoint__id")
    ordering = ("-id",)
    fields = (
        "message_id", "kind", "subject", "data", "endpoint", "state", "sequence", "attempts", "created_at",
        "last_attempt_at", "next_attempt_at", "delivered_at", "duration_ms", "last_status", "last_error",
        "last_response",
    )  # fmt: skip
    readonly_fields = fields
    actions = ("redeliver",)

    @admin.display(ordering="message__kind")
    def kind(self, delivery: WebhookDelivery) -> str:
        return delivery.message.kind

    @admin.display
    def subject(self, delivery: WebhookDelivery) -> str:
        return delivery.message.subject

    @admin.display
    def data(self, delivery: WebhookDelivery) -> str:
        return json.dumps(delivery.message.data, indent=1)

    def has_manage_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_webhookdelivery")

    @admin.action(description="Send again, now", permissions=["manage"])
    def redeliver(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        sent = 0
        for delivery in queryset.select_related("endpoint", "message"):
            try:
                redelivery.redeliver(delivery)
            except ApiError as refusal:
                self.message_user(request, refusal.message, messages.ERROR)
            else:
                self.log_change(request, delivery, "sent again")
                sent += 1
        if sent:
            self.message_user(request, f"{sent} on their way again.")
