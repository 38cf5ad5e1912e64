"""Costs over HTTP. Here and not in billing, because only this app knows which sessions exist."""

from __future__ import annotations

from datetime import date
from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import cost_groups
from billing import selectors as billing
from billing.cost_serializers import MOST_LINES, CostParams, CostSchema, SummaryParams
from billing.models import MeterSegment
from billing.periods import ALL_TIME
from billing.remembered import memory
from gpubroker.common import clock, csvfile, principal
from gpubroker.common.api import read_query
from gpubroker.common.errors import BadField
from gpubroker.common.money import as_number
from gpubroker.common.schema import errors, example
from sessions_app import documented
from sessions_app.services import found

ANSWERS: dict[Any, Any] = {
    (200, "application/json"): CostSchema,
    (200, "text/csv"): OpenApiResponse(
        OpenApiTypes.STR, "With format=csv: a header and a line for each group",
        [OpenApiExample("A file", value=documented.COSTS_CSV, media_type="text/csv")],
    ),
}  # fmt: skip


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


class CostAPIView(APIView):
    """``format=csv`` says what the answer is to be; then ``Accept`` need not say it again, and refusals are JSON."""

    def perform_content_negotiation(self, request: Request, force: bool = False) -> tuple[BaseRenderer, str]:
        as_csv = request.query_params.get("format") == "csv"
        chosen: tuple[BaseRenderer, str] = super().perform_content_negotiation(request, force=force or as_csv)
        return chosen


def wants_groups(params: dict[str, Any]) -> bool:
    return "group_by" in params or params.get("format") == "csv"


def groups(
    params: dict[str, Any], period: billing.Period, consumer: str | None, session_id: str | None = None
) -> HttpResponseBase:
    """The costs of a period, one line per group, as JSON or as a file."""
    group_by = params.get("group_by", cost_groups.DAY)
    lines = cost_groups.grouped(group_by, period, clock.now(), consumer=consumer, session_id=session_id)
    whole = period == ALL_TIME
    first = None if whole else period.start.date()
    last = None if whole else period.last_day
    if params.get("format") == "csv":
        named = f"costs-by-{group_by}" if whole else f"costs-{first}-to-{last}-by-{group_by}"
        return csvfile.answer(
            named.replace("_", "-"), cost_groups.columns(group_by), cost_groups.shown(group_by, lines)
        )
    after, most = params.get("after"), params.get("limit", MOST_LINES)
    page = list(cost_groups.shown(group_by, lines, after=after, most=most))
    whose = {"consumer_id": consumer or ""} if session_id is None else {"session_id": session_id}
    return Response(
        {
            **whose,
            "group_by": group_by,
            "start_date": first.isoformat() if first else None,
            "end_date": last.isoformat() if last else None,
            "total_cost": as_number(cost_groups.total(lines)),
            "hours_used": as_number(cost_groups.total_hours(lines)),
            "count": len(page),
            "total": len(lines),
            "next": cost_groups.following(group_by, lines, page),
            "groups": page,
        }
    )


class CostsView(CostAPIView):
    @extend_schema(
        operation_id="get_costs", tags=["costs"], summary="What a session or a period cost", parameters=[CostParams],
        responses={**ANSWERS, **errors(400, 404, _404=f"session {documented.SESSION_ID} not found")},
        examples=[
            example(documented.COSTS, name="A period"),
            example(documented.COST_OF_SESSION, name="One session"),
            example(documented.COST_GROUPS, name="By day"),
        ],
    )  # fmt: skip
    def get(self, request: Request) -> HttpResponseBase:
        """With `session_id` that session's cost, else a summary. A running session counts up to now. Dollars. With
        `group_by`, or as CSV, one line per hour, day, session, GPU type, provider or consumer; a session's whole life
        where no dates are given."""
        params = read_query(CostParams, request.query_params)
        who = principal.of(request)
        consumer = who.narrowed(params.get("consumer_id"))
        session_id = params.get("session_id")
        if session_id is not None:
            session = found(session_id, who)
            if wants_groups(params):
                dated = params.keys() & {"start_date", "end_date", "period"}
                return groups(params, asked_period(params) if dated else ALL_TIME, None, session.id)
            return Response(cost_of_session(session.id))
        period = asked_period(params)
        if wants_groups(params):
            return groups(params, period, consumer)
        return Response({"consumer_id": consumer or "", **memory.of_period(period, clock.now(), consumer).shown()})


def cost_of_session(session_id: str) -> dict[str, Any]:
    costs = billing.of_session(session_id, clock.now())
    return {
        "session_id": session_id,
        "total_cost": as_number(costs.total),
        "currency": "USD",
        "gpu_cost": as_number(costs.by_kind[MeterSegment.Kind.GPU]),
        "storage_cost": as_number(costs.by_kind[MeterSegment.Kind.DISK]),
        "bandwidth_cost": as_number(costs.by_kind[MeterSegment.Kind.BANDWIDTH]),
        "failed_attempts_cost": as_number(costs.failed),
        "preserved_disk_cost": as_number(costs.preserved),
        "hours_used": as_number(costs.gpu_hours),
    }


class CostSummaryView(CostAPIView):
    @extend_schema(
        operation_id="get_cost_summary", tags=["costs"], summary="What this month cost", parameters=[SummaryParams],
        responses={**ANSWERS, **errors(400)},
        examples=[example(documented.COSTS, name="The month"), example(documented.COST_GROUPS, name="By day")],
    )  # fmt: skip
    def get(self, request: Request) -> HttpResponseBase:
        """The current month, UTC; with `group_by`, or as CSV, one line per group."""
        params = read_query(SummaryParams, request.query_params)
        consumer = principal.of(request).narrowed(params.get("consumer_id"))
        now = clock.now()
        period = billing.month_of(now)
        if wants_groups(params):
            return groups(params, period, consumer)
        return Response({"consumer_id": consumer or "", **memory.of_period(period, now, consumer).shown()})
