"""The console's own pages under ``/admin/``, beside those of the models. Each is a view behind the admin's login."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, path

from gpubroker.console import budget_page, provider_page, review, runbook, template_offers


def urls() -> list[URLPattern]:
    """Called by the admin site once, when the paths are put together; names are reversed as ``admin:<name>``."""
    view = admin.site.admin_view
    return [
        path("review/", view(review.page), name="review"),
        path("billing/consumer/<int:pk>/budget/", view(budget_page.set_budget), name="set_budget"),
        path("billing/consumer/<int:pk>/budget/remove/", view(budget_page.remove_budget), name="remove_budget"),
        path("templates_app/template/<str:hash_id>/offers/", view(template_offers.page), name="template_offers"),
        path("runbook/", view(runbook.page), name="runbook"),
        path("providers/", view(provider_page.everybody), name="providers"),
        path("providers/<slug:name>/", view(provider_page.one), name="provider"),
    ]
