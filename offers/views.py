"""GET /api/v1/inventory and one offer."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common.api import read_query
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.schema import ErrorSchema
from offers import selectors
from offers.serializers import InventoryParams, InventorySchema, OfferDetailSchema, QuoteParams


def inventory_query(params: dict[str, object]) -> selectors.InventoryQuery:
    """``gpu_count`` is an alias of ``min_gpu_count``; given both, both must hold."""
    values = dict(params)
    counts = [values.pop("gpu_count", None), values.pop("min_gpu_count", None)]
    given = [count for count in counts if isinstance(count, int)]
    return selectors.InventoryQuery(**values, min_gpu_count=max(given) if given else None)  # type: ignore[arg-type]


class InventoryView(APIView):
    @extend_schema(
        operation_id="list_offers", tags=["inventory"], parameters=[InventoryParams],
        responses={200: InventorySchema, 400: ErrorSchema},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List what can be rented now, cheapest first."""
        return Response(selectors.search(inventory_query(read_query(InventoryParams, request.query_params))))


class OfferView(APIView):
    @extend_schema(
        operation_id="get_offer", tags=["inventory"], parameters=[QuoteParams],
        responses={200: OfferDetailSchema, 400: ErrorSchema, 404: ErrorSchema},
    )  # fmt: skip
    def get(self, request: Request, offer_id: str) -> Response:
        """One offer; with ``disk_gb`` also what an hour costs with that disk."""
        params = read_query(QuoteParams, request.query_params)
        offer = selectors.one(offer_id)
        if offer is None:
            raise ApiError(404, f"offer {offer_id} not found", offer_id=offer_id)
        answer = selectors.detail(offer)
        if "disk_gb" in params:
            if offer.disk_gb is not None and params["disk_gb"] > offer.disk_gb:
                raise BadField("disk_gb", f"this offer has at most {int(offer.disk_gb)} GB, got {params['disk_gb']}")
            answer["quote"] = selectors.quote(offer, params["disk_gb"])
        return Response(answer)
