"""Provider accounts as the sweep sees them, and machines there that are in no book of ours."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from gpubroker.common import audit, confirm, roles
from gpubroker.common.admin import ReadOnlyAdmin
from sessions_app import nudge, sweep, trust
from sessions_app.models import ProviderWatch, SeenOrphan, UnknownMachine


@admin.register(ProviderWatch)
class ProviderWatchAdmin(ReadOnlyAdmin):
    list_display = (
        "provider", "last_sweep_at", "next_sweep_at", "machines", "ours", "held_reason", "held_at",
        "failures_in_a_row", "last_error",
    )  # fmt: skip
    ordering = ("provider",)
    actions = ("sweep_now", "release")

    @admin.action(description="Sweep now", permissions=["operate"])
    def sweep_now(self, request: HttpRequest, queryset: QuerySet[ProviderWatch]) -> None:
        swept = [watch for watch in queryset if sweep.ask(watch.provider)]
        nudge.tick()
        for watch in swept:
            audit.note(request, watch, "Sweep asked for.")
        names = ", ".join(watch.provider for watch in swept)
        self.message_user(request, f"A sweep begins within a second: {names}.")

    @admin.action(description="Let a held sweep end what it found", permissions=["operate"])
    def release(self, request: HttpRequest, queryset: QuerySet[ProviderWatch]) -> HttpResponse | None:
        held = list(queryset.exclude(held_reason="").order_by("provider"))
        if not held:
            self.message_user(request, "Nothing is held there; nothing was changed.")
            return None
        names = " ".join(watch.provider for watch in held)
        page = confirm.asked(
            request, title=f"Let the sweep of {names} end what it found", button="Let it end what it found",
            lines=[f"{watch.provider}: {watch.held_reason}" for watch in held], typed=f"release {names}",
        )  # fmt: skip
        if page is not None:
            return page
        done = [watch for watch in held if trust.release(watch.provider, roles.actor(request))]
        for watch in done:
            audit.note(request, watch, f"Let the held sweep end what it found: {watch.held_reason}")
        told = ", ".join(watch.provider for watch in done)
        self.message_user(request, f"Released, and swept again at once: {told}.", messages.WARNING)
        return None


@admin.register(SeenOrphan)
class SeenOrphanAdmin(ReadOnlyAdmin):
    list_display = ("provider", "instance_id", "label", "first_seen_at", "decision", "decided_by", "decided_at")
    list_filter = ("provider", "decision")
    search_fields = ("instance_id", "label")
    ordering = ("first_seen_at", "id")


@admin.register(UnknownMachine)
class UnknownMachineAdmin(ReadOnlyAdmin):
    list_display = ("provider", "instance_id", "label", "first_seen_at", "known_by", "known_at")
    list_filter = ("provider", ("known_at", admin.EmptyFieldListFilter))
    search_fields = ("instance_id", "label")
    ordering = ("first_seen_at", "id")
