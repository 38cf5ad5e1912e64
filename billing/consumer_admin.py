"""Consumers in the admin: what they spend, what they may still spend, and their keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from billing import reports, services
from billing.budget_bars import Bars, bar, bars, monthly_and_total
from billing.models import ApiKey, Budget, Consumer
from billing.money_admin import StatementPages
from billing.periods import month_of
from gpubroker.common import audit, clock, confirm
from gpubroker.common.admin import ReadOnlyAdmin, ReadOnlyInline


class KeyInline(ReadOnlyInline):
    model = ApiKey
    verbose_name_plural = "API keys"
    fields = readonly_fields = ("prefix", "name", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
    ordering = ("-created_at",)


class BudgetFilter(admin.SimpleListFilter):
    title = "budget"
    parameter_name = "budget"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("hard", "Hard"), ("soft", "Soft"), ("none", "None")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Consumer]) -> QuerySet[Consumer]:
        if self.value() == "none":
            return queryset.filter(budget__isnull=True)
        if self.value() in ("hard", "soft"):
            return queryset.filter(budget__hard=self.value() == "hard")
        return queryset


def _working(now: datetime) -> Q:
    """Keys that work."""
    return Q(keys__revoked_at__isnull=True) & (Q(keys__expires_at__isnull=True) | Q(keys__expires_at__gt=now))


@admin.register(Consumer)
class ConsumerAdmin(StatementPages, ReadOnlyAdmin):
    list_display = ("name", "this_month", "budget_left", "working_keys", "created_at")
    list_filter = (BudgetFilter,)
    search_fields = ("name",)
    ordering = ("name",)
    inlines = (KeyInline,)
    fields = (("name", "created_at"),)
    actions = ("revoke_keys",)

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        found = super().get_changelist_instance(request)
        _reckon(list(found.result_list))
        return found

    @display(description="spent this month")
    def this_month(self, consumer: Any) -> str:
        return f"${consumer.spent:.2f}"

    @display(description="budget used", empty_value="no budget")
    def budget_left(self, consumer: Any) -> str | None:
        """The fuller of the two limits."""
        fullest: Bars | None = max(consumer.bars, key=lambda each: each.share, default=None)
        return None if fullest is None else bar(fullest)

    @display(description="working keys")
    def working_keys(self, consumer: Any) -> int:
        return int(consumer.working)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        consumer = Consumer.objects.filter(pk=object_id).first() if object_id.isdigit() else None
        more = {} if consumer is None else _money(consumer)
        may = {"may_money": self.has_money_permission(request), "may_access": self.has_access_permission(request)}
        return super().change_view(request, object_id, form_url, {**more, **may, **(extra_context or {})})

    @admin.action(description="Revoke all their keys: they can do nothing any more", permissions=["access"])
    def revoke_keys(self, request: HttpRequest, queryset: QuerySet[Consumer]) -> HttpResponse | None:
        keys = list(ApiKey.objects.filter(consumer__in=queryset, revoked_at__isnull=True).select_related("consumer"))
        if not keys:
            self.message_user(request, "None of them has a key that is not revoked.", messages.WARNING)
            return None
        counted = queryset.annotate(n=Count("keys", filter=Q(keys__revoked_at__isnull=True))).order_by("name")
        page = confirm.asked(
            request, title=f"Revoke all keys of {queryset.count()} consumers", button="Revoke",
            lines=[*(f"{consumer.name}: {consumer.n} keys" for consumer in counted), "What runs goes on to its end."],
            typed=f"revoke {len(keys)}",
        )  # fmt: skip
        if page is not None:
            return page
        by = f"admin:{request.user.get_username()}"[:160]
        for key in keys:
            services.revoke_key(key.prefix, by=by)
            audit.note(request, key, f"revoked the key, with all others of {key.consumer}")
        self.message_user(request, f"{len(keys)} keys are revoked; within five seconds they work nowhere.")
        return None


def _reckon(consumers: list[Any]) -> None:
    """Notes on each consumer what its line shows; four queries for a page of them."""
    now, ids = clock.now(), [consumer.pk for consumer in consumers]
    spent = reports.spend_by_consumer(ids, month_of(now))
    theirs = Budget.objects.filter(consumer__in=ids).prefetch_related("periods")
    budgets = {budget.consumer_id: budget for budget in theirs}
    working = dict(
        Consumer.objects.filter(pk__in=ids).order_by().values_list("pk").annotate(n=Count("keys", filter=_working(now)))
    )
    for consumer in consumers:
        budget = budgets.get(consumer.pk)
        consumer.spent, consumer.working = spent[consumer.pk], working.get(consumer.pk, 0)
        consumer.bars = [] if budget is None else bars(budget, now, consumer.spent)


def _money(consumer: Consumer) -> dict[str, Any]:
    now = clock.now()
    budget = Budget.objects.select_related("consumer").filter(consumer=consumer).first()
    month = month_of(now)
    return {
        "spent": reports.spend_by_consumer([consumer.pk], month)[consumer.pk],
        "month": month.start,
        "consumer_in_url": quote(consumer.name, safe=""),
        "budget": budget,
        "limits": [] if budget is None else monthly_and_total(budget, now),
    }
