"""A session's machine over HTTP: its log, a reboot."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common import clock, idempotency, principal
from gpubroker.common.api import read_query
from gpubroker.common.idempotency import Answer
from gpubroker.common.schema import IDEMPOTENCY_KEY, errors, example
from sessions_app.documented import SESSION_ID
from sessions_app.machine import read_log, reboot
from sessions_app.provider_calls import patience

UNKNOWN = f"session {SESSION_ID} not found"
MOST_LINES, USUAL_LINES = 2000, 200


class LogQuery(serializers.Serializer[Any]):
    tail = serializers.IntegerField(
        required=False, min_value=1, max_value=MOST_LINES, default=USUAL_LINES, help_text="Most lines, from the end"
    )


class LogSchema(serializers.Serializer[Any]):
    session_id = serializers.CharField()
    lines = serializers.ListField(child=serializers.CharField(), help_text="Oldest first; empty lines are left out")
    count = serializers.IntegerField()
    truncated = serializers.BooleanField(help_text="There was more than fits")


class RebootSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    session_id = serializers.CharField()
    rebooted_at = serializers.DateTimeField()


class LogsView(APIView):
    @extend_schema(
        operation_id="session_logs", tags=["sessions"], summary="The log of a session's machine",
        parameters=[LogQuery],
        responses={
            200: LogSchema,
            **errors(400, 404, 409, 501, 502, 503, 504, _400=f"session {SESSION_ID} has no machine, it is stopped",
                     _404=UNKNOWN, _409="vastai log: Invalid instance id.",
                     _501="tensordock has no logs of machines"),
        },
        examples=[
            example({"session_id": SESSION_ID, "count": 2, "truncated": False,
                     "lines": ["status: running", "Starting OpenBSD Secure Shell server: sshd."]}),
        ],
    )  # fmt: skip
    def get(self, request: Request, session_id: str) -> Response:
        """As the provider keeps it, while it boots too, and 256 KB at most: the last lines. The session's agent token,
        and whatever else looks like a credential, is redacted."""
        tail = read_query(LogQuery, request.query_params)["tail"]
        return Response(read_log(session_id, tail, principal.of(request)))


class RebootView(APIView):
    @extend_schema(
        operation_id="reboot_session", tags=["sessions"], summary="Reboot a session's machine", request=None,
        parameters=[IDEMPOTENCY_KEY],
        responses={
            200: RebootSchema,
            **errors(400, 404, 409, 501, 502, 503, 504, _404=UNKNOWN,
                     _409=f"session {SESSION_ID} is provisioning; only a running one can be rebooted",
                     _501="tensordock has no reboot of machines"),
        },
        examples=[
            example({"message": "reboot asked for", "session_id": SESSION_ID, "rebooted_at": "2026-01-29T13:00:00Z"}),
        ],
    )  # fmt: skip
    def post(self, request: Request, session_id: str) -> Response:
        """The session goes on, with its disk, its keys and its bill; SSH is away for a while. A machine that does not
        come back within the time that a boot may take is lost, and the session ends as `provider_lost`."""
        who = principal.of(request)

        def act() -> Answer:
            at = clock.iso(reboot(session_id, who))
            return Answer(200, {"message": "reboot asked for", "session_id": session_id, "rebooted_at": at})

        return idempotency.claimed(request, act, timedelta(seconds=patience() + 30))
