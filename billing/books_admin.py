"""What providers tell of their books, in the admin: balances, charges, and what does not agree with ours."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from billing import balance, charges, matching
from billing.models import BillFinding, ChargeFetch, ProviderBalance, ProviderCharge
from gpubroker.common import audit, clock, confirm, roles
from gpubroker.common.admin import ReadOnlyAdmin

#: Findings that a question names.
NAMED = 20
DECISIONS = {
    BillFinding.State.EXPLAINED: "They open again when the amounts drift apart by another 1 %.",
    BillFinding.State.IGNORED: "They stay ignored for good, whatever the provider charges.",
    BillFinding.State.OPEN: "They wait for a decision again.",
}


@admin.register(ProviderBalance)
class ProviderBalanceAdmin(ReadOnlyAdmin):
    list_display = ("provider", "state", "credit", "left", "burn_per_hour", "runway_hours", "read_at", "error")
    ordering = ("provider",)
    fields = (
        ("provider", "offered"), ("credit", "currency"), ("read_at", "next_read_at"), ("low_since", "low_credit"),
        ("failures_in_a_row", "error"),
    )  # fmt: skip
    actions = ("read_now",)

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        found = super().get_changelist_instance(request)
        standings = {account.provider: account for account in balance.standings()}
        for row in found.result_list:
            row.account = standings.get(row.provider)
        return found

    @display(description="left now")
    def left(self, row: Any) -> str:
        return "unknown" if row.account is None or row.account.left is None else f"{row.account.left:.2f}"

    @display(description="burnt per hour")
    def burn_per_hour(self, row: Any) -> str:
        return "unknown" if row.account is None else f"{row.account.burn_per_hour:.4f}"

    @display(description="runway, hours", empty_value="unknown, or nothing runs")
    def runway_hours(self, row: Any) -> str | None:
        hours = row.account.runway_hours if row.account is not None else None
        return None if hours is None else f"{hours:.1f}"

    @display(
        description="state",
        label={"good": "success", "low": "danger", "old": "warning", "unknown": "warning", "not told": ""},
    )
    def state(self, row: Any) -> str:
        if not row.offered:
            return "not told"
        if row.account is None or row.account.credit is None:
            return "unknown"
        return "low" if row.account.low else "good" if row.account.fresh else "old"

    @admin.action(description="Read now", permissions=["money"])
    def read_now(self, request: HttpRequest, queryset: QuerySet[ProviderBalance]) -> None:
        queryset.update(next_read_at=clock.now())
        for row in queryset:
            audit.note(request, row, "asked for the balance")
        self.message_user(request, "They are read within seconds.")


@admin.register(ChargeFetch)
class ChargeFetchAdmin(ReadOnlyAdmin):
    list_display = (
        "provider", "state", "covered_from", "covered_until", "completed_at", "day", "next_at", "error",
        "failures_in_a_row",
    )  # fmt: skip
    ordering = ("provider",)
    actions = ("fetch_now",)

    @display(
        description="state",
        label={"complete": "success", "fetching": "info", "failing": "danger", "waiting": "", "not told": ""},
    )
    def state(self, row: ChargeFetch) -> str:
        if not row.offered:
            return "not told"
        if row.failures_in_a_row:
            return "failing"
        if row.day is not None:
            return "fetching"
        return "complete" if row.completed_at is not None else "waiting"

    @admin.action(description="Fetch and compare now", permissions=["money"])
    def fetch_now(self, request: HttpRequest, queryset: QuerySet[ChargeFetch]) -> None:
        for row in queryset:
            charges.ask(row.provider)
            audit.note(request, row, "asked for the charges")
        self.message_user(request, "Fetched day by day; a few seconds each.")


@admin.register(ProviderCharge)
class ProviderChargeAdmin(ReadOnlyAdmin):
    list_display = (
        "source", "provider", "label", "starts_at", "ends_at", "amount", "traffic", "matched", "rental_id",
        "fetched_at",
    )  # fmt: skip
    list_filter = ("provider", ("rental_id", admin.EmptyFieldListFilter))
    search_fields = ("=source", "=label", "=rental_id", "=instance_id")
    search_help_text = "Source, label, machine or rental"
    ordering = ("-starts_at",)

    @display(description="ours", label={"matched": "success", "nobody's": "warning"})
    def matched(self, charge: ProviderCharge) -> str:
        return "nobody's" if charge.rental_id is None else "matched"


@admin.register(BillFinding)
class BillFindingAdmin(ReadOnlyAdmin):
    list_display = (
        "what", "provider", "status", "ours", "theirs", "gap", "why", "session_id", "instance_id", "label",
        "last_seen_at", "decided_by", "decided_at",
    )  # fmt: skip
    list_filter = ("state", "kind", "provider")
    search_fields = ("session_id", "instance_id", "label", "subject")
    search_help_text = "Session, machine, label or charge"
    ordering = ("-last_seen_at", "id")
    actions = ("explain", "ignore", "reopen")

    @display(
        description="kind", ordering="kind", label={"difference": "info", "unowned": "warning", "missing": "warning"}
    )
    def what(self, row: BillFinding) -> str:
        return row.kind

    @display(
        description="state", ordering="state",
        label={"open": "danger", "explained": "success", "ignored": "", "settled": "success"},
    )  # fmt: skip
    def status(self, row: BillFinding) -> str:
        return row.state

    @display(description="apart by")
    def gap(self, row: BillFinding) -> str:
        return f"${abs(row.ours - row.theirs):.4f}"

    @admin.action(description="Explained: open again only if it drifts further", permissions=["money"])
    def explain(self, request: HttpRequest, queryset: QuerySet[BillFinding]) -> HttpResponse | None:
        return self._decide(request, queryset, BillFinding.State.EXPLAINED)

    @admin.action(description="Ignore for good", permissions=["money"])
    def ignore(self, request: HttpRequest, queryset: QuerySet[BillFinding]) -> HttpResponse | None:
        return self._decide(request, queryset, BillFinding.State.IGNORED)

    @admin.action(description="Open again", permissions=["money"])
    def reopen(self, request: HttpRequest, queryset: QuerySet[BillFinding]) -> HttpResponse | None:
        return self._decide(request, queryset, BillFinding.State.OPEN)

    def _decide(
        self, request: HttpRequest, queryset: QuerySet[BillFinding], state: BillFinding.State
    ) -> HttpResponse | None:
        chosen = list(queryset)
        named = [f"{row.kind} at {row.provider}, {row.subject}: {row.why}" for row in chosen[:NAMED]]
        more = [f"and {len(chosen) - NAMED} more"] if len(chosen) > NAMED else []
        page = confirm.asked(
            request, title=f"Mark {len(chosen)} findings as {state.value}", lines=[*named, *more, DECISIONS[state]],
            button=f"Mark as {state.value}",
        )  # fmt: skip
        if page is not None:
            return page
        decided = 0
        for row in chosen:
            if matching.decide(row, state, roles.actor(request)):
                audit.note(request, row, f"marked it as {state.value}")
                decided += 1
        self.message_user(request, f"{decided} are {state.value} now; those that are settled stay as they are.")
        return None
