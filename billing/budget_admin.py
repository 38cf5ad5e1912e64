"""Budgets in the admin: a window. They are set by ``PUT /api/v1/budgets/{consumer}`` or ``gpubroker budget set``."""

from __future__ import annotations

from django.contrib import admin

from billing.budget_models import Budget, BudgetPeriod, Reservation
from gpubroker.common.admin import ReadOnlyAdmin, ReadOnlyInline
from gpubroker.common.money import from_micros


class PeriodInline(ReadOnlyInline):
    model = BudgetPeriod
    fields = readonly_fields = ("period", "limit", "settled", "held", "told_percent", "exhausted_at")
    ordering = ("-period",)

    @admin.display(description="limit")
    def limit(self, row: BudgetPeriod) -> str:
        return f"${from_micros(row.limit_micros)}"

    @admin.display(description="settled")
    def settled(self, row: BudgetPeriod) -> str:
        return f"${from_micros(row.settled_micros)}"

    @admin.display(description="held")
    def held(self, row: BudgetPeriod) -> str:
        return f"${from_micros(row.held_micros)}"


@admin.register(Budget)
class BudgetAdmin(ReadOnlyAdmin):
    list_display = ("consumer", "hard", "monthly_limit", "total_limit", "updated_at", "updated_by")
    list_filter = ("hard",)
    list_select_related = ("consumer",)
    search_fields = ("consumer__name",)
    inlines = (PeriodInline,)


@admin.register(Reservation)
class ReservationAdmin(ReadOnlyAdmin):
    list_display = ("session_id", "budget", "amount", "cost", "created_at", "changed_at", "released_at")
    list_filter = (("released_at", admin.EmptyFieldListFilter),)
    list_select_related = ("budget",)
    search_fields = ("session_id", "budget__consumer__name")
    ordering = ("-id",)
