"""Launch templates in the admin: what the provider has, how old that is, and fetching it again."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import action, display

from gpubroker.common import audit, confirm
from gpubroker.common.admin import ReadOnlyAdmin
from templates_app import selectors, services
from templates_app.matching import compiled
from templates_app.models import Template, TemplateSync

#: On what a template runs, by its filters; with filters that cannot be understood on nothing.
ANY_MACHINE, CHOSEN, NO_MACHINE = "any machine", "what its filters let pass", "nothing: its filters are broken"
FITS = {ANY_MACHINE: "success", CHOSEN: "info", NO_MACHINE: "danger"}


@admin.register(Template)
class TemplateAdmin(ReadOnlyAdmin):
    list_display = ("name", "image", "provider", "asks_for", "hash_id", "synced_at")
    list_filter = ("provider",)
    search_fields = ("name", "hash_id", "image")
    ordering = ("name", "hash_id")
    list_before_template = "admin/templates_app/template/syncs.html"
    actions_list = ("sync_now",)
    fieldsets = (
        (None, {"fields": (
            ("name", "image"), "hash_id", ("tag", "runtype"), ("provider", "provider_id"),
            ("recommended_disk_space", "synced_at"), "extra_filters",
        )}),
        ("Start", {"classes": ("tab",), "fields": ("env", "onstart")}),
        ("The vendor's row", {"classes": ("tab",), "fields": ("raw",)}),
    )  # fmt: skip
    readonly_fields = ("tag", "runtype", "recommended_disk_space", "extra_filters", "env", "onstart")

    @display(description="runs on", label=FITS)
    def asks_for(self, template: Template) -> str:
        filters = compiled(template.raw.get("extra_filters"))
        return NO_MACHINE if filters.error else CHOSEN if filters.conditions else ANY_MACHINE

    @display(description="tag")
    def tag(self, template: Template) -> str:
        return str(selectors.shown(template)["tag"])

    @display(description="launch mode")
    def runtype(self, template: Template) -> str:
        return str(selectors.shown(template)["runtype"])

    @display(description="disk, GB")
    def recommended_disk_space(self, template: Template) -> str:
        return str(selectors.shown(template)["recommended_disk_space"])

    @display(description="environment")
    def env(self, template: Template) -> str:
        return str(selectors.shown(template)["env"])

    @display(description="start command")
    def onstart(self, template: Template) -> str:
        return str(selectors.shown(template)["onstart"])

    @display(description="filters")
    def extra_filters(self, template: Template) -> str:
        """Indented, and with what is wrong with them."""
        text = str(selectors.shown(template)["extra_filters"])
        with contextlib.suppress(ValueError):  # then it is shown as it is
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        problem = compiled(template.raw.get("extra_filters")).error
        return format_html(
            '<pre class="console-code" style="white-space: pre-wrap">{}</pre><p class="console-bad">{}</p>',
            text or "none: any machine", problem,
        )  # fmt: skip

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        syncs = TemplateSync.objects.order_by("provider")
        return super().changelist_view(request, {"syncs": syncs, **(extra_context or {})})

    @action(description="Sync now", url_path="sync", permissions=["operate"], icon="sync")
    def sync_now(self, request: HttpRequest) -> HttpResponse:
        page = confirm.asked(
            request,
            title="Fetch the templates of all providers now",
            lines=["They are fetched every 30 minutes anyway. Running sessions are not touched."],
            button="Sync now",
        )
        if page is not None:
            return page
        names = services.ask()
        audit.note(request, None, "asked for the templates of " + (", ".join(names) or "no provider"), "templates")
        told = "They are fetched within seconds." if names else "No configured provider has templates."
        self.message_user(request, told)
        return redirect(reverse("admin:templates_app_template_changelist"))


@admin.register(TemplateSync)
class TemplateSyncAdmin(ReadOnlyAdmin):
    list_display = ("provider", "last_success_at", "last_error", "next_sync_at")
    ordering = ("provider",)
