"""Webhooks over HTTP: each consumer's own, and those of staff."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import redelivery, webhook_selectors, webhooks
from billing.views import page_of
from billing.webhook_models import WebhookEndpoint
from billing.webhook_serializers import (
    DeliveryListSchema,
    DeliveryParams,
    DeliverySchema,
    MadeWebhookSchema,
    ReplayBody,
    ReplaySchema,
    RotateSecretBody,
    WebhookBody,
    WebhookChange,
    WebhookListSchema,
    WebhookParams,
    WebhookSchema,
)
from gpubroker.common import clock, idempotency, principal
from gpubroker.common.api import read_body, read_query
from gpubroker.common.idempotency import Answer
from gpubroker.common.schema import IDEMPOTENCY_KEY, errors, example, request_example

ID = "wh-3f9c0a81b27d64e5"
MESSAGE_ID = "b1c6a2de-52f0-4c0f-9c11-6a0d6a1f7f5e"
EXAMPLE_WISH = {"url": "https://hooks.example.com/gpu", "kinds": ["session.*", "budget.threshold"]}
EXAMPLE_WEBHOOK = {
    "id": ID, "consumer_id": "my-application", **EXAMPLE_WISH, "description": "on call", "active": True,
    "disabled_reason": "", "failing_since": None, "old_secret_until": None, "created_at": "2026-01-29T12:00:00Z",
    "created_by": "consumer:my-application",
}  # fmt: skip
#: Not a secret: one is longer.
EXAMPLE_SECRET = "whsec_shown-this-once"  # noqa: S105
EXAMPLE_DELIVERY = {
    "id": MESSAGE_ID, "kind": "session.running", "subject": "sess-abc123", "at": "2026-01-29T12:03:10Z",
    "state": "pending", "sequence": 41, "attempts": 2, "next_attempt_at": "2026-01-29T12:03:46Z",
    "last_attempt_at": "2026-01-29T12:03:16Z", "delivered_at": None, "duration_ms": 84, "last_status": 503,
    "last_error": "answered 503", "last_response": "maintenance",
}  # fmt: skip
EXAMPLE_DUE = {
    **EXAMPLE_DELIVERY, "kind": "ping", "subject": ID, "sequence": None, "attempts": 0, "last_attempt_at": None,
    "duration_ms": None, "last_status": None, "last_error": "", "last_response": "",
    "next_attempt_at": "2026-01-29T12:03:10Z",
}  # fmt: skip
NOT_THERE = {"_404": f"webhook {ID} not found"}
BAD_KEY = {"_400": "Idempotency-Key: must be 1 to 255 printable ASCII characters"}
NOT_ACTIVE = {"_409": f"webhook {ID} is not active (switched off); switch it on first"}


def own(request: Request, webhook_id: str) -> WebhookEndpoint:
    """404 for another's, as for one that is not there."""
    return webhooks.found(webhook_id, principal.of(request).consumer)


def made(endpoint: webhooks.MadeEndpoint) -> Answer:
    shown = {"webhook": webhook_selectors.endpoint_shown(endpoint.endpoint)}
    return Answer(201, shown, endpoint.secret, idempotency.WEBHOOK_SECRET)


