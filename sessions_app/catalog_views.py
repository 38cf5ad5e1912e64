"""What needs both offers and templates, which do not know each other: the inventory list, and what fits an offer."""

from __future__ import annotations

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common import clock
from gpubroker.common.api import read_query
from gpubroker.common.errors import ApiError
from gpubroker.common.renderers import JSONRenderer
from gpubroker.common.schema import errors, example
from offers import selectors, snapshot
from offers.selectors import InventoryQuery
from offers.serializers import EXAMPLE_OFFER, InventoryParams, InventorySchema
from offers.snapshot import Snapshot
from offers.views import found, inventory_query
from templates_app import catalog
from templates_app import selectors as templates
from templates_app.serializers import CompatibleTemplatesSchema


def rendered_inventory(
    inventory: Snapshot, query: InventoryQuery, hash_id: str | None, template: catalog.Entry | None
) -> bytes:
    """The answer's bytes, printed once per inventory version, question and step of the offers' ageing."""
    now = clock.now()

    def render() -> bytes:
        fits = template.fits if template is not None else None
        answer = selectors.search(query, fits, inventory=inventory, now=now)
        if template is not None and template.filters.error:
            answer["filter_error"] = template.filters.error
        return JSONRenderer().render(answer)

    return inventory.rendered.get((inventory.step(now), query, hash_id), render)


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
        body = rendered_inventory(inventory, inventory_query(params), hash_id, template)
        return HttpResponse(body, content_type="application/json")


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
