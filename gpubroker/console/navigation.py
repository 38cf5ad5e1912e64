"""The sidebar: what this person may see, in the order in which somebody on call looks."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

#: Group -> title, icon, model (``app.model``) or name of a page, in order.
GROUPS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "Watch",
        (
            ("Start", "space_dashboard", "admin:index"),
            ("Review queue", "fact_check", "admin:review"),
            ("Runbook", "menu_book", "admin:runbook"),
        ),
    ),
    ("Sessions", (("Sessions", "terminal", "sessions_app.session"), ("Rentals", "dns", "sessions_app.rental"))),
    (
        "Marketplace",
        (
            ("Offers", "storefront", "offers.offer"),
            ("Offer failures", "heart_broken", "offers.offerfailure"),
            ("Inventory", "inventory_2", "offers.providerinventory"),
            ("Templates", "deployed_code", "templates_app.template"),
            ("Providers", "cloud", "admin:providers"),
            ("Provider watches", "visibility", "sessions_app.providerwatch"),
        ),
    ),
    (
        "Money",
        (
            ("Budgets", "savings", "billing.budget"),
            ("Ledger", "menu_book", "billing.ledgerrow"),
            ("Meter", "speed", "billing.metersegment"),
            ("Balances", "account_balance_wallet", "billing.providerbalance"),
            ("Charges", "receipt_long", "billing.providercharge"),
            ("Bill findings", "rule", "billing.billfinding"),
        ),
    ),
    (
        "Access",
        (
            ("Consumers", "groups", "billing.consumer"),
            ("API keys", "key", "billing.apikey"),
            ("Webhooks", "webhook", "billing.webhookendpoint"),
            ("Deliveries", "outbox", "billing.webhookdelivery"),
            ("Users", "person", "auth.user"),
            ("Roles", "badge", "auth.group"),
        ),
    ),
    (
        "Records",
        (
            ("Events", "history", "sessions_app.event"),
            ("Audit log", "policy", "admin.logentry"),
            ("Use of machines", "monitoring", "sessions_app.activitysample"),
            ("Fetch runs", "sync", "offers.fetchrun"),
            ("Idempotency keys", "fingerprint", "common.idempotencyrecord"),
            ("Breakers", "electrical_services", "common.providerbreaker"),
            ("Gates", "traffic", "common.providergate"),
        ),
    ),
)

#: What pages that belong to no model ask for; the login is all that others do.
PAGES = {
    "admin:review": "sessions_app.view_providerwatch",
    "admin:providers": "sessions_app.view_providerwatch",
}


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Groups and items as unfold draws them; an empty group is left out."""
    groups: list[dict[str, Any]] = []
    for title, entries in GROUPS:
        items = [_item(request, *entry) for entry in entries if _may_see(request, entry[2])]
        if items:
            groups.append({"title": title, "separator": bool(groups), "items": items})
    return groups


def _item(request: HttpRequest, title: str, icon: str, target: str) -> dict[str, Any]:
    link = _link(target)
    here = request.path == link if target == "admin:index" else request.path.startswith(link)
    return {"title": title, "icon": icon, "link": link, "active": here}


def _link(target: str) -> str:
    return reverse(target if ":" in target else f"admin:{target.replace('.', '_')}_changelist")


def _may_see(request: HttpRequest, target: str) -> bool:
    if ":" in target:
        return request.user.has_perm(PAGES[target]) if target in PAGES else True
    model = apps.get_model(target)
    return admin.site.is_registered(model) and admin.site.get_model_admin(model).has_view_permission(request)
