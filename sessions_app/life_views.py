"""What happens to a session that is there: done, extend, diagnostics, events, heartbeat, rekey."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.budget_serializers import InsufficientBudgetSchema
from gpubroker.common import clock, idempotency, principal
from gpubroker.common.api import PageQuery, read_body, read_query, wait_budget
from gpubroker.common.idempotency import Answer
from gpubroker.common.permissions import Anyone
from gpubroker.common.schema import IDEMPOTENCY_KEY, KEY_REUSED, PREFER, errors, example, request_example
from sessions_app import documented, heartbeat, selectors, services
from sessions_app.diagnostics import diagnostics
from sessions_app.documented import SESSION_ID, refused
from sessions_app.extend import extend
from sessions_app.rekey import rekey
from sessions_app.serializers import (
    AttemptListSchema,
    DiagnosticsSchema,
    EventListSchema,
    ExtendBody,
    ExtendedSchema,
    HeartbeatBody,
    HeartbeatSchema,
    MessageSchema,
    RekeyBody,
    RekeyedSchema,
    TooLongSchema,
)

#: Longer than a rekey's calls to the provider can take together, beyond its wait budget.
REKEY_LEASE = timedelta(seconds=180)
UNKNOWN = f"session {SESSION_ID} not found"


class DoneView(APIView):
    @extend_schema(
        operation_id="session_done", tags=["sessions"], summary="The work is complete", request=None,
        parameters=[IDEMPOTENCY_KEY],
        responses={
            200: MessageSchema,
            **errors(400, 404, 409, _404=UNKNOWN, _409=f"session {SESSION_ID} is already stopped"),
        },
        examples=[example({"message": "session shutdown initiated", "session_id": SESSION_ID})],
    )  # fmt: skip
    def post(self, request: Request, session_id: str) -> Response:
        """Answers at once; the machine is destroyed meanwhile. Repeating it while it stops is harmless."""
        who = principal.of(request)

        def act() -> Answer:
            services.done(session_id, who)
            return Answer(200, {"message": "session shutdown initiated", "session_id": session_id})

        return idempotency.once(request, act)


class ExtendView(APIView):
    @extend_schema(
        operation_id="extend_session", tags=["sessions"], summary="Reserve more hours", request=ExtendBody,
        parameters=[IDEMPOTENCY_KEY],
        responses={
            200: ExtendedSchema,
            **refused(400, TooLongSchema, "additional_hours: the new end would be 2026-01-30T02:00:00Z; the latest "
                      "allowed end is 2026-01-30T00:00:00Z", field="additional_hours",
                      latest_expires_at="2026-01-30T00:00:00Z"),
            **refused(402, InsufficientBudgetSchema, ""),
            **errors(404, 409, _404=UNKNOWN, _409=f"session {SESSION_ID} is stopped and cannot be extended"),
        },
        examples=[
            request_example({"additional_hours": 2}),
            example({"message": "session extended", "session_id": SESSION_ID,
                     "new_expires_at": "2026-01-29T16:00:00Z"}),
        ],
    )  # fmt: skip
    def post(self, request: Request, session_id: str) -> Response:
        """Not beyond the hard maximum: the refusal names the latest allowed end. Nor beyond the budget."""
        hours, who = read_body(ExtendBody, request)["additional_hours"], principal.of(request)

        def act() -> Answer:
            until = clock.iso(extend(session_id, hours, who))
            return Answer(200, {"message": "session extended", "session_id": session_id, "new_expires_at": until})

        return idempotency.once(request, act)


class DiagnosticsView(APIView):
    @extend_schema(
        operation_id="session_diagnostics", tags=["sessions"], summary="How a running session is doing",
        responses={
            200: DiagnosticsSchema,
            **errors(400, 404, _400=f"session {SESSION_ID} is not running, it is provisioning", _404=UNKNOWN),
        },
        examples=[example(documented.DIAGNOSTICS)],
    )  # fmt: skip
    def get(self, request: Request, session_id: str) -> Response:
        """Only while it is running."""
        return Response(diagnostics(services.found(session_id, principal.of(request))))


class EventsView(APIView):
    @extend_schema(
        operation_id="session_events", tags=["sessions"], summary="What happened to a session",
        parameters=[PageQuery], responses={200: EventListSchema, **errors(400, 404, _404=UNKNOWN)},
        examples=[example(documented.EVENTS)],
    )  # fmt: skip
    def get(self, request: Request, session_id: str) -> Response:
        """The timeline, oldest first, with the proof that closed each rental."""
        params = read_query(PageQuery, request.query_params)
        session = services.found(session_id, principal.of(request))
        events = selectors.timeline(session.id)
        offset, limit = params.get("offset", 0), params.get("limit")
        page = [selectors.event_shown(event) for event in events[offset : offset + limit if limit else None]]
        return Response({"session_id": session.id, "events": page, "count": len(page), "total": events.count()})


class AttemptsView(APIView):
    @extend_schema(
        operation_id="session_attempts", tags=["sessions"], summary="Which offers a session was tried on",
        responses={200: AttemptListSchema, **errors(404, _404=UNKNOWN)}, examples=[example(documented.ATTEMPTS)],
    )  # fmt: skip
    def get(self, request: Request, session_id: str) -> Response:
        """Every attempt, the first one first. With `auto_retry` another follows a failed one, on another machine, once
        the failed machine is proved gone. What the attempts cost is in the costs."""
        return Response(selectors.attempts_of(services.found(session_id, principal.of(request))))


class HeartbeatView(APIView):
    # The token in the body is the credential, with API_AUTH=key too.
    authentication_classes = []
    permission_classes = [Anyone]

    @extend_schema(
        operation_id="session_heartbeat", tags=["agents"], summary="An agent tells of its machine", auth=[],
        request=HeartbeatBody, parameters=[IDEMPOTENCY_KEY],
        responses={200: HeartbeatSchema, **errors(400, 401, 409, _401=heartbeat.WRONG_TOKEN, _409=KEY_REUSED)},
        examples=[
            request_example({"agent_token": "...", "gpu_utilization": 87.5, "memory_used_mb": 20480,
                             "ssh_connections": 1}),
            example({"status": "running", "expires_at": "2026-01-29T14:00:00Z"}),
        ],
    )  # fmt: skip
    def post(self, request: Request, session_id: str) -> Response:
        """Needs no API key: the machine has `GPUBROKER_AGENT_TOKEN` and `GPUBROKER_SESSION_ID` in its environment. A
        session that is over has no valid token."""
        told = read_body(HeartbeatBody, request)
        token = told.pop("agent_token")

        def act() -> Answer:
            session = heartbeat.beat(session_id, token, heartbeat.Beat(**told))
            return Answer(200, {"status": session.status, "expires_at": clock.iso(session.expires_at)})

        # Whoever has another token asks under another name, and so learns nothing of this one's keys.
        return idempotency.once(request, act, scope=f"agent:{heartbeat.hashed(token)}")


class RekeyView(APIView):
    @extend_schema(
        operation_id="rekey_session", tags=["sessions"], summary="Another SSH key for a running machine",
        request=RekeyBody, parameters=[IDEMPOTENCY_KEY, PREFER],
        responses={
            200: RekeyedSchema,
            **errors(400, 404, 409, 503, _404=UNKNOWN,
                     _409=f"session {SESSION_ID} is stopping; only a running one can be rekeyed"),
        },
        examples=[
            request_example({"ssh_key_type": "ed25519"}),
            example({"message": "session rekeyed", "session_id": SESSION_ID,
                      "key_fingerprint": "SHA256:kPZ8nXb0cJXn3hRkq1nP0tqkq0m6bQe5v9o1q0b6J9E", "verified": True,
                      "old_key_removed": True, "ssh_private_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n..."}),
        ],
    )  # fmt: skip
    def post(self, request: Request, session_id: str) -> Response:
        """Installs the key given, or a new pair whose private half is returned once, and takes the old one off."""
        body, who = read_body(RekeyBody, request), principal.of(request)
        budget = wait_budget(request, settings.CREATE_WAIT_SECONDS)

        def act() -> Answer:
            new = rekey(session_id, body["ssh_public_key"], body["ssh_key_type"], budget, who)
            told = {
                "message": "session rekeyed", "session_id": new.session_id, "key_fingerprint": new.fingerprint,
                "verified": new.verified, "old_key_removed": new.old_key_removed,
            }  # fmt: skip
            return Answer(200, told, new.private_key)

        return idempotency.claimed(request, act, REKEY_LEASE)
