"""The inventory in the admin: what can be rented, what it cost before, and which machines fail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.decorators import display

from gpubroker.common import clock
from gpubroker.common.admin import ReadOnlyAdmin
from offers import failure_admin as failure_admin
from offers import failures, prices
from offers.health import machine_key, suppressed_until
from offers.listed import confidence
from offers.models import FetchRun, Offer, ProviderInventory

#: Failures and price changes that an offer's page lists.
LISTED = 20
#: Dollars an hour: the upper ends of the filter's ranges.
PRICES = ("0.25", "0.50", "1", "2", "5")


class ListedFilter(admin.SimpleListFilter):
    """Listed now, unless something else is chosen: offers that are gone stay for ever."""

    title = "availability"
    parameter_name = "listed"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("withdrawn", "Withdrawn"), ("all", "All")]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        shown = [(None, "Listed now"), *self.lookup_choices]
        for value, words in shown:
            query = changelist.get_query_string({self.parameter_name: value}) if value else None
            yield {
                "selected": self.value() == value,
                "query_string": query or changelist.get_query_string(remove=[self.parameter_name]),
                "display": words,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Offer]) -> QuerySet[Offer]:
        if self.value() == "all":
            return queryset
        return queryset.filter(withdrawn_at__isnull=self.value() != "withdrawn")


class GpuFilter(admin.SimpleListFilter):
    """The GPU types that are listed now; of all offers ever seen nobody wants the names."""

    title = "GPU type"
    parameter_name = "gpu"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = Offer.objects.filter(withdrawn_at__isnull=True).order_by("gpu_key")
        return list(rows.values_list("gpu_key", "gpu_type").distinct())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Offer]) -> QuerySet[Offer]:
        return queryset if self.value() is None else queryset.filter(gpu_key=self.value())


class PriceFilter(admin.SimpleListFilter):
    title = "price per hour"
    parameter_name = "price"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        up_to = [(price, f"up to ${price}") for price in PRICES]
        return [*up_to, ("more", f"over ${PRICES[-1]}")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Offer]) -> QuerySet[Offer]:
        if self.value() == "more":
            return queryset.filter(price_per_hour__gt=Decimal(PRICES[-1]))
        if self.value() in PRICES:
            return queryset.filter(price_per_hour__lte=Decimal(str(self.value())))
        return queryset


@admin.register(Offer)
class OfferAdmin(ReadOnlyAdmin):
    list_display = ("id", "gpu", "price", "location", "reliability", "confidence", "failed", "standing")
    list_filter = (ListedFilter, "provider", GpuFilter, PriceFilter, "verified")
    search_fields = ("id", "gpu_type", "location", "=machine_id", "=host_id")
    search_help_text = "Offer, GPU type, location, machine or host"
    ordering = ("price_per_hour", "id")
    fieldsets = (
        (None, {"fields": (
            ("id", "provider"), ("gpu_type", "gpu_count"), ("vram_gb", "gpu_name_raw"),
            ("price_per_hour", "storage_price_per_gb_month"), ("interruptible", "min_bid_per_hour"),
            ("location", "datacenter"), ("reliability", "verified"), ("max_duration_hours", "cuda_version"),
        )}),
        ("Machine", {"classes": ("tab",), "fields": (
            ("machine_id", "host_id"), ("cpu_cores", "ram_gb"), ("disk_gb", "compute_capability"),
            ("inet_down_mbps", "inet_up_mbps"),
        )}),
        ("Freshness", {"classes": ("tab",), "fields": (
            ("first_seen_at", "fetched_at"), ("withdrawn_at", "withdrawn_reason"),
        )}),
        ("The vendor's row", {"classes": ("tab",), "fields": ("raw",)}),
    )  # fmt: skip

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        found = super().get_changelist_instance(request)
        _judge(found.result_list)
        return found

    def get_queryset(self, request: HttpRequest) -> QuerySet[Offer]:
        # The vendors' rows weigh more than all the rest; a page of one offer loads its own.
        rows: QuerySet[Offer] = super().get_queryset(request).defer("raw")
        return rows

    @display(description="GPU", ordering="gpu_key")
    def gpu(self, offer: Offer) -> str:
        words = f"{offer.gpu_count} × {offer.gpu_type}, {offer.vram_gb} GB"
        return format_html('<span class="whitespace-nowrap">{}</span>', words)

    @display(description="$ per hour", ordering="price_per_hour")
    def price(self, offer: Offer) -> str:
        return f"{offer.price_per_hour:.4f}"

    @display(description="confidence")
    def confidence(self, offer: Any) -> str:
        return f"{offer.sure:.2f}"

    @display(description="failures")
    def failed(self, offer: Any) -> int:
        return int(offer.failures)

    @display(description="state", label={"listed": "success", "not sold": "warning", "withdrawn": ""})
    def standing(self, offer: Any) -> str:
        if offer.withdrawn_at is not None:
            return "withdrawn"
        return "not sold" if offer.suppressed else "listed"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        offer = Offer.objects.filter(pk=object_id).first()
        more = {} if offer is None else _past(offer)
        return super().change_view(request, object_id, form_url, {**more, **(extra_context or {})})


def _judge(offers: Any) -> None:
    """Notes on each offer what is thought of its machine; three queries for a page of them."""
    now, failed, known = clock.now(), failures.counts(offers), failures.remembered()
    health = known.at(now)
    for offer in offers:
        machine = machine_key(offer.provider, offer.machine_id, offer.id)
        offer.suppressed = machine in health.suppressed
        factor = health.factor(machine, offer.provider, offer.gpu_type)
        offer.sure = 0 if offer.suppressed or not offer.available else confidence(offer.fetched_at, now, factor)
        offer.failures = failed.get(machine, 0)


def _past(offer: Offer) -> dict[str, Any]:
    """Prices and failures, for the offer's page."""
    found, now = prices.history(offer), clock.now()
    rows = list(failures.of_machine(offer)[: LISTED + 1])
    known = failures.remembered()
    machine = machine_key(offer.provider, offer.machine_id, offer.id)
    factor = known.at(now).factor(machine, offer.provider, offer.gpu_type)
    until = suppressed_until(known.by_machine().get(machine, ()))
    return {
        "history": found,
        "picture": prices.picture(found),
        "changes": _table(
            ("When", "From", "To", "By"),
            [
                (_when(row.at), f"${row.before:.4f}", f"${row.price_per_hour:.4f}", _share(row))
                for row in found.changes[:LISTED]
            ],
        ),
        "failed": _table(
            ("When", "Offer", "Reason", "What the provider said"),
            [(_when(row.at), row.offer_id, row.reason, row.message or "–") for row in rows[:LISTED]],
        ),
        "failed_more": len(rows) > LISTED,
        "factor": factor,
        "sure": confidence(offer.fetched_at, now, factor) if offer.available else 0,
        "suppressed_until": until if until is not None and until > now else None,
    }


def _table(headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> dict[str, Any]:
    """As the theme's table component takes it."""
    return {"headers": list(headers), "rows": rows}


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _share(change: Any) -> str:
    if not change.before:
        return "–"
    return f"{(change.price_per_hour - change.before) / change.before:+.1%}"


@admin.register(ProviderInventory)
class ProviderInventoryAdmin(ReadOnlyAdmin):
    list_display = (
        "provider", "offer_count", "version", "last_success_at", "failures_in_a_row", "last_error", "next_fetch_at",
    )  # fmt: skip
    ordering = ("provider",)


@admin.register(FetchRun)
class FetchRunAdmin(ReadOnlyAdmin):
    list_display = ("provider", "started_at", "came_to", "listed", "added", "changed", "withdrawn", "error")
    list_filter = ("provider", "outcome")
    ordering = ("-started_at",)

    @display(description="outcome", label={"applied": "success", "refused": "warning", "failed": "danger"})
    def came_to(self, run: FetchRun) -> str:
        return run.outcome
