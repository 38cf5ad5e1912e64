"""The provider's bill against ours, for staff: fetch it now, and see what does not agree."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing import charges, matching
from billing.models import BillFinding, ChargeFetch
from gpubroker.common import clock, idempotency
from gpubroker.common.api import PageQuery, read_body, read_query
from gpubroker.common.errors import BadField
from gpubroker.common.idempotency import Answer
from gpubroker.common.schema import IDEMPOTENCY_KEY, errors, example, request_example
from sessions_app.documented import SESSION_ID
from sessions_app.provider_calls import known, lacking
from sessions_app.provider_changes import note
from sessions_app.provider_views import UNKNOWN, StaffView

_AT = "2026-01-30T00:05:00Z"
_FETCH = {
    "offered": True, "covered_from": "2025-12-31", "covered_until": _AT, "completed_at": _AT, "under_way": False,
    "error": "",
}  # fmt: skip
_FINDING = {
    "kind": "difference", "state": "open", "session_id": SESSION_ID, "instance_id": "20401337",
    "label": "gpb-k3vq7rma-abc234defghijk67-1", "ours": 0.92, "theirs": 0.98,
    "why": "6.1 % more than our books up to 2026-01-29T14:00:00Z", "first_seen_at": _AT, "last_seen_at": _AT,
    "decided_by": "", "decided_at": None,
}  # fmt: skip
EXAMPLE = {"provider": "vastai", "fetch": _FETCH, "findings": [_FINDING], "count": 1, "total": 1}
ASKED = {"message": "charges asked for", "provider": "vastai", "since": "2026-01-27"}


class FetchBody(serializers.Serializer[Any]):
    since = serializers.DateField(
        required=False, input_formats=["%Y-%m-%d"],
        help_text=f"First day, UTC; at most {charges.MOST_DAYS} days ago. Default: the days that may still change",
    )  # fmt: skip


class FetchAskedSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    provider = serializers.CharField()
    since = serializers.DateField()


class FindingParams(PageQuery):
    state = serializers.ChoiceField(required=False, choices=BillFinding.State.values)
    kind = serializers.ChoiceField(required=False, choices=BillFinding.Kind.values)


class ChargeFetchSchema(serializers.Serializer[Any]):
    offered = serializers.BooleanField(
        help_text="Off: this provider does not tell what it charges; nothing is compared"
    )
    covered_from = serializers.DateField(allow_null=True)
    covered_until = serializers.DateTimeField(allow_null=True)
    completed_at = serializers.DateTimeField(allow_null=True, help_text="When charges were last compared")
    under_way = serializers.BooleanField()
    error = serializers.CharField()


class BillFindingSchema(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(
        choices=BillFinding.Kind.values,
        help_text="difference: another amount than ours; unowned: a charge without a rental; missing: a rental without",
    )  # fmt: skip
    state = serializers.ChoiceField(
        choices=BillFinding.State.values, help_text="Decided in the admin; settled by itself"
    )
    session_id = serializers.CharField(allow_null=True)
    instance_id = serializers.CharField()
    ours = serializers.FloatField(help_text="Dollars for GPU and disk")
    theirs = serializers.FloatField(help_text="Over the same time, without traffic")
    why = serializers.CharField()
    first_seen_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField()
    decided_by = serializers.CharField()
    decided_at = serializers.DateTimeField(allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "label": serializers.CharField()}


class FindingsSchema(serializers.Serializer[Any]):
    provider = serializers.CharField()
    fetch = ChargeFetchSchema()
    findings = BillFindingSchema(many=True)
    count = serializers.IntegerField(help_text="In this answer")
    total = serializers.IntegerField(help_text="In all")


class FetchChargesView(StaffView):
    @extend_schema(
        operation_id="fetch_provider_charges", tags=["providers"], summary="Fetch a provider's charges now",
        request=FetchBody, parameters=[IDEMPOTENCY_KEY],
        responses={202: FetchAskedSchema, **errors(400, 404, 409, 501, _404=UNKNOWN, _501="tensordock has no charges")},
        examples=[request_example({"since": "2026-01-27"}), example(ASKED, status=202)],
    )  # fmt: skip
    def post(self, request: Request, provider: str) -> Response:
        """As every day by itself: day by day, a few seconds each, then compared with the books. `GET
        /providers/{provider}/findings` shows how far it is and what came of it."""
        since: date | None = read_body(FetchBody, request).get("since")
        if not charges.offered(known(provider)):
            raise lacking(provider, "charges")
        today = clock.now().date()
        if since is not None and not today - timedelta(days=charges.MOST_DAYS) <= since <= today:
            raise BadField("since", f"from {charges.MOST_DAYS} days ago to today, got {since}")

        def act() -> Answer:
            first = charges.ask(provider, since)
            note(request, provider, "charges asked for", since=first.isoformat())
            return Answer(202, {"message": "charges asked for", "provider": provider, "since": first.isoformat()})

        return idempotency.once(request, act)


class FindingsView(StaffView):
    @extend_schema(
        operation_id="provider_findings", tags=["providers"], summary="Where the provider's bill and our books differ",
        parameters=[FindingParams], responses={200: FindingsSchema, **errors(400, 404, _404=UNKNOWN)},
        examples=[example(EXAMPLE)],
    )  # fmt: skip
    def get(self, request: Request, provider: str) -> Response:
        """From the last comparison, the largest difference first; differences over 1 %, charges without a rental, and
        rentals without a charge. Nobody is asked."""
        params = read_query(FindingParams, request.query_params)
        account = known(provider)
        row = ChargeFetch.objects.filter(provider=provider).first()
        row = row or ChargeFetch(provider=provider, offered=charges.offered(account))
        rows = matching.findings(provider, params.get("state"), params.get("kind"))
        offset, limit = params.get("offset", 0), params.get("limit")
        page = [matching.shown(each) for each in rows[offset : offset + limit if limit else None]]
        body = {"provider": provider, "fetch": _fetch(row), "findings": page, "count": len(page), "total": len(rows)}
        return Response(body)


def _fetch(row: ChargeFetch) -> dict[str, Any]:
    return {
        "offered": row.offered,
        "covered_from": row.covered_from.isoformat() if row.covered_from else None,
        "covered_until": clock.iso(row.covered_until),
        "completed_at": clock.iso(row.completed_at),
        "under_way": row.day is not None,
        "error": row.error,
    }
