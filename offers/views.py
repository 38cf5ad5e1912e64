"""GET /api/v1/inventory/{id} and /offer-health. The inventory's list also knows templates, so it lives above:
sessions_app/catalog_views."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common.api import PageQuery, read_query
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.schema import errors, example
from offers import failures, selectors
from offers.models import Offer
from offers.serializers import EXAMPLE_HEALTH, EXAMPLE_OFFER, OfferDetailSchema, OfferHealthSchema, QuoteParams


def inventory_query(params: dict[str, object]) -> selectors.InventoryQuery:
    """``gpu_count`` is an alias of ``min_gpu_count``; given both, both must hold."""
    values = dict(params)
    counts = [values.pop("gpu_count", None), values.pop("min_gpu_count", None)]
    given = [count for count in counts if isinstance(count, int)]
    return selectors.InventoryQuery(**values, min_gpu_count=max(given) if given else None)  # type: ignore[arg-type]


def found(offer_id: str) -> Offer:
    """The offer, or the 404 that names it."""
    offer = selectors.one(offer_id)
    if offer is None:
        raise ApiError(404, f"offer {offer_id} not found", offer_id=offer_id)
    return offer


class OfferView(APIView):
    @extend_schema(
        operation_id="get_offer", tags=["inventory"], summary="One offer", parameters=[QuoteParams],
        responses={200: OfferDetailSchema, **errors(400, 404, _404="offer vastai-12345 not found")},
        examples=[
            example({**EXAMPLE_OFFER, "price_includes": ["gpu", "vcpu", "ram"], "quote": {
                "disk_gb": 200, "gpu_per_hour": 0.45, "storage_per_hour": 0.041667, "total_per_hour": 0.491667,
                "price_includes": ["gpu", "vcpu", "ram", "storage"],
            }}),
        ],
    )  # fmt: skip
    def get(self, request: Request, offer_id: str) -> Response:
        """One offer as its provider last listed it; with `disk_gb` also a `quote`: what an hour costs with that disk.
        404 as soon as the provider no longer lists it, and while its machine is suppressed after failures. `available`
        is false while its provider is in maintenance: then nothing is rented there."""
        params = read_query(QuoteParams, request.query_params)
        offer = found(offer_id)
        answer = selectors.detail(offer)
        if "disk_gb" in params:
            if offer.disk_gb is not None and params["disk_gb"] > offer.disk_gb:
                raise BadField("disk_gb", f"this offer has at most {int(offer.disk_gb)} GB, got {params['disk_gb']}")
            answer["quote"] = selectors.quote(offer, params["disk_gb"])
        return Response(answer)


class OfferHealthView(APIView):
    @extend_schema(
        operation_id="offer_health", tags=["inventory"], summary="Machines that failed lately", parameters=[PageQuery],
        responses={200: OfferHealthSchema, **errors(400)}, examples=[example(EXAMPLE_HEALTH)],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """What this broker's own failed attempts say of machines and GPU types. Each fresh failure halves a machine's
        part in `availability_confidence`, and is forgotten by half every 30 minutes. After three within 30 minutes its
        offers are not listed and not sold until 30 minutes after the last; weak reasons (`offer_gone`, `refused`,
        `create_lost`) count half. The latest failure comes first."""
        params = read_query(PageQuery, request.query_params)
        told = failures.report()
        offset, limit = params.get("offset", 0), params.get("limit")
        page = told["machines"][offset : offset + limit if limit else None]
        answer = {"machines": page, "gpu_types": told["gpu_types"], "count": len(page), "total": len(told["machines"])}
        return Response(answer)
