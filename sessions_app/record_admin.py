"""What happened and what was measured: events and samples, read-only."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from gpubroker.common.admin import ReadOnlyAdmin
from sessions_app.models import ActivitySample, Event

#: Of the newest events: their kinds are offered to filter by.
NEWEST = 5_000


class KindFilter(admin.SimpleListFilter):
    title, parameter_name = "kind", "kind"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        kinds = set(Event.objects.order_by("-id")[:NEWEST].values_list("kind", flat=True))
        chosen = request.GET.get("kind")
        return [(kind, kind.replace("_", " ")) for kind in sorted(kinds | ({chosen} if chosen else set()))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        value = self.value()
        return queryset.filter(kind=value) if value else queryset


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("at", "kind", "session_id", "from_state", "to_state", "reason", "actor")
    list_filter = (KindFilter,)
    list_fullwidth = True
    search_fields = ("session_id",)
    search_help_text = "Session id, or who did it (staff:name, consumer:name)"
    ordering = ("-id",)
    fields = ("at", "kind", "session", "rental", "from_state", "to_state", "reason", "actor", "details")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        return queryset.filter(**{"actor" if ":" in term else "session_id": term}), False

    @admin.display(description="session", ordering="session")
    def session_id(self, event: Event) -> str:
        return event.session_id or "-"


@admin.register(ActivitySample)
class ActivitySampleAdmin(ReadOnlyAdmin):
    list_display = ("at", "session_id", "source", "gpu_utilization", "memory_used_mb", "ssh_connections", "note")
    list_filter = ("source",)
    search_fields = ("=session__id",)
    search_help_text = "Session id"
    ordering = ("-id",)

    @admin.display(description="session", ordering="session")
    def session_id(self, sample: ActivitySample) -> str:
        return sample.session_id
