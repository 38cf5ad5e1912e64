from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from gpubroker.common.admin import ReadOnlyAdmin, ReadOnlyInline
from sessions_app import sweep, trust
from sessions_app.models import (
    ActivitySample,
    Event,
    ProviderWatch,
    Rental,
    SeenOrphan,
    Session,
)


class EventInline(ReadOnlyInline):
    model = Event
    fields = ("at", "kind", "from_state", "to_state", "reason", "actor")
    ordering = ("id",)
    show_change_link = False


class RentalInline(ReadOnlyInline):
    model = Rental
    fields = ("label", "state", "instance_id", "phase", "status_message", "last_error", "accepted_at", "closed_at")
    ordering = ("attempt",)


@admin.register(Session)
class SessionAdmin(ReadOnlyAdmin):
    list_display = (
        "id", "consumer", "status", "end_reason", "provider", "gpu_type", "gpu_count", "price_per_hour",
        "created_at", "expires_at",
    )  # fmt: skip
    list_filter = ("status", "provider", "end_reason", "gpu_type")
    list_select_related = ("consumer",)
    search_fields = ("id", "consumer__name", "offer_id")
    ordering = ("-created_at",)
    inlines = (RentalInline, EventInline)
    #: Sealed or not, a token is nobody's reading.
    exclude = ("agent_token_hash", "agent_token_sealed")


@admin.register(Rental)
class RentalAdmin(ReadOnlyAdmin):
    list_display = (
        "label", "state", "origin", "provider", "instance_id", "phase", "destroy_failures", "last_error",
        "created_at", "closed_at",
    )  # fmt: skip
    list_filter = ("state", "provider", "origin")
    search_fields = ("label", "instance_id", "session__id")
    ordering = ("-created_at",)
    #: Sealed or not, a key is nobody's reading.
    exclude = ("broker_key_sealed",)


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("at", "kind", "session", "from_state", "to_state", "reason", "actor")
    list_filter = ("kind", "to_state")
    list_select_related = ("session",)
    search_fields = ("session__id", "reason")
    ordering = ("-id",)


@admin.register(ActivitySample)
class ActivitySampleAdmin(ReadOnlyAdmin):
    list_display = ("at", "session", "gpu_utilization", "memory_used_mb", "ssh_connections")
    list_select_related = ("session",)
    search_fields = ("session__id",)
    ordering = ("-id",)


@admin.register(ProviderWatch)
class ProviderWatchAdmin(ReadOnlyAdmin):
    list_display = (
        "provider", "last_sweep_at", "next_sweep_at", "machines", "ours", "held_reason", "held_at",
        "failures_in_a_row", "last_error",
    )  # fmt: skip
    actions = ("sweep_now", "release")

    @admin.action(description="Sweep now")
    def sweep_now(self, request: HttpRequest, queryset: QuerySet[ProviderWatch]) -> None:
        names = [watch.provider for watch in queryset if sweep.ask(watch.provider)]
        self.message_user(request, f"A sweep begins within a second: {', '.join(names)}.")

    @admin.action(description="Let a held sweep end what it found")
    def release(self, request: HttpRequest, queryset: QuerySet[ProviderWatch]) -> None:
        actor = f"staff:{request.user.get_username()}"
        names = [watch.provider for watch in queryset if trust.release(watch.provider, actor)]
        if names:
            self.message_user(request, f"Released, and swept again at once: {', '.join(names)}.", messages.WARNING)
        else:
            self.message_user(request, "Nothing is held there; nothing was changed.")


@admin.register(SeenOrphan)
class SeenOrphanAdmin(ReadOnlyAdmin):
    list_display = ("provider", "instance_id", "label", "first_seen_at")
