"""What is watched on a session: its samples of use, and staff's word on its hard maximum."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common import clock, idempotency, principal
from gpubroker.common.api import PageQuery, StrictCharField, read_body, read_query
from gpubroker.common.idempotency import Answer
from gpubroker.common.permissions import StaffOnly
from gpubroker.common.schema import IDEMPOTENCY_KEY, errors, example, request_example
from sessions_app import samples
from sessions_app.documented import SAMPLES, SESSION_ID
from sessions_app.hard_maximum import override
from sessions_app.models import ActivitySample
from sessions_app.services import found

UNKNOWN = f"session {SESSION_ID} not found"


class SampleSchema(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    # "source" is a word of serializers themselves, hence the override below.
    gpu_utilization = serializers.FloatField(allow_null=True, help_text="Per cent, the busiest GPU; null: unknown")
    memory_used_mb = serializers.IntegerField(allow_null=True)
    ssh_connections = serializers.IntegerField(allow_null=True, help_text="Besides the broker's; null: unknown")
    idle = serializers.BooleanField(help_text="Unknown counts as active")
    note = serializers.CharField(help_text="Why something is unknown")

    def get_fields(self) -> dict[str, Any]:
        own = super().get_fields()
        return {"at": own.pop("at"), "source": serializers.ChoiceField(choices=ActivitySample.Source.choices), **own}


class SampleListSchema(serializers.Serializer[Any]):
    session_id = serializers.CharField()
    idle_threshold_minutes = serializers.IntegerField(help_text="0: never ended for idleness")
    idle_since = serializers.DateTimeField(allow_null=True)
    warned_at = serializers.DateTimeField(allow_null=True)
    warns_at = serializers.DateTimeField(allow_null=True, help_text="If it stays idle; null where nothing follows")
    ends_at = serializers.DateTimeField(allow_null=True, help_text="If it stays idle; null where nothing follows")
    samples = SampleSchema(many=True)
    count = serializers.IntegerField()
    total = serializers.IntegerField()


class HardMaximumBody(serializers.Serializer[Any]):
    hard_max_at = serializers.DateTimeField(help_text="UTC unless it says otherwise")
    reason = StrictCharField(max_length=300, help_text="Kept with the session and in its events")


class HardMaximumSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    session_id = serializers.CharField()
    hard_max_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()


class SamplesView(APIView):
    @extend_schema(
        operation_id="session_samples", tags=["sessions"], summary="How much a machine was used",
        parameters=[PageQuery], responses={200: SampleListSchema, **errors(400, 404, _404=UNKNOWN)},
        examples=[example(SAMPLES)],
    )  # fmt: skip
    def get(self, request: Request, session_id: str) -> Response:
        """About an hour of samples, newest last, and what follows from them when: the evidence behind an end for
        idleness."""
        params = read_query(PageQuery, request.query_params)
        session = found(session_id, principal.of(request))
        rows = samples.of(session.id)
        offset, limit = params.get("offset", 0), params.get("limit")
        page = [samples.shown(row) for row in rows[offset : offset + limit if limit else None]]
        told = {"samples": page, "count": len(page), "total": rows.count()}
        return Response({"session_id": session.id, **samples.outlook(session), **told})


class HardMaximumView(APIView):
    permission_classes = [StaffOnly]

    @extend_schema(
        operation_id="set_hard_maximum", tags=["sessions"], summary="Move a session's hard maximum",
        request=HardMaximumBody, parameters=[IDEMPOTENCY_KEY],
        responses={
            200: HardMaximumSchema,
            **errors(400, 404, 409, _404=UNKNOWN,
                     _409=f"session {SESSION_ID} is stopping; its hard maximum cannot be moved"),
        },
        examples=[
            request_example({"hard_max_at": "2026-01-31T12:00:00Z", "reason": "A long training run, agreed with us"}),
            example({"message": "hard maximum set", "session_id": SESSION_ID, "hard_max_at": "2026-01-31T12:00:00Z",
                     "expires_at": "2026-01-29T14:00:00Z"}),
        ],
    )  # fmt: skip
    def post(self, request: Request, session_id: str) -> Response:
        """For staff. A later one lets the session be extended up to it; one before the reserved end cuts that short.
        At most 30 days after creation."""
        body, who = read_body(HardMaximumBody, request), principal.of(request)

        def act() -> Answer:
            session = override(session_id, body["hard_max_at"], body["reason"], who)
            told = {"hard_max_at": clock.iso(session.hard_max_at), "expires_at": clock.iso(session.expires_at)}
            return Answer(200, {"message": "hard maximum set", "session_id": session_id, **told})

        return idempotency.once(request, act)
