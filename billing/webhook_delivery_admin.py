"""What webhooks were told, in the admin: messages, what became of each, and sending them again."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.decorators import action, display

from billing import redelivery
from billing.webhook_kinds import KINDS
from billing.webhook_models import WebhookDelivery, WebhookMessage
from gpubroker.common import audit, confirm
from gpubroker.common.admin import ReadOnlyAdmin, ReadOnlyInline
from gpubroker.common.errors import ApiError

#: Deliveries that one action sends again, and that its question names.
MOST_AGAIN, NAMED = 500, 20
STATES = {
    "pending": "info", "sending": "info", "delivered": "success", "failed": "danger", "cancelled": "",
}  # fmt: skip


class KindFilter(admin.SimpleListFilter):
    """The kinds that there are, not those that happen to be in the table."""

    title = "kind"
    parameter_name = "kind"
    column = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, kind) for kind in KINDS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{self.column: self.value()}) if self.value() in KINDS else queryset


class MessageKindFilter(KindFilter):
    column = "message__kind"


class DeliveryInline(ReadOnlyInline):
    model = WebhookDelivery
    verbose_name_plural = "deliveries"
    fields = readonly_fields = (
        "endpoint", "state", "sequence", "attempts", "last_attempt_at", "last_status", "last_error", "next_attempt_at",
        "delivered_at",
    )  # fmt: skip
    ordering = ("id",)


@admin.register(WebhookMessage)
class WebhookMessageAdmin(ReadOnlyAdmin):
    list_display = ("at", "kind", "subject", "consumer", "sent_to")
    list_filter = (KindFilter,)
    list_select_related = ("consumer",)
    search_fields = ("=id", "=subject", "consumer__name")
    search_help_text = "A message, what it is about, or a consumer"
    ordering = ("-at",)
    fields = (("id", "kind"), ("at", "subject"), "consumer", "data")
    inlines = (DeliveryInline,)

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        found = super().get_changelist_instance(request)
        ids = [message.pk for message in found.result_list]
        rows = WebhookDelivery.objects.filter(message__in=ids).order_by().values_list("message", "state")
        for message in found.result_list:
            message.sent = {}
        known = {message.pk: message.sent for message in found.result_list}
        for message_id, state, number in rows.annotate(n=Count("id")):
            known[message_id][state] = number
        return found

    @display(description="deliveries", empty_value="nobody listens")
    def sent_to(self, message: Any) -> str | None:
        return ", ".join(f"{number} {state}" for state, number in sorted(message.sent.items())) or None


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    list_display = ("kind", "subject", "endpoint", "status", "attempts", "last_error", "next_attempt_at", "created_at")
    list_filter = ("state", MessageKindFilter)
    list_select_related = ("message", "endpoint")
    search_fields = ("=message__id", "=message__subject", "=endpoint__id")
    search_help_text = "A message, what it is about, or a webhook"
    ordering = ("-id",)
    fields = (
        ("message_id", "status"), ("kind", "subject"), "endpoint", ("attempts", "sequence"),
        ("created_at", "next_attempt_at"), ("last_attempt_at", "delivered_at"), ("last_status", "duration_ms"),
        "last_error", "last_response", "data",
    )  # fmt: skip
    readonly_fields = (
        "message_id", "status", "kind", "subject", "endpoint", "attempts", "sequence", "created_at", "next_attempt_at",
        "last_attempt_at", "delivered_at", "last_status", "duration_ms", "last_error", "last_response", "data",
    )  # fmt: skip
    actions = ("redeliver",)
    actions_detail = ("redeliver_one",)

    @display(description="state", ordering="state", label=STATES)
    def status(self, delivery: WebhookDelivery) -> str:
        return delivery.state

    @display(description="kind", ordering="message__kind")
    def kind(self, delivery: WebhookDelivery) -> str:
        return delivery.message.kind

    @display(description="subject")
    def subject(self, delivery: WebhookDelivery) -> str:
        return delivery.message.subject

    @display(description="data")
    def data(self, delivery: WebhookDelivery) -> str:
        return json.dumps(delivery.message.data, indent=1)

    @admin.action(description="Send again, now", permissions=["operate"])
    def redeliver(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> HttpResponse | None:
        chosen = list(queryset.select_related("endpoint", "message")[: MOST_AGAIN + 1])
        if len(chosen) > MOST_AGAIN:
            told = f"At most {MOST_AGAIN} at once; a webhook's page replays all of a time."
            self.message_user(request, told, messages.ERROR)
            return None
        named = [f"{each.message.kind} {each.message.subject} to {each.endpoint_id}" for each in chosen[:NAMED]]
        page = confirm.asked(
            request, title=f"Send {len(chosen)} deliveries again", button="Send again",
            lines=[*named, *([f"and {len(chosen) - NAMED} more"] if len(chosen) > NAMED else [])],
        )  # fmt: skip
        if page is not None:
            return page
        sent = [delivery for delivery in chosen if self._again(request, delivery)]
        if sent:
            self.message_user(request, f"{len(sent)} on their way again.")
        return None

    @action(description="Send again, now", url_path="redeliver", permissions=["operate"], icon="redo")
    def redeliver_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        delivery: WebhookDelivery | None = self.get_object(request, unquote(object_id))
        if delivery is None:
            raise Http404
        page = confirm.asked(
            request, title=f"Send {delivery.message.kind} {delivery.message.subject} again", button="Send again",
            lines=[f"To {delivery.endpoint.url}, under the same message id {delivery.message_id}."],
        )  # fmt: skip
        if page is not None:
            return page
        if self._again(request, delivery):
            self.message_user(request, "It is on its way again.")
        return redirect(reverse("admin:billing_webhookdelivery_change", args=[delivery.pk]))

    def _again(self, request: HttpRequest, delivery: WebhookDelivery) -> bool:
        try:
            redelivery.redeliver(delivery)
        except ApiError as refusal:
            self.message_user(request, refusal.message, messages.ERROR)
            return False
        audit.note(request, delivery, "sent it again")
        return True
