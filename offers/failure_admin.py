"""Failed attempts in the admin: one by one, and machine by machine."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from gpubroker.common.admin import ReadOnlyAdmin
from offers import failures
from offers.models import OfferFailure

#: Machines that the page shows, those that failed last first.
MOST_SHOWN = 200


@admin.register(OfferFailure)
class OfferFailureAdmin(ReadOnlyAdmin):
    list_display = ("at", "offer_id", "machine_id", "gpu_type", "reason", "message")
    list_filter = ("provider", "reason")
    search_fields = ("=offer_id", "=machine_id", "gpu_type")
    search_help_text = "Offer, machine or GPU type"
    ordering = ("-at",)

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(self.machines_view)
        return [path("machines/", page, name="offers_offerfailure_machines"), *super().get_urls()]

    def machines_view(self, request: HttpRequest) -> HttpResponse:
        """What is remembered of each machine, as ``GET /offer-health`` tells it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        told = failures.report()
        machines, gpu_types = told["machines"], told["gpu_types"]
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Failing machines",
            "machines": {"headers": MACHINES, "rows": [_machine(row) for row in machines[:MOST_SHOWN]]},
            "more": max(len(machines) - MOST_SHOWN, 0),
            "gpu_types": {"headers": GPU_TYPES, "rows": [_gpu_type(row) for row in gpu_types]},
        }
        return TemplateResponse(request, "admin/offers/offerfailure/machines.html", context)


MACHINES = [
    "Machine",
    "GPU",
    "Offers",
    "Failures, 30 min",
    "In all",
    "Last reason",
    "Last at",
    "Confidence",
    "Not sold until",
]
GPU_TYPES = ["GPU", "Provider", "Failed", "Attempts", "On machines", "Confidence"]


def _machine(row: dict[str, Any]) -> list[Any]:
    return [
        f"{row['provider']} {row['machine_id']}".strip(), row["gpu_type"], ", ".join(row["offers"]) or "none listed",
        row["failures_30_min"], row["failures"], row["last_reason"], _plain(row["last_failure_at"]),
        f"× {row['confidence_factor']}", _plain(row["suppressed_until"]) or "–",
    ]  # fmt: skip


def _gpu_type(row: dict[str, Any]) -> list[Any]:
    return [
        row["gpu_type"], row["provider"], row["failed"], row["attempts"], row["machines"],
        f"× {row['confidence_factor']}",
    ]  # fmt: skip


def _plain(moment: str | None) -> str:
    """A time of the API without its letters, which only make it wider."""
    return (moment or "").replace("T", " ").rstrip("Z")
