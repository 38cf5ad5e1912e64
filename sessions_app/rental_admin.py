"""Rentals in the console: every machine that may cost something, what is owed of it, and the proof that closed it."""

from __future__ import annotations

import json
from datetime import timedelta

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from gpubroker.common import clock, wording
from gpubroker.common.admin import ReadOnlyAdmin
from sessions_app import session_columns as columns
from sessions_app.models import Rental
from sessions_app.session_filters import ProviderFilter
from sessions_app.states import Debt

_DEBT = (
    "state_shown", "state_means", "origin", "session", "attempt", "provider", "label", "instance_id", "machine_id",
    "gpu_type", "price_asked", "price_actual", "failure", "failure_message", "failed_at", "last_error",
)  # fmt: skip
_END = (
    "owed_for", "destroy_requested_at", "destroy_answered_at", "destroy_taken", "destroy_attempts", "destroy_failures",
    "stop_requested_at", "stop_answered_at", "stop_attempts", "preserved_at", "preserve_until", "closed_at", "evidence",
)  # fmt: skip
_SEEN = (
    "created_at", "create_sent_at", "accepted_at", "unknown_since", "lookups", "phase", "status_message",
    "last_seen_at", "missing_listings", "ssh_endpoints", "ports", "gpu_from", "gpu_rate", "disk_rate", "door",
    "host_key", "keys_attached_at", "verify_from", "verify_failures", "key_checked_at", "key_repairs",
    "broker_public_key", "rebooted_at", "bid_wanted", "bid_wanted_by", "back_at", "paused_seconds", "next_check_at",
)  # fmt: skip


@admin.register(Rental)
class RentalAdmin(ReadOnlyAdmin):
    """Sealed or not, our key to the machine is nobody's reading: it stands in no field list."""

    list_display = ("which", "state_shown", "owed_for", "refusals", "last_error", "created_at", "closed_at")
    list_filter = ("state", ProviderFilter, "origin")
    list_fullwidth = True
    search_fields = ("label",)
    search_help_text = "Label, machine's id at the provider, or session id"
    ordering = ("-created_at",)
    fieldsets = (
        ("The debt", {"fields": _DEBT}),
        ("Its end", {"fields": _END}),
        ("As it was seen", {"fields": _SEEN}),
    )
    readonly_fields = ("state_shown", "state_means", "owed_for", "evidence")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Rental]:
        return super().get_queryset(request).defer("broker_key_sealed")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Rental], search_term: str
    ) -> tuple[QuerySet[Rental], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        return queryset.filter(Q(label=term) | Q(instance_id=term) | Q(session_id=term)), False

    @display(description="machine", ordering="label", header=True)
    def which(self, rental: Rental) -> tuple[str, str]:
        of = "an orphan, " if rental.origin == Rental.Origin.ORPHAN else ""
        return rental.label, f"{of}{rental.provider} {rental.instance_id or 'no machine yet'}"

    @admin.display(description="refused", ordering="destroy_failures")
    def refusals(self, rental: Rental) -> str:
        return str(rental.destroy_failures or "-")

    @display(description="state", ordering="state", label=columns.DEBT_TONES)
    def state_shown(self, rental: Rental) -> str:
        return rental.state

    @admin.display(description="that is")
    def state_means(self, rental: Rental) -> str:
        return Debt(rental.state).label

    @admin.display(description="destroy owed for")
    def owed_for(self, rental: Rental) -> str:
        if rental.state != Debt.DESTROYING or rental.destroy_requested_at is None:
            return "-"
        return wording.span(max(clock.now() - rental.destroy_requested_at, timedelta(0)))

    @admin.display(description="proof")
    def evidence(self, rental: Rental) -> str:
        return json.dumps(rental.proof, indent=1, ensure_ascii=False) if rental.proof else "none yet"
