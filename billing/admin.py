"""Consumers, their keys and what they used. A new key is in the page that answers the form, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from billing import books_admin as books_admin
from billing import budget_admin as budget_admin
from billing import services
from billing import webhook_admin as webhook_admin
from billing.models import ApiKey, Consumer, MeterSegment
from billing.money_admin import SpendPages, StatementPages
from gpubroker.common import clock
from gpubroker.common.admin import ReadOnlyAdmin, ReadOnlyInline
from gpubroker.common.errors import ApiError
from gpubroker.common.principal import READ, SPEND, STAFF

SHOWN = (
    "prefix", "consumer", "name", "scopes", "state", "created_at", "created_by", "expires_at", "last_used_at",
    "revoked_at", "rotated_from",
)  # fmt: skip


class NewKeyForm(forms.Form):
    """Who the key is for and what it may do; :func:`services.make_key` decides whether they go together."""

    consumer = forms.CharField(required=False, max_length=128, help_text="Made if need be. Empty for a staff key.")
    scopes = forms.MultipleChoiceField(
        choices=[(READ, "read: look"), (SPEND, "spend: rent and end"), (STAFF, "staff: everything, of every consumer")],
        initial=[READ, SPEND],
        widget=forms.CheckboxSelectMultiple,
    )
    name = forms.CharField(required=False, max_length=100, help_text="For people: what it is for.")
    expires_in_days = forms.IntegerField(
        required=False, min_value=1, max_value=services.LONGEST_LIFE_DAYS, help_text="Empty: never."
    )


def _by(request: HttpRequest) -> str:
    return f"admin:{request.user.get_username()}"[:160]


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ("prefix", "consumer", "name", "scopes", "state", "created_at", "expires_at", "last_used_at")
    list_filter = ("scopes", ("revoked_at", admin.EmptyFieldListFilter))
    list_select_related = ("consumer",)
    search_fields = ("prefix", "name", "consumer__name")
    ordering = ("-created_at",)
    fields = readonly_fields = SHOWN
    actions = ("revoke", "rotate")

    @admin.display(description="state")
    def state(self, key: ApiKey) -> str:
        return key.state(clock.now())

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("billing.add_apikey")

    def has_manage_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_apikey")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The form, and in answer to it the new key: not by way of a message, which would rest in cookie or session."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewKeyForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            wish = form.cleaned_data
            days = wish["expires_in_days"]
            try:
                made = services.make_key(
                    wish["consumer"] or None, by=_by(request), scopes=wish["scopes"], name=wish["name"],
                    expires_in=timedelta(days=days) if days else None,
                )  # fmt: skip
            except ApiError as refusal:
                form.add_error(None, refusal.message)
            else:
                self.log_addition(request, made.key, "made")
                return self._shown_once(request, [made])
        context = {"form": form, "title": "Make an API key"}
        return self._page(request, "admin/billing/apikey/make.html", context)

    @admin.action(description="Revoke: they stop working within seconds", permissions=["manage"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        for key in queryset:
            services.revoke_key(key.prefix, by=_by(request))
            self.log_change(request, key, "revoked")
        self.message_user(request, "Revoked; within five seconds they work nowhere.")

    @admin.action(description="Rotate: new keys now, the old ones work for a day", permissions=["manage"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        made = []
        for key in queryset:
            try:
                made.append(services.rotate_key(key.prefix, by=_by(request)))
                self.log_change(request, key, f"rotated to {made[-1].key.prefix}")
            except ApiError as refusal:
                self.message_user(request, refusal.message, messages.ERROR)
        return self._shown_once(request, made) if made else None

    def _shown_once(self, request: HttpRequest, made: Iterable[services.MadeKey]) -> HttpResponse:
        # The admin forbids caching of all its pages.
        context = {"made": list(made), "title": "Copy now: shown this once"}
        return self._page(request, "admin/billing/apikey/made.html", context)

    def _page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        own = {"opts": self.opts, "back": reverse("admin:billing_apikey_changelist")}
        return TemplateResponse(request, template, {**self.admin_site.each_context(request), **own, **context})


class KeyInline(ReadOnlyInline):
    model = ApiKey
    fields = readonly_fields = ("prefix", "name", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
    ordering = ("-created_at",)


@admin.register(Consumer)
class ConsumerAdmin(StatementPages, ReadOnlyAdmin):
    list_display = ("name", "created_at")
    search_fields = ("name",)
    inlines = (KeyInline,)


@admin.register(MeterSegment)
class MeterSegmentAdmin(SpendPages, ReadOnlyAdmin):
    list_display = ("session_id", "consumer", "provider", "gpu_type", "kind", "rate_per_hour", "started_at", "ended_at")
    list_filter = ("provider", "kind", ("ended_at", admin.EmptyFieldListFilter))
    list_select_related = ("consumer",)
    search_fields = ("session_id", "=rental_id")
    ordering = ("-started_at",)
