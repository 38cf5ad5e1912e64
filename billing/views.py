"""Consumers and API keys over HTTP, for staff."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import selectors, services
from billing.serializers import (
    ConsumerBody,
    ConsumerListSchema,
    ConsumerSchema,
    KeyBody,
    KeyListSchema,
    KeyParams,
    KeySchema,
    MadeKeySchema,
    RotateBody,
)
from gpubroker.common import idempotency, principal
from gpubroker.common.api import PageQuery, read_body, read_query
from gpubroker.common.idempotency import Answer
from gpubroker.common.permissions import StaffKeyOnly, StaffOnly
from gpubroker.common.schema import IDEMPOTENCY_KEY, KEY_REUSED, errors, example, request_example

EXAMPLE_CONSUMER = {"consumer_id": "my-application", "created_at": "2026-01-29T12:00:00Z"}
EXAMPLE_KEY = {
    "prefix": "gpb_k3vq7rma", "consumer_id": "my-application", "name": "nightly training", "scopes": ["read", "spend"],
    "state": "active", "created_at": "2026-01-29T12:00:00Z", "created_by": "staff:gpb_x5tn2wqe", "expires_at": None,
    "last_used_at": "2026-01-30T08:15:00Z", "revoked_at": None, "rotated_from": None,
}  # fmt: skip
EXAMPLE_NEW = {**EXAMPLE_KEY, "last_used_at": None}
#: Not a key: the secret part of one is longer.
EXAMPLE_SECRET = "gpb_k3vq7rma_shown-this-once"  # noqa: S105


def page_of(params: dict[str, Any]) -> slice:
    offset, limit = params.get("offset", 0), params.get("limit")
    return slice(offset, offset + limit if limit else None)


def made(key: services.MadeKey) -> Answer:
    return Answer(201, {"key": selectors.key_shown(key.key)}, key.secret, idempotency.API_KEY)


class ConsumersView(APIView):
    permission_classes = [StaffOnly]

    @extend_schema(
        operation_id="list_consumers", tags=["keys"], parameters=[PageQuery],
        responses={200: ConsumerListSchema, **errors(400)},
        examples=[example({"consumers": [EXAMPLE_CONSUMER], "count": 1, "total": 1})],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """All consumers by name."""
        found = selectors.consumers()
        page = [selectors.consumer_shown(row) for row in found[page_of(read_query(PageQuery, request.query_params))]]
        return Response({"consumers": page, "count": len(page), "total": found.count()})

    @extend_schema(
        operation_id="create_consumer", tags=["keys"], request=ConsumerBody, parameters=[IDEMPOTENCY_KEY],
        responses={201: ConsumerSchema, **errors(400, 409, _409="there is a consumer my-application already")},
        examples=[request_example({"consumer_id": "my-application"}), example(EXAMPLE_CONSUMER, status=201)],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Make a consumer. The first session or key under a new name makes one as well."""
        name = read_body(ConsumerBody, request)["consumer_id"]
        return idempotency.once(request, lambda: Answer(201, selectors.consumer_shown(services.new_consumer(name))))


class KeysView(APIView):
    permission_classes = [StaffKeyOnly]

    @extend_schema(
        operation_id="list_keys", tags=["keys"], parameters=[KeyParams], responses={200: KeyListSchema, **errors(400)},
        examples=[example({"keys": [EXAMPLE_KEY], "count": 1, "total": 1})],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """All keys, newest first, without their secrets."""
        params = read_query(KeyParams, request.query_params)
        found = selectors.api_keys(params.get("consumer_id"))
        page = [selectors.key_shown(key) for key in found[page_of(params)]]
        return Response({"keys": page, "count": len(page), "total": found.count()})

    @extend_schema(
        operation_id="create_key", tags=["keys"], request=KeyBody, parameters=[IDEMPOTENCY_KEY],
        responses={201: MadeKeySchema, **errors(400, 409, _409=KEY_REUSED)},
        examples=[
            request_example({"consumer_id": "my-application", "scopes": ["read", "spend"], "name": "nightly training"}),
            example({"key": EXAMPLE_NEW, "api_key": EXAMPLE_SECRET}, status=201),
        ],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Make a key for a consumer, or a staff key. The answer is the only place where it is ever shown."""
        body, by = read_body(KeyBody, request), principal.of(request).actor
        days = body.get("expires_in_days")

        def act() -> Answer:
            return made(
                services.make_key(
                    body.get("consumer_id"), by=by,
                    scopes=body.get("scopes", services.DEFAULT_SCOPES), name=body.get("name", ""),
                    expires_in=timedelta(days=days) if days is not None else None,
                )
            )  # fmt: skip

        return idempotency.once(request, act)


class KeyView(APIView):
    permission_classes = [StaffKeyOnly]

    @extend_schema(
        operation_id="revoke_key", tags=["keys"], request=None,
        responses={200: KeySchema, **errors(404, _404="key gpb_k3vq7rma not found")},
        examples=[example({**EXAMPLE_KEY, "state": "revoked", "revoked_at": "2026-02-01T09:00:00Z"})],
    )  # fmt: skip
    def delete(self, request: Request, prefix: str) -> Response:
        """Revoke a key: within five seconds it works nowhere. Again: no change."""
        return Response(selectors.key_shown(services.revoke_key(prefix, by=principal.of(request).actor)))


class RotateView(APIView):
    permission_classes = [StaffKeyOnly]

    @extend_schema(
        operation_id="rotate_key", tags=["keys"], request=RotateBody, parameters=[IDEMPOTENCY_KEY],
        responses={
            201: MadeKeySchema,
            **errors(
                400, 404, 409,
                _404="key gpb_x5tn2wqe not found", _409="key gpb_x5tn2wqe is revoked; make a new one",
            ),
        },
        examples=[
            request_example({"grace_seconds": 3600}),
            example({"key": {**EXAMPLE_NEW, "rotated_from": "gpb_x5tn2wqe"}, "api_key": EXAMPLE_SECRET}, status=201),
        ],
    )  # fmt: skip
    def post(self, request: Request, prefix: str) -> Response:
        """A new key in place of this one, which works on for a day, or for ``grace_seconds``."""
        grace, by = timedelta(seconds=read_body(RotateBody, request)["grace_seconds"]), principal.of(request).actor
        return idempotency.once(request, lambda: made(services.rotate_key(prefix, by=by, grace=grace)))
