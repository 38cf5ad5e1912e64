"""API keys and the meter in the admin, and the modules of billing's other pages. A new key is in the page that answers
the form, and nowhere else."""

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
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from billing import books_admin as books_admin
from billing import budget_admin as budget_admin
from billing import consumer_admin as consumer_admin
from billing import ledger_admin as ledger_admin
from billing import services
from billing import webhook_admin as webhook_admin
from billing.models import ApiKey, MeterSegment
from billing.money_admin import SpendPages
from gpubroker.common import audit, clock, confirm
from gpubroker.common.admin import ReadOnlyAdmin
from gpubroker.common.errors import ApiError
from gpubroker.common.principal import READ, SPEND, STAFF

SHOWN = (
    ("prefix", "state"), ("consumer", "scopes"), ("name", "rotated_from"), ("created_at", "created_by"),
    ("expires_at", "last_used_at"), "revoked_at",
)  # fmt: skip
STATES = {"active": "success", "expired": "warning", "revoked": "danger"}
#: Keys that one page's lines name.
NAMED = 20


class NewKeyForm(forms.Form):
    """Who the key is for and what it may do; :func:`services.make_key` decides whether they go together."""

    consumer = forms.CharField(required=False, max_length=128, help_text="Made if need be. Empty for a staff key.")
    scopes = forms.MultipleChoiceField(
        choices=[(READ, "read: look"), (SPEND, "spend: rent and end"), (STAFF, "staff: everything, of everybody")],
        initial=[READ, SPEND],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    name = forms.CharField(required=False, max_length=100, help_text="For people: what it is for.")
    expires_in_days = forms.IntegerField(
        required=False, min_value=1, max_value=services.LONGEST_LIFE_DAYS, help_text="Empty: never."
    )


def _by(request: HttpRequest) -> str:
    return f"admin:{request.user.get_username()}"[:160]


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state.capitalize()) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        now = clock.now()
        if self.value() == "revoked":
            return queryset.filter(revoked_at__isnull=False)
        if self.value() == "expired":
            return queryset.filter(revoked_at__isnull=True, expires_at__lte=now)
        if self.value() == "active":
            return queryset.filter(revoked_at__isnull=True).exclude(expires_at__lte=now)
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ("prefix", "consumer", "name", "scopes", "state", "created_at", "expires_at", "last_used_at")
    list_filter = (StateFilter, "scopes")
    list_select_related = ("consumer",)
    search_fields = ("prefix", "name", "consumer__name")
    ordering = ("-created_at",)
    fields = SHOWN
    readonly_fields = (
        "prefix", "state", "consumer", "scopes", "name", "rotated_from", "created_at", "created_by", "expires_at",
        "last_used_at", "revoked_at",
    )  # fmt: skip
    actions = ("revoke", "rotate")

    @display(description="state", label=STATES)
    def state(self, key: ApiKey) -> str:
        return key.state(clock.now())

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_access_permission(request)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The form, and in answer to it the new key: not by way of a message, which would rest in cookie or session."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = confirm.styled(NewKeyForm(request.POST or None, initial={"consumer": request.GET.get("consumer", "")}))
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
                audit.note(request, made.key, f"made a key for {made.key.consumer or 'staff'} with {made.key.scopes}")
                return self._shown_once(request, [made])
        return self._page(request, "admin/billing/apikey/make.html", {"form": form, "title": "Make an API key"})

    @admin.action(description="Revoke: they stop working within seconds", permissions=["access"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        keys = list(queryset.filter(revoked_at__isnull=True).select_related("consumer"))
        if not keys:
            self.message_user(request, "All of them are revoked already.", messages.WARNING)
            return None
        page = confirm.asked(
            request, title=f"Revoke {_number(keys)}", lines=_lines(keys), button="Revoke", typed=f"revoke {len(keys)}"
        )
        if page is not None:
            return page
        for key in keys:
            services.revoke_key(key.prefix, by=_by(request))
            audit.note(request, key, "revoked the key")
        self.message_user(request, "Revoked; within five seconds they work nowhere.")
        return None

    @admin.action(description="Rotate: new keys now, the old ones work for a day", permissions=["access"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        keys = list(queryset.select_related("consumer"))
        page = confirm.asked(
            request, title=f"Rotate {_number(keys)}", button="Rotate",
            lines=[*_lines(keys), "The new keys are shown once, on the next page. The old ones work for a day more."],
        )  # fmt: skip
        if page is not None:
            return page
        made = []
        for key in keys:
            try:
                made.append(services.rotate_key(key.prefix, by=_by(request)))
                audit.note(request, key, f"rotated the key to {made[-1].key.prefix}")
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


def _number(keys: list[ApiKey]) -> str:
    return f"{len(keys)} key{'' if len(keys) == 1 else 's'}"


def _lines(keys: list[ApiKey]) -> list[str]:
    named = [f"{key.prefix} of {key.consumer or 'staff'}: {key.scopes} {key.name}".strip() for key in keys[:NAMED]]
    return [*named, f"and {len(keys) - NAMED} more"] if len(keys) > NAMED else named


@admin.register(MeterSegment)
class MeterSegmentAdmin(SpendPages, ReadOnlyAdmin):
    list_display = ("session_id", "consumer", "provider", "gpu_type", "kind", "rate_per_hour", "started_at", "ended_at")
    list_filter = ("provider", "kind", ("ended_at", admin.EmptyFieldListFilter))
    list_select_related = ("consumer",)
    search_fields = ("session_id", "=rental_id")
    search_help_text = "Session or rental"
    ordering = ("-started_at",)
