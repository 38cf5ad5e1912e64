"""The month-end statement over HTTP."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import statements
from billing.models import Consumer
from gpubroker.common import clock, principal
from gpubroker.common.api import read_query
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.schema import errors, example

EXAMPLE_LINE = {
    "session_id": "sess-abc234defghijk67", "provider": "vastai", "gpu_type": "RTX 4090",
    "started_at": "2026-01-29T12:00:00Z", "ended_at": "2026-01-29T14:00:00Z", "hours_used": 1.985, "gpu_cost": 0.89325,
    "storage_cost": 0.027778, "bandwidth_cost": 0, "total_cost": 0.921028,
}  # fmt: skip
EXAMPLE = {
    "consumer_id": "my-application", "month": "2026-01", "until": "2026-02-01T00:00:00Z", "closed": True,
    "currency": "USD", "total_cost": 0.921028, "gpu_cost": 0.89325, "storage_cost": 0.027778, "bandwidth_cost": 0,
    "hours_used": 1.985, "session_count": 1, "sessions": [EXAMPLE_LINE],
}  # fmt: skip


class StatementParams(serializers.Serializer[Any]):
    month = serializers.RegexField(
        r"^20[0-9]{2}-(0[1-9]|1[0-2])$",
        required=False,
        help_text="`YYYY-MM`, from 2000-01 to 2099-12, UTC; default: this month",
    )


class StatementLineSchema(serializers.Serializer[Any]):
    session_id = serializers.CharField()
    provider = serializers.CharField(help_text="Several, comma-separated, where attempts were made elsewhere")
    gpu_type = serializers.CharField()
    started_at = serializers.DateTimeField(help_text="Within the month")
    ended_at = serializers.DateTimeField(allow_null=True, help_text="Within the month; null: it runs")
    hours_used = serializers.FloatField()
    gpu_cost = serializers.FloatField()
    storage_cost = serializers.FloatField()
    bandwidth_cost = serializers.FloatField()
    total_cost = serializers.FloatField(help_text="Exactly the sum of the three")


class StatementSchema(serializers.Serializer[Any]):
    consumer_id = serializers.CharField()
    month = serializers.CharField()
    until = serializers.DateTimeField(help_text="Counted up to then: the month's end, or now")
    closed = serializers.BooleanField(help_text="The month is over, and nothing of it runs any more")
    currency = serializers.CharField()
    total_cost = serializers.FloatField(help_text="Exactly the sum of the lines; what `GET /costs` says of this month")
    gpu_cost = serializers.FloatField()
    storage_cost = serializers.FloatField()
    bandwidth_cost = serializers.FloatField()
    hours_used = serializers.FloatField()
    session_count = serializers.IntegerField()
    sessions = StatementLineSchema(many=True)


class StatementView(APIView):
    @extend_schema(
        operation_id="get_statement", tags=["costs"], summary="What a consumer is billed for a month",
        parameters=[StatementParams],
        responses={200: StatementSchema, **errors(400, 404, _404="consumer my-application not found")},
        examples=[example(EXAMPLE)],
    )  # fmt: skip
    def get(self, request: Request, consumer: str) -> Response:
        """A line per session. Rounded once as a whole, so that lines and columns add up to the total to the last
        digit."""
        params = read_query(StatementParams, request.query_params)
        found = Consumer.objects.filter(name=consumer).first()
        if found is None or not principal.of(request).may_see(consumer):
            raise ApiError(404, f"consumer {consumer} not found", consumer_id=consumer)
        try:
            month = statements.month_named(params.get("month") or f"{clock.now():%Y-%m}")
        except ValueError as error:
            raise BadField("month", str(error)) from None
        return Response(statements.shown(statements.statement(found, month)))
