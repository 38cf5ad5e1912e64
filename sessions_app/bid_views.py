"""A session's bid over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.budget_serializers import InsufficientBudgetSchema
from gpubroker.common import idempotency, principal
from gpubroker.common.api import read_body
from gpubroker.common.idempotency import Answer
from gpubroker.common.schema import IDEMPOTENCY_KEY, errors, example, request_example
from sessions_app.bid import change
from sessions_app.documented import SESSION_ID, refused
from sessions_app.provider_calls import patience
from sessions_app.serializers import BidField

UNKNOWN = f"session {SESSION_ID} not found"


class BidBody(serializers.Serializer[Any]):
    bid_price = BidField(help_text="Dollars per hour for the whole machine, without disk")


class ChangedBidSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    session_id = serializers.CharField()
    bid_price = serializers.FloatField(help_text="As asked")
    paused = serializers.BooleanField(help_text="Whether the machine stands still now; a bid that wins takes a while")


class BidView(APIView):
    @extend_schema(
        operation_id="bid_for_session", tags=["sessions"], summary="Change an interruptible session's bid",
        request=BidBody, parameters=[IDEMPOTENCY_KEY],
        responses={
            200: ChangedBidSchema, 202: ChangedBidSchema, **refused(402, InsufficientBudgetSchema, ""),
            **errors(400, 404, 409, 501, 502, 503, _404=UNKNOWN,
                     _400="bid_price: a bid of 0.5 an hour is above max_price, 0.45",
                     _409=f"session {SESSION_ID} is not interruptible: it has no bid"),
        },
        examples=[
            request_example({"bid_price": 0.31}),
            example({"message": "bid changed", "session_id": SESSION_ID, "bid_price": 0.31, "paused": False}),
            example({"message": "bid change in progress", "session_id": SESSION_ID, "bid_price": 0.31, "paused": True},
                    status=202, name="In progress"),
        ],
    )  # fmt: skip
    def post(self, request: Request, session_id: str) -> Response:
        """200 once the provider has taken it; 202 while it cannot be asked, and then it is told as soon as it can be. A
        paused session goes on when its bid wins again."""
        price, who = read_body(BidBody, request)["bid_price"], principal.of(request)

        def act() -> Answer:
            changed = change(session_id, price, who)
            message = "bid changed" if changed.settled else "bid change in progress"
            told = {"message": message, "session_id": session_id, "bid_price": price, "paused": changed.paused}
            return Answer(200 if changed.settled else 202, told)

        return idempotency.claimed(request, act, timedelta(seconds=patience() + 30))
