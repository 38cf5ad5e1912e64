"""What providers tell of their books, in the admin: balances, charges, and what does not agree with ours."""

from __future__ import annotations

from decimal import Decimal

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from billing import balance, charges, matching
from billing.models import BillFinding, ChargeFetch, ProviderBalance, ProviderCharge
from gpubroker.common import clock
from gpubroker.common.admin import ReadOnlyAdmin


def _staff(request: HttpRequest) -> str:
    return f"staff:{request.user.get_username()}"[:160]


@admin.register(ProviderBalance)
class ProviderBalanceAdmin(ReadOnlyAdmin):
    list_display = (
        "provider", "credit", "currency", "read_at", "burn_per_hour", "runway_hours", "low_since", "offered", "error",
        "failures_in_a_row",
    )  # fmt: skip
    ordering = ("provider",)
    actions = ("read_now",)

    @admin.display(description="burnt per hour")
    def burn_per_hour(self, row: ProviderBalance) -> Decimal:
        return balance.burn(row.provider)

    @admin.display(description="runway, hours", empty_value="unknown, or nothing runs")
    def runway_hours(self, row: ProviderBalance) -> str | None:
        account = balance.standing(row.provider)
        hours = account.runway_hours if account is not None else None
        return None if hours is None else f"{hours:.1f}"

    def has_manage_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_providerbalance")

    @admin.action(description="Read now", permissions=["manage"])
    def read_now(self, request: HttpRequest, queryset: QuerySet[ProviderBalance]) -> None:
        queryset.update(next_read_at=clock.now())
        self.message_user(request, "They are read within seconds.")


@admin.register(ChargeFetch)
class ChargeFetchAdmin(ReadOnlyAdmin):
    list_display = (
        "provider", "offered", "covered_from", "covered_until", "completed_at", "day", "next_at", "error",
        "failures_in_a_row",
    )  # fmt: skip
    ordering = ("provider",)
    actions = ("fetch_now",)

    def has_manage_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_chargefetch")

    @admin.action(description="Fetch and compare now", permissions=["manage"])
    def fetch_now(self, request: HttpRequest, queryset: QuerySet[ChargeFetch]) -> None:
        for row in queryset:
            charges.ask(row.provider)
            self.log_change(request, row, "asked for")
        self.message_user(request, "Fetched day by day; a few seconds each.")


@admin.register(ProviderCharge)
class ProviderChargeAdmin(ReadOnlyAdmin):
    list_display = (
        "provider", "source", "label", "starts_at", "ends_at", "amount", "traffic", "rental_id", "fetched_at",
    )  # fmt: skip
    list_filter = ("provider", ("rental_id", admin.EmptyFieldListFilter))
    search_fields = ("source", "label", "=rental_id")
    ordering = ("-starts_at",)


@admin.register(BillFinding)
class BillFindingAdmin(ReadOnlyAdmin):
    list_display = (
        "kind", "provider", "state", "ours", "theirs", "why", "session_id", "instance_id", "label", "last_seen_at",
        "decided_by", "decided_at",
    )  # fmt: skip
    list_filter = ("state", "kind", "provider")
    search_fields = ("session_id", "instance_id", "label", "subject")
    ordering = ("-last_seen_at", "id")
    actions = ("explain", "ignore", "reopen")

    def has_manage_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_billfinding")

    @admin.action(description="Explained: open again only if it drifts further", permissions=["manage"])
    def explain(self, request: HttpRequest, queryset: QuerySet[BillFinding]) -> None:
        self._decide(request, queryset, BillFinding.State.EXPLAINED)

    @admin.action(description="Ignore for good", permissions=["manage"])
    def ignore(self, request: HttpRequest, queryset: QuerySet[BillFinding]) -> None:
        self._decide(request, queryset, BillFinding.State.IGNORED)

    @admin.action(description="Open again", permissions=["manage"])
    def reopen(self, request: HttpRequest, queryset: QuerySet[BillFinding]) -> None:
        self._decide(request, queryset, BillFinding.State.OPEN)

    def _decide(self, request: HttpRequest, queryset: QuerySet[BillFinding], state: BillFinding.State) -> None:
        decided = 0
        for row in queryset:
            if matching.decide(row, state, _staff(request)):
                self.log_change(request, row, state.value)
                decided += 1
        self.message_user(request, f"{decided} are {state.value} now; those that are settled stay as they are.")
