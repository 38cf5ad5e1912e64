"""Webhooks in the admin: where to, how that goes, a test, a replay, on and off. Secrets are on no page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.decorators import action, display

from billing import redelivery, webhook_selectors, webhooks
from billing import webhook_delivery_admin as webhook_delivery_admin
from billing.webhook_models import WebhookDelivery, WebhookEndpoint
from gpubroker.common import audit, clock, confirm, roles
from gpubroker.common.admin import ReadOnlyAdmin
from gpubroker.common.errors import ApiError

#: Deliveries that an endpoint's page shows.
NEWEST = 20


class EndpointFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Active"), ("failing", "Failing"), ("off", "Switched off"), ("deleted", "Deleted")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> QuerySet[WebhookEndpoint]:
        if self.value() == "deleted":
            return queryset.filter(deleted_at__isnull=False)
        queryset = queryset.filter(deleted_at__isnull=True)
        if self.value() == "failing":
            return queryset.filter(active=True, failing_since__isnull=False)
        if self.value() in ("active", "off"):
            return queryset.filter(active=self.value() == "active")
        return queryset


class ReplayForm(forms.Form):
    """Hours, as people on call count: "what happened since last night"."""

    hours = forms.IntegerField(
        min_value=1, max_value=30 * 24, initial=24, label="Of the last so many hours",
        help_text="Messages are kept for 30 days. Those that were delivered are sent again too.",
    )  # fmt: skip


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(ReadOnlyAdmin):
    list_display = ("id", "consumer", "url", "subscribed", "state", "waiting", "failing_since", "created_at")
    list_filter = (EndpointFilter,)
    list_select_related = ("consumer",)
    search_fields = ("id", "url", "description", "consumer__name")
    ordering = ("-created_at",)
    fields = (
        ("id", "state"), ("consumer", "subscribed"), "url", "description", ("failing_since", "disabled_reason"),
        ("last_sequence", "old_secret_until"), ("created_at", "created_by"), "deleted_at",
    )  # fmt: skip
    readonly_fields = ("state", "subscribed")
    actions_detail = ("ping", "replay", "switch")

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        found = super().get_changelist_instance(request)
        ids = [endpoint.pk for endpoint in found.result_list]
        open_ones = WebhookDelivery.objects.filter(next_attempt_at__isnull=False, endpoint__in=ids).order_by()
        waiting = dict(open_ones.values_list("endpoint").annotate(n=Count("id")))
        for endpoint in found.result_list:
            endpoint.open = waiting.get(endpoint.pk, 0)
        return found

    @display(description="told of")
    def subscribed(self, endpoint: WebhookEndpoint) -> str:
        return ", ".join(endpoint.kinds) or "everything"

    @display(description="state", label={"active": "success", "failing": "warning", "off": "danger", "deleted": ""})
    def state(self, endpoint: WebhookEndpoint) -> str:
        if endpoint.deleted_at is not None:
            return "deleted"
        if not endpoint.active:
            return "off"
        return "active" if endpoint.failing_since is None else "failing"

    @display(description="waiting")
    def waiting(self, endpoint: Any) -> int:
        return int(endpoint.open)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        rows = (
            WebhookDelivery.objects.filter(endpoint=unquote(object_id))
            .select_related("message")
            .order_by("-id")[:NEWEST]
        )
        more = {"newest": {"headers": NEWEST_HEADERS, "rows": [_delivery(row) for row in rows]}}
        return super().change_view(request, object_id, form_url, {**more, **(extra_context or {})})

    @action(description="Send a test", url_path="ping", permissions=["operate"], icon="send")
    def ping(self, request: HttpRequest, object_id: str) -> HttpResponse:
        endpoint = self._found(request, object_id)
        page = confirm.asked(
            request, title=f"Send a ping to {endpoint.id}", lines=[f"To {endpoint.url}"], button="Send"
        )
        return page or self._done(
            request,
            endpoint,
            lambda: redelivery.ping(endpoint, by=roles.actor(request)),
            "sent a ping",
            "A ping is on its way.",
        )

    @action(description="Replay", url_path="replay", permissions=["operate"], icon="replay")
    def replay(self, request: HttpRequest, object_id: str) -> HttpResponse:
        endpoint = self._found(request, object_id)
        form = confirm.bound(request, ReplayForm)
        page = confirm.asked(
            request, title=f"Send messages to {endpoint.id} again", button="Send again", form=form,
            lines=[f"To {endpoint.url}", f"At most {redelivery.MOST_REPLAYED:,} messages, under their own ids."],
        )  # fmt: skip
        if page is not None:
            return page
        hours = form.cleaned_data["hours"]
        since = clock.now() - timedelta(hours=hours)
        return self._done(
            request, endpoint, lambda: redelivery.replay(endpoint, since), f"replayed {hours} hours",
            f"What happened in the last {hours} hours is on its way again.",
        )  # fmt: skip

    @action(description="Switch on or off", url_path="switch", permissions=["access"], icon="power_settings_new")
    def switch(self, request: HttpRequest, object_id: str) -> HttpResponse:
        endpoint = self._found(request, object_id)
        on = not endpoint.active
        told = "What waits is called off; what happens meanwhile is kept for a replay."
        page = confirm.asked(
            request, title=f"Switch {endpoint.id} {'on' if on else 'off'}", button="Switch on" if on else "Switch off",
            lines=[f"It leads to {endpoint.url}", *([] if on else [told])], danger=not on,
        )  # fmt: skip
        word = "on" if on else "off"
        return page or self._done(
            request, endpoint, lambda: webhooks.change(endpoint, by=roles.actor(request), active=on),
            f"switched {word}", f"It is switched {word}.",
        )  # fmt: skip

    def _found(self, request: HttpRequest, object_id: str) -> WebhookEndpoint:
        endpoint: WebhookEndpoint | None = self.get_object(request, unquote(object_id))
        if endpoint is None or endpoint.deleted_at is not None:
            raise Http404
        return endpoint

    def _done(
        self, request: HttpRequest, endpoint: WebhookEndpoint, work: Callable[[], object], noted: str, told: str
    ) -> HttpResponse:
        """Do it, note it and say it; or say why not."""
        try:
            work()
        except ApiError as refusal:
            self.message_user(request, refusal.message, messages.ERROR)
        else:
            audit.note(request, endpoint, noted)
            self.message_user(request, told)
        return redirect(reverse("admin:billing_webhookendpoint_change", args=[endpoint.pk]))


NEWEST_HEADERS = ["Message", "About", "State", "Attempts", "Last answer", "Next attempt", "Written"]


def _delivery(row: WebhookDelivery) -> list[Any]:
    told = webhook_selectors.delivery_shown(row)
    answer = told["last_error"] or told["last_status"] or "–"
    return [
        told["kind"], told["subject"], told["state"], told["attempts"], answer, told["next_attempt_at"] or "–",
        told["at"],
    ]  # fmt: skip
