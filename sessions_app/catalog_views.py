"""What needs both offers and templates, which do not know each other: the inventory list, and what fits an offer."""

from __future__ import annotations

from django.http import HttpResponse, HttpResponseNotModified
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common import clock
from gpubroker.common.api import read_query
from gpubroker.common.errors import ApiError
from gpubroker.common.schema import errors, example
from offers import pages, selectors, snapshot
from offers.pages import Page
from offers.selectors import InventoryQuery
from offers.serializers import EXAMPLE_OFFER, InventoryParams, InventorySchema
from offers.snapshot import Snapshot
from offers.views import found, inventory_query
from templates_app import catalog
from templates_app import selectors as templates
from templates_app.serializers import CompatibleTemplatesSchema


def rendered_inventory(
    inventory: Snapshot, query: InventoryQuery, hash_id: str | None, template: catalog.Entry | None
) -> Page:
    """The answer, printed once per inventory version, question and step of the offers' ageing."""
    now = clock.now()

    def render() -> Page:
        fits = template.fits if template is not None else None
        error = template.filters.error if template is not None else ""
        more = {"filter_error": error} if error else {}
        return Page(selectors.search(query, fits, inventory=inventory, now=now, more=more))

    return inventory.rendered.get(inventory.key(now, query, hash_id), render)


def over_the_wire(page: Page, request: Request) -> HttpResponse:
    """Compressed where the caller takes it, and 304 where the caller has it already."""
    headers = request.headers
    chosen = pages.choose(page, headers.get("Accept-Encoding", ""), headers.get("If-None-Match", ""))
    answer: HttpResponse = HttpResponseNotModified()
    if chosen.status == 200:
        answer = HttpResponse(chosen.body, content_type="application/json")
        if chosen.coding:
            answer["Content-Encoding"] = chosen.coding
    answer["ETag"] = chosen.etag
    answer["Vary"] = "Accept-Encoding"
    return answer


class InventoryView(APIView):
    @extend_schema(
        operation_id="list_offers", tags=["inventory"], summary="What can be rented now", parameters=[InventoryParams],
        responses={200: InventorySchema, **errors(400, 404, _404="template a8a44c7363cb not found")},
        examples=[example({"offers": [EXAMPLE_OFFER], "count": 1, "total": 150})],
    )  # fmt: skip
    def get(self, request: Request) -> HttpResponse:
        """Offers of all providers, cheapest first, then the surer, then by id. All filters hold together; `total`
        counts what matches, `count` what this page holds. With `template_hash_id`, only machines on which that
        template can run, by its `extra_filters`."""
        params = read_query(InventoryParams, request.query_params)
        hash_id = params.pop("template_hash_id", None)
        inventory = snapshot.current()
        template = None if hash_id is None else catalog.find(hash_id, inventory)
        if hash_id is not None and template is None:
            raise ApiError(404, f"template {hash_id} not found", template_hash_id=hash_id)
        query = inventory_query(params)
        if hash_id is None:
            # The layer in front of Django may repeat these headers (gpubroker/fast.py).
            request.META[pages.ASKED] = True
        return over_the_wire(rendered_inventory(inventory, query, hash_id, template), request)


class CompatibleTemplatesView(APIView):
    @extend_schema(
        operation_id="list_compatible_templates", tags=["templates"], summary="Templates that fit an offer",
        responses={200: CompatibleTemplatesSchema, **errors(404, _404="offer vastai-12345 not found")},
        examples=[example({
            "offer_id": "vastai-12345",
            "compatible_templates": [{
                "hash_id": "a8a44c7363cbca20056020397e3bf072", "name": "Ollama", "image": "vastai/ollama",
                "recommended_disk_space": 32,
            }],
            "count": 1,
        })],
    )  # fmt: skip
    def get(self, request: Request, offer_id: str) -> Response:
        """Launch templates that can run on this machine. Only Vast.ai has templates: for other providers' offers the
        list is empty."""
        offer = found(offer_id)
        fitting = templates.compatible(offer.provider, offer.raw, offer.fetched_at)
        return Response({"offer_id": offer.id, "compatible_templates": fitting, "count": len(fitting)})
