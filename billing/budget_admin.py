"""Budgets in the admin: a window. They are set on the consumer's page, by ``PUT /api/v1/budgets/{consumer}`` or
``gpubroker budget set``."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from billing.budget_bars import Bars, bar, bars, monthly_and_total
from billing.budget_models import Budget, BudgetPeriod, Reservation
from billing.budget_parts import TOTAL
from gpubroker.common import clock
from gpubroker.common.admin import ReadOnlyAdmin, ReadOnlyInline
from gpubroker.common.money import from_micros


class PeriodInline(ReadOnlyInline):
    model = BudgetPeriod
    verbose_name_plural = "counters"
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
    list_display = ("consumer", "mode", "month", "all_time", "updated_at", "updated_by")
    list_filter = ("hard",)
    list_select_related = ("consumer",)
    search_fields = ("consumer__name",)
    ordering = ("consumer__name",)
    fields = (
        ("consumer", "mode"), ("monthly_limit", "total_limit"), ("thresholds", "next_check_at"),
        ("updated_at", "updated_by"),
    )  # fmt: skip
    readonly_fields = ("mode",)
    inlines = (PeriodInline,)

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        found = super().get_changelist_instance(request)
        now, ids = clock.now(), [budget.pk for budget in found.result_list]
        counted = {budget.pk: budget for budget in Budget.objects.filter(pk__in=ids).prefetch_related("periods")}
        for budget in found.result_list:
            budget.bars = bars(counted[budget.pk], now) if budget.pk in counted else []
        return found

    @display(description="mode", label={"hard": "info", "soft": ""})
    def mode(self, budget: Budget) -> str:
        return "hard" if budget.hard else "soft"

    @display(description="this month", empty_value="no limit")
    def month(self, budget: Any) -> str | None:
        return _bar(budget.bars, total=False)

    @display(description="all time", empty_value="no limit")
    def all_time(self, budget: Any) -> str | None:
        return _bar(budget.bars, total=True)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        known = Budget.objects.select_related("consumer").filter(pk=object_id) if object_id.isdigit() else None
        budget = known.first() if known is not None else None
        more = {} if budget is None else {"limits": monthly_and_total(budget, clock.now())}
        return super().change_view(request, object_id, form_url, {**more, **(extra_context or {})})


def _bar(found: list[Bars], *, total: bool) -> str | None:
    one = next((each for each in found if (each.period == TOTAL) is total), None)
    return None if one is None else bar(one)


@admin.register(Reservation)
class ReservationAdmin(ReadOnlyAdmin):
    list_display = ("session_id", "consumer", "amount", "cost", "state", "created_at", "changed_at", "released_at")
    list_filter = (("released_at", admin.EmptyFieldListFilter),)
    list_select_related = ("budget__consumer",)
    search_fields = ("session_id", "budget__consumer__name")
    ordering = ("-id",)

    @display(description="consumer", ordering="budget__consumer__name")
    def consumer(self, row: Reservation) -> str:
        return row.budget.consumer.name

    @display(description="state", label={"held": "info", "released": ""})
    def state(self, row: Reservation) -> str:
        return "held" if row.released_at is None else "released"
