"""Reports over HTTP. Here and not in billing, because samples belong to sessions."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common import clock, principal
from gpubroker.common.api import PageQuery, read_query
from gpubroker.common.errors import BadField
from gpubroker.common.schema import errors, example
from sessions_app import usage
from sessions_app.cost_views import asked_period
from sessions_app.documented import SESSION_ID
from sessions_app.idle import BUSY_PERCENT

LONGEST_DAYS = 366
_ROW = {
    "session_id": SESSION_ID, "consumer_id": "my-application", "gpu_type": "RTX 4090", "gpu_count": 1,
    "status": "stopped", "cost": 0.94, "idle_cost": 0.235, "paid_hours": 2, "known_hours": 1.9, "idle_hours": 0.5,
    "idle_share": 0.25,
}  # fmt: skip
_TOTALS = {name: value for name, value in _ROW.items() if name.endswith(("cost", "hours", "share"))}
EXAMPLE = {
    "consumer_id": "my-application", "start": "2026-01-01T00:00:00Z", "end": "2026-01-30T08:00:00Z",
    "below_percent": 5, "group_by": "session", "totals": _TOTALS, "rows": [_ROW], "count": 1, "total": 1,
}  # fmt: skip


class WasteParams(PageQuery):
    consumer_id = serializers.CharField(required=False, max_length=128)
    start_date = serializers.DateField(required=False, input_formats=["%Y-%m-%d"], help_text="First day, UTC")
    end_date = serializers.DateField(required=False, input_formats=["%Y-%m-%d"], help_text="Last day, UTC, inclusive")
    group_by = serializers.ChoiceField(required=False, choices=usage.GROUPS, help_text="Default: session")


class WasteTotalsSchema(serializers.Serializer[Any]):
    cost = serializers.FloatField(help_text="Dollars for GPU and disk")
    idle_cost = serializers.FloatField(help_text="Of these, while every GPU was seen below the threshold")
    paid_hours = serializers.FloatField(help_text="In which a GPU was paid")
    known_hours = serializers.FloatField(help_text="Of these, what samples tell of; the rest counts as busy")
    idle_hours = serializers.FloatField()
    idle_share = serializers.FloatField(help_text="idle_cost / cost")


class WasteRowSchema(WasteTotalsSchema):
    """What it is about: by session all of it, else the consumer or the GPU type alone."""

    session_id = serializers.CharField(required=False)
    consumer_id = serializers.CharField(required=False)
    gpu_type = serializers.CharField(required=False)
    gpu_count = serializers.IntegerField(required=False)
    status = serializers.CharField(required=False)


class WasteSchema(serializers.Serializer[Any]):
    consumer_id = serializers.CharField(help_text="Empty: all consumers")
    start = serializers.DateTimeField()
    end = serializers.DateTimeField(help_text="Not later than now")
    below_percent = serializers.FloatField(help_text="Utilisation below which a GPU counts as idle")
    group_by = serializers.ChoiceField(choices=usage.GROUPS)
    totals = WasteTotalsSchema()
    rows = WasteRowSchema(many=True)
    count = serializers.IntegerField(help_text="In this answer")
    total = serializers.IntegerField(help_text="In all")


class IdleWasteView(APIView):
    @extend_schema(
        operation_id="idle_waste", tags=["costs"], summary="What was paid for idle GPUs", parameters=[WasteParams],
        responses={200: WasteSchema, **errors(400)}, examples=[example(EXAMPLE)],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """From the samples of running sessions: hours and dollars at less than 5 % utilisation, the most expensive
        first. No dates: this month. What no sample tells of counts as busy; `known_hours` says how much is told."""
        params = read_query(WasteParams, request.query_params)
        consumer = principal.of(request).narrowed(params.get("consumer_id"))
        period, now = asked_period(params), clock.now()
        if (period.end - period.start).days > LONGEST_DAYS:
            raise BadField("start_date", f"at most {LONGEST_DAYS} days at once")
        group_by = params.get("group_by", "session")
        found = usage.waste(period.start, period.end, consumer)
        rows = usage.grouped(found, group_by)
        offset, limit = params.get("offset", 0), params.get("limit")
        page = rows[offset : offset + limit if limit else None]
        return Response(
            {
                "consumer_id": consumer or "",
                "start": clock.iso(period.start),
                "end": clock.iso(max(min(period.end, now), period.start)),
                "below_percent": BUSY_PERCENT,
                "group_by": group_by,
                "totals": usage.total(found).shown(),
                "rows": page,
                "count": len(page),
                "total": len(rows),
            }
        )
