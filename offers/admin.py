from django.contrib import admin

from gpubroker.common.admin import ReadOnlyAdmin
from offers.models import FetchRun, Offer, OfferFailure, ProviderInventory


@admin.register(Offer)
class OfferAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "gpu_type",
        "gpu_count",
        "vram_gb",
        "price_per_hour",
        "location",
        "verified",
        "available_now",
        "fetched_at",
    )
    list_filter = ("provider", ("withdrawn_at", admin.EmptyFieldListFilter), "verified", "gpu_type")
    search_fields = ("id", "gpu_type", "location", "machine_id")
    ordering = ("price_per_hour", "id")

    @admin.display(boolean=True, description="available")
    def available_now(self, offer: Offer) -> bool:
        return offer.available


@admin.register(ProviderInventory)
class ProviderInventoryAdmin(ReadOnlyAdmin):
    list_display = (
        "provider",
        "offer_count",
        "version",
        "last_success_at",
        "failures_in_a_row",
        "last_error",
        "next_fetch_at",
    )


@admin.register(FetchRun)
class FetchRunAdmin(ReadOnlyAdmin):
    list_display = ("provider", "started_at", "outcome", "listed", "added", "changed", "withdrawn", "error")
    list_filter = ("provider", "outcome")
    ordering = ("-started_at",)


@admin.register(OfferFailure)
class OfferFailureAdmin(ReadOnlyAdmin):
    list_display = ("at", "offer_id", "machine_id", "gpu_type", "reason", "message")
    list_filter = ("provider", "reason", "gpu_type")
    search_fields = ("offer_id", "machine_id")
    ordering = ("-at",)
