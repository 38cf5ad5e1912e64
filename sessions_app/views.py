"""Sessions over HTTP: parse, one service or selector call, answer."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common.api import read_body, read_query, wait_budget, wait_until
from gpubroker.common.errors import ApiError
from gpubroker.common.schema import ErrorSchema
from offers import snapshot
from sessions_app import selectors, services
from sessions_app.models import Session
from sessions_app.serializers import (
    CreateBody,
    CreatedSchema,
    ListParams,
    MessageSchema,
    SessionListSchema,
    SessionSchema,
    StaleInventorySchema,
)
from sessions_app.states import FAILURES, EndReason

#: Launch failures as (HTTP status, may the same request succeed later).
LAUNCH_FAILURES: dict[str, tuple[int, bool]] = {
    EndReason.REFUSED: (400, False),
    EndReason.NO_CREDIT: (503, False),
    EndReason.PROVIDER_AUTH: (503, False),
    EndReason.PROVIDER_UNAVAILABLE: (503, True),
    EndReason.CREATE_LOST: (503, True),
}


def launch_refusal(session: Session) -> ApiError:
    """The create failed for good: the seed's stale-inventory body, or what else the provider said."""
    if session.end_reason == EndReason.OFFER_GONE:
        snapshot.forget()
        return ApiError(
            503, "offer unavailable due to stale inventory", error_type="stale_inventory",
            offer_id=session.offer_id, provider=session.provider, retry_suggested=True,
            message="The selected offer is no longer available. Please refresh inventory and select a different offer.",
            session_id=session.id,
        )  # fmt: skip
    status, again = LAUNCH_FAILURES.get(session.end_reason, (503, True))
    return ApiError(
        status, f"the session could not be launched: {EndReason(session.end_reason).label}: {session.end_message}",
        error_type=session.end_reason, offer_id=session.offer_id, provider=session.provider,
        retry_suggested=again, session_id=session.id,
    )  # fmt: skip


class SessionsView(APIView):
    @extend_schema(
        operation_id="create_session", tags=["sessions"], request=CreateBody,
        responses={201: CreatedSchema, 400: ErrorSchema, 404: ErrorSchema, 409: ErrorSchema, 503: StaleInventorySchema},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Rent a machine. Waits for the provider's verdict (``Prefer: wait=N``); the work goes on without you."""
        new = services.create_session(services.Wish(**read_body(CreateBody, request)))
        session_id = new.session.id
        budget = wait_budget(request, settings.CREATE_WAIT_SECONDS)
        session = wait_until(lambda: selectors.left_pending(session_id), budget) or new.session
        if session.end_reason in FAILURES:
            raise launch_refusal(session)
        answer: dict[str, Any] = {"session": selectors.shown(session)}
        if new.private_key:
            answer["ssh_private_key"] = new.private_key
        return Response(answer, status=201, headers={"Location": f"/api/v1/sessions/{session_id}"})

    @extend_schema(
        operation_id="list_sessions", tags=["sessions"], parameters=[ListParams],
        responses={200: SessionListSchema, 400: ErrorSchema},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """Sessions, newest first."""
        params = read_query(ListParams, request.query_params)
        sessions = selectors.matching(params.get("consumer_id"), params.get("status"), params.get("provider"))
        offset, limit = params.get("offset", 0), params.get("limit")
        page = [selectors.shown(session) for session in sessions[offset : offset + limit if limit else None]]
        return Response({"sessions": page, "count": len(page), "total": sessions.count()})


class SessionView(APIView):
    @extend_schema(operation_id="get_session", tags=["sessions"], responses={200: SessionSchema, 404: ErrorSchema})
    def get(self, request: Request, session_id: str) -> Response:
        """One session."""
        return Response(selectors.shown(services.found(session_id)))

    @extend_schema(
        operation_id="destroy_session", tags=["sessions"],
        responses={200: MessageSchema, 202: MessageSchema, 404: ErrorSchema},
    )  # fmt: skip
    def delete(self, request: Request, session_id: str) -> Response:
        """Force destroy. 200 once the machine is proved gone; 202 while the proof takes longer."""
        services.destroy(session_id, actor="consumer")
        budget = wait_budget(request, settings.DESTROY_WAIT_SECONDS)
        if wait_until(lambda: selectors.finished(session_id), budget) is not None:
            return Response({"message": "session destroyed", "session_id": session_id})
        progress = {"message": "session destruction in progress", "session_id": session_id, "status": "stopping"}
        return Response(progress, status=202)


class DoneView(APIView):
    @extend_schema(
        operation_id="session_done", tags=["sessions"], request=None,
        responses={200: MessageSchema, 404: ErrorSchema, 409: ErrorSchema},
    )  # fmt: skip
    def post(self, request: Request, session_id: str) -> Response:
        """The work is complete: shut the session down. Answers at once."""
        services.done(session_id, actor="consumer")
        return Response({"message": "session shutdown initiated", "session_id": session_id})
