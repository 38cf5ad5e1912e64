"""Costs over HTTP. Here and not in billing, because only this app knows which sessions exist."""

from __future__ import annotations

from datetime import date
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import selectors as billing
from billing.models import MeterSegment
from billing.serializers import CostParams, CostSchema, SummaryParams
from gpubroker.common import clock, principal
from gpubroker.common.api import read_query
from gpubroker.common.errors import BadField
from gpubroker.common.money import as_number
from gpubroker.common.schema import errors, example
from sessions_app import documented
from sessions_app.services import found


def asked_period(params: dict[str, Any]) -> billing.Period:
    """No dates: the current month, UTC. One date alone: up to today, or from the first of its month."""
    now = clock.now()
    start: date | None = params.get("start_date")
    end: date | None = params.get("end_date")
    if start is None and end is None:
        return billing.days(now.date(), now.date()) if params.get("period") == "daily" else billing.month_of(now)
    end = end or max(now.date(), start or now.date())
    start = start or end.replace(day=1)
    if start > end:
        raise BadField("start_date", f"must not lie after end_date, got {start} and {end}")
    return billing.days(start, end)


class CostsView(APIView):
    @extend_schema(
        operation_id="get_costs", tags=["costs"], summary="What a session or a period cost", parameters=[CostParams],
        responses={200: CostSchema, **errors(400, 404, _404=f"session {documented.SESSION_ID} not found")},
        examples=[
            example(documented.COSTS, name="A period"),
            example(documented.COST_OF_SESSION, name="One session"),
        ],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """With `session_id` that session's cost, else a summary. A running session counts up to now. Dollars."""
        params = read_query(CostParams, request.query_params)
        who = principal.of(request)
        consumer = who.narrowed(params.get("consumer_id"))
        session_id = params.get("session_id")
        if session_id is None:
            costs = billing.of_period(asked_period(params), clock.now(), consumer)
            return Response({"consumer_id": consumer or "", **costs.shown()})
        session = found(session_id, who)
        costs = billing.of_session(session.id, clock.now())
        return Response(
            {
                "session_id": session.id,
                "total_cost": as_number(costs.total),
                "currency": "USD",
                "gpu_cost": as_number(costs.by_kind[MeterSegment.Kind.GPU]),
                "storage_cost": as_number(costs.by_kind[MeterSegment.Kind.DISK]),
                "hours_used": as_number(costs.gpu_hours),
            }
        )


class CostSummaryView(APIView):
    @extend_schema(
        operation_id="get_cost_summary", tags=["costs"], summary="What this month cost", parameters=[SummaryParams],
        responses={200: CostSchema, **errors(400)}, examples=[example(documented.COSTS)],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """The current month, UTC."""
        asked = read_query(SummaryParams, request.query_params).get("consumer_id")
        consumer = principal.of(request).narrowed(asked)
        now = clock.now()
        costs = billing.of_period(billing.month_of(now), now, consumer)
        return Response({"consumer_id": consumer or "", **costs.shown()})
