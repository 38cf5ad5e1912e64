"""The offers on which a launch template can run. Above both apps, which do not know each other."""

from __future__ import annotations

from typing import Any

import orjson
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html

from offers import selectors, snapshot
from offers.models import Offer
from offers.selectors import InventoryQuery
from templates_app import catalog
from templates_app import selectors as templates
from templates_app.models import Template

#: Offers of one page.
TOGETHER = 50
HEADERS = ["Offer", "GPU", "$ per hour", "Location", "Reliability", "Confidence"]


def page(request: HttpRequest, hash_id: str) -> HttpResponse:
    """Cheapest first, as ``GET /inventory?template_hash_id=`` lists them; ``?offset=`` goes on."""
    if not all(admin.site.get_model_admin(model).has_view_permission(request) for model in (Offer, Template)):
        raise PermissionDenied
    inventory = snapshot.current()
    template, entry = templates.one(hash_id), catalog.find(hash_id, inventory)
    if template is None or entry is None:
        raise Http404
    asked = request.GET.get("offset", "")
    offset = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 7 else 0
    query = InventoryQuery(limit=TOGETHER, offset=offset)
    found = orjson.loads(selectors.search(query, entry.fits, inventory=inventory))
    context = {
        **admin.site.each_context(request),
        "title": "Compatible offers",
        "opts": Template._meta,
        "original": template,
        "offers": {"headers": HEADERS, "rows": [_row(offer) for offer in found["offers"]]},
        "total": found["total"],
        "first": offset + 1,
        "last": offset + found["count"],
        "earlier": f"?offset={max(offset - TOGETHER, 0)}" if offset else None,
        "later": f"?offset={offset + TOGETHER}" if offset + found["count"] < found["total"] else None,
        "problem": entry.filters.error,
    }
    return TemplateResponse(request, "console/template_offers.html", context)


def _row(offer: dict[str, Any]) -> list[Any]:
    link = reverse("admin:offers_offer_change", args=[offer["id"]])
    return [
        format_html('<a class="text-link" href="{}">{}</a>', link, offer["id"]),
        f"{offer['gpu_count']} × {offer['gpu_type']}, {offer['vram_gb']} GB", f"{offer['price_per_hour']:.4f}",
        offer["location"], f"{offer['reliability']:.3f}", f"{offer['availability_confidence']:.2f}",
    ]  # fmt: skip