class WebhooksView(APIView):
    @extend_schema(
        operation_id="list_webhooks", tags=["webhooks"], parameters=[WebhookParams],
        responses={200: WebhookListSchema, **errors(400)},
        examples=[example({"webhooks": [EXAMPLE_WEBHOOK], "count": 1, "total": 1})],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """Your webhooks, newest first, without their secrets."""
        params = read_query(WebhookParams, request.query_params)
        found = webhook_selectors.endpoints(principal.of(request).narrowed(params.get("consumer_id")))
        page = [webhook_selectors.endpoint_shown(row) for row in found[page_of(params)]]
        return Response({"webhooks": page, "count": len(page), "total": found.count()})

    @extend_schema(
        operation_id="create_webhook", tags=["webhooks"], request=WebhookBody, parameters=[IDEMPOTENCY_KEY],
        responses={
            201: MadeWebhookSchema,
            **errors(400, 409, _400="url: may not be called: its address is not public",
                     _409="there are 20 webhooks already; delete one first"),
        },
        examples=[
            request_example(EXAMPLE_WISH),
            example({"webhook": EXAMPLE_WEBHOOK, "webhook_secret": EXAMPLE_SECRET}, status=201),
        ],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Have a URL told what happens. The answer is the only place where the secret of its signatures is shown."""
        body, who = read_body(WebhookBody, request), principal.of(request)
        consumer = who.narrowed(body.get("consumer_id"))

        def act() -> Answer:
            return made(
                webhooks.make(
                    consumer, body["url"], by=who.actor, kinds=body.get("kinds", ()),
                    description=body.get("description", ""),
                )
            )  # fmt: skip

        return idempotency.once(request, act)


class WebhookView(APIView):
    @extend_schema(
        operation_id="get_webhook", tags=["webhooks"], responses={200: WebhookSchema, **errors(404, **NOT_THERE)},
        examples=[example(EXAMPLE_WEBHOOK)],
    )  # fmt: skip
    def get(self, request: Request, webhook_id: str) -> Response:
        """One webhook, without its secret."""
        return Response(webhook_selectors.endpoint_shown(own(request, webhook_id)))

    @extend_schema(
        operation_id="change_webhook", tags=["webhooks"], request=WebhookChange,
        responses={200: WebhookSchema, **errors(400, 404, **NOT_THERE)},
        examples=[request_example({"active": True}), example(EXAMPLE_WEBHOOK)],
    )  # fmt: skip
    def patch(self, request: Request, webhook_id: str) -> Response:
        """Change its URL, kinds or description, or switch it off or on."""
        endpoint, wish = own(request, webhook_id), read_body(WebhookChange, request)
        changed = webhooks.change(endpoint, by=principal.of(request).actor, **wish)
        return Response(webhook_selectors.endpoint_shown(changed))

    @extend_schema(
        operation_id="delete_webhook", tags=["webhooks"], request=None,
        responses={200: WebhookSchema, **errors(404, **NOT_THERE)},
        examples=[example({**EXAMPLE_WEBHOOK, "active": False, "disabled_reason": webhooks.DELETED})],
    )  # fmt: skip
    def delete(self, request: Request, webhook_id: str) -> Response:
        """Delete a webhook; what still waits for it is not sent."""
        endpoint = own(request, webhook_id)
        webhooks.delete(endpoint, by=principal.of(request).actor)
        gone = {"active": False, "disabled_reason": webhooks.DELETED, "old_secret_until": None}
        return Response({**webhook_selectors.endpoint_shown(endpoint), **gone})


class RotateSecretView(APIView):
    @extend_schema(
        operation_id="rotate_webhook_secret", tags=["webhooks"], request=RotateSecretBody, parameters=[IDEMPOTENCY_KEY],
        responses={201: MadeWebhookSchema, **errors(400, 404, 409, **NOT_THERE)},
        examples=[
            request_example({"overlap_seconds": 3600}),
            example({"webhook": {**EXAMPLE_WEBHOOK, "old_secret_until": "2026-01-29T13:00:00Z"},
                     "webhook_secret": EXAMPLE_SECRET}, status=201),
        ],
    )  # fmt: skip
    def post(self, request: Request, webhook_id: str) -> Response:
        """A new secret; the old one signs beside it for a day, or for ``overlap_seconds``."""
        endpoint, by = own(request, webhook_id), principal.of(request).actor
        overlap = timedelta(seconds=read_body(RotateSecretBody, request)["overlap_seconds"])
        return idempotency.once(request, lambda: made(webhooks.rotate(endpoint, by=by, overlap=overlap)))


class PingView(APIView):
    @extend_schema(
        operation_id="test_webhook", tags=["webhooks"], request=None, parameters=[IDEMPOTENCY_KEY],
        responses={202: DeliverySchema, **errors(400, 404, 409, **BAD_KEY, **NOT_THERE, **NOT_ACTIVE)},
        examples=[example(EXAMPLE_DUE, status=202)],
    )  # fmt: skip
    def post(self, request: Request, webhook_id: str) -> Response:
        """Have a message of kind ``ping`` sent to this webhook; its deliveries tell how that went."""
        endpoint, by = own(request, webhook_id), principal.of(request).actor

        def act() -> Answer:
            return Answer(202, webhook_selectors.delivery_shown(redelivery.ping(endpoint, by=by)))

        return idempotency.once(request, act)


class DeliveriesView(APIView):
    @extend_schema(
        operation_id="list_webhook_deliveries", tags=["webhooks"], parameters=[DeliveryParams],
        responses={200: DeliveryListSchema, **errors(400, 404, **NOT_THERE)},
        examples=[example({"deliveries": [EXAMPLE_DELIVERY], "count": 1, "total": 1})],
    )  # fmt: skip
    def get(self, request: Request, webhook_id: str) -> Response:
        """What was sent to this webhook and what came of it, newest first. Kept for 30 days."""
        endpoint, params = own(request, webhook_id), read_query(DeliveryParams, request.query_params)
        found = webhook_selectors.deliveries(endpoint, params.get("state"))
        page = [webhook_selectors.delivery_shown(row) for row in found[page_of(params)]]
        return Response({"deliveries": page, "count": len(page), "total": found.count()})


class RedeliverView(APIView):
    @extend_schema(
        operation_id="redeliver_webhook", tags=["webhooks"], request=None, parameters=[IDEMPOTENCY_KEY],
        responses={
            202: DeliverySchema,
            **errors(400, 404, 409, **BAD_KEY, _404=f"delivery {MESSAGE_ID} not found", **NOT_ACTIVE),
        },
        examples=[example(EXAMPLE_DELIVERY, status=202)],
    )  # fmt: skip
    def post(self, request: Request, webhook_id: str, delivery_id: str) -> Response:
        """Send one message again, now, under the same id."""
        delivery = redelivery.found(own(request, webhook_id), delivery_id)

        def act() -> Answer:
            return Answer(202, webhook_selectors.delivery_shown(redelivery.redeliver(delivery)))

        return idempotency.once(request, act)


class ReplayView(APIView):
    @extend_schema(
        operation_id="replay_webhook", tags=["webhooks"], request=ReplayBody, parameters=[IDEMPOTENCY_KEY],
        responses={202: ReplaySchema, **errors(400, 404, 409, **NOT_THERE, **NOT_ACTIVE)},
        examples=[
            request_example({"since": "2026-01-29T12:00:00Z", "until": "2026-01-29T14:00:00Z"}),
            example({"messages": 17, "since": "2026-01-29T12:00:00Z", "until": "2026-01-29T14:00:00Z"}, status=202),
        ],
    )  # fmt: skip
    def post(self, request: Request, webhook_id: str) -> Response:
        """Send all messages of a time again. Also those that were delivered, under the same ids."""
        endpoint, body = own(request, webhook_id), read_body(ReplayBody, request)
        return idempotency.once(request, lambda: _replayed(endpoint, body))


def _replayed(endpoint: WebhookEndpoint, body: dict[str, Any]) -> Answer:
    done = redelivery.replay(endpoint, body["since"], body.get("until"))
    return Answer(202, {"messages": done.messages, "since": clock.iso(done.since), "until": clock.iso(done.until)})
