"""Sessions over HTTP: parse, one service or selector call, answer. What happens to one later: :mod:`life_views`."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.budget_serializers import InsufficientBudgetSchema
from gpubroker.common import idempotency, principal
from gpubroker.common.api import read_body, read_query, wait_budget, wait_until
from gpubroker.common.schema import IDEMPOTENCY_KEY, KEY_REUSED, PREFER, errors, example, request_example
from sessions_app import creation, documented, pages, selectors, services
from sessions_app.documented import SESSION_ID, refused
from sessions_app.estimate import estimate
from sessions_app.planning import Wish
from sessions_app.serializers import (
    CreateBody,
    CreatedSchema,
    EstimateSchema,
    InsufficientDiskSchema,
    LaunchErrorSchema,
    ListParams,
    MessageSchema,
    SessionListSchema,
    SessionSchema,
)
from sessions_app.shown import printed

UNKNOWN_OFFER = "offer vastai-12345 not found"
UNKNOWN_SESSION = f"session {SESSION_ID} not found"
INSUFFICIENT_BUDGET = refused(402, InsufficientBudgetSchema, "")
TOO_LITTLE_DISK = refused(
    400, InsufficientDiskSchema, "disk_gb: deepseek-ai/DeepSeek-V2.5 needs about 132 GB, 100 GB were asked for",
    **documented.INSUFFICIENT,
)  # fmt: skip


def read_wish(request: Request) -> tuple[Wish, str]:
    """The wish, and who asks; 403 for another's consumer_id."""
    who = principal.of(request)
    wish = Wish(**read_body(CreateBody, request))
    who.narrowed(wish.consumer_id)
    return wish, who.actor


def _repeatable(request: Request, body: bytes) -> HttpResponse:
    """Printed already. The layer in front of Django may repeat these headers (gpubroker/reads.py)."""
    request.META[pages.ASKED] = True
    return HttpResponse(body, content_type="application/json")


class SessionsView(APIView):
    @extend_schema(
        operation_id="create_session", tags=["sessions"], summary="Rent a machine",
        request=CreateBody, parameters=[IDEMPOTENCY_KEY, PREFER],
        responses={
            201: CreatedSchema,
            **TOO_LITTLE_DISK,
            **INSUFFICIENT_BUDGET,
            **errors(404, 409, _404=UNKNOWN_OFFER, _409="my-application already has an active session on this offer"),
            **refused(503, LaunchErrorSchema, "offer unavailable due to stale inventory", **documented.STALE),
        },
        examples=[
            request_example(documented.CREATE, "With SSH"),
            request_example(documented.CREATE_VLLM, "A model behind vLLM"),
            example(
                {"session": documented.SESSION, "ssh_private_key": "-----BEGIN RSA PRIVATE KEY-----\n..."}, status=201
            ),
        ],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Waits for the provider's verdict (`Prefer: wait=N`); the work goes on without you. Then poll the session
        until it is `running`."""
        wish, actor = read_wish(request)
        return creation.create(request, wish, actor)

    @extend_schema(
        operation_id="list_sessions", tags=["sessions"], summary="List sessions, newest first",
        parameters=[ListParams], responses={200: SessionListSchema, **errors(400, 404, _404=UNKNOWN_SESSION)},
        examples=[example({"sessions": [documented.RUNNING], "count": 1, "total": 1, "next": None})],
    )  # fmt: skip
    def get(self, request: Request) -> HttpResponse:
        """A consumer's key lists that consumer's sessions only. Long lists: `limit`, then `after` with what `next`
        says. Such pages miss and repeat nothing while new sessions come, and the last is as quick as the first."""
        who = principal.of(request)
        wanted = pages.wanted(read_query(ListParams, request.query_params), who)
        return _repeatable(request, pages.page(wanted, who))


class EstimateView(APIView):
    #: It only calculates.
    scopes = {"POST": principal.READ}

    @extend_schema(
        operation_id="estimate_session", tags=["sessions"], summary="What a session would cost",
        request=CreateBody, parameters=[IDEMPOTENCY_KEY],
        responses={
            200: EstimateSchema, **TOO_LITTLE_DISK, **errors(404, 409, _404=UNKNOWN_OFFER, _409=KEY_REUSED),
        },
        examples=[request_example(documented.CREATE), example(documented.ESTIMATE)],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Takes a create's body, refuses what a create would refuse of it, and rents nothing. Dollars."""
        wish, _ = read_wish(request)
        return idempotency.once(request, lambda: idempotency.Answer(200, estimate(wish)))


class SessionView(APIView):
    @extend_schema(
        operation_id="get_session", tags=["sessions"], summary="One session",
        responses={200: SessionSchema, **errors(404, _404=UNKNOWN_SESSION)}, examples=[example(documented.RUNNING)],
    )  # fmt: skip
    def get(self, request: Request, session_id: str) -> HttpResponse:
        """`running` means that the machine was proved to answer."""
        return _repeatable(request, printed(pages.one(session_id, principal.of(request))))

    @extend_schema(
        operation_id="destroy_session", tags=["sessions"], summary="Force destroy", parameters=[PREFER],
        responses={200: MessageSchema, 202: MessageSchema, **errors(404, _404=UNKNOWN_SESSION)},
        examples=[
            example({"message": "session destroyed", "session_id": SESSION_ID}),
            example(
                {"message": "session destruction in progress", "session_id": SESSION_ID, "status": "stopping"},
                status=202, name="In progress",
            ),
        ],
    )  # fmt: skip
    def delete(self, request: Request, session_id: str) -> Response:
        """200 once the machine is proved gone, and again when it already was; 202 while the proof takes longer."""
        services.destroy(session_id, principal.of(request))
        budget = wait_budget(request, settings.DESTROY_WAIT_SECONDS)
        if wait_until(lambda: selectors.gone(session_id), budget) is not None:
            return Response({"message": "session destroyed", "session_id": session_id})
        progress = {"message": "session destruction in progress", "session_id": session_id, "status": "stopping"}
        return Response(progress, status=202)
