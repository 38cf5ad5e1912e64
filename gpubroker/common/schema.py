"""Shapes that every operation shares, for the OpenAPI schema.

An operation names its own errors with :func:`errors`; what any request can meet (no key, too many requests, no
database, ...) and the common headers are added to all of them by ``gpubroker.openapi``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from rest_framework import serializers
from rest_framework.metadata import BaseMetadata
from rest_framework.request import Request

if TYPE_CHECKING:
    from rest_framework.views import APIView  # at run time it imports this module


class Methods(BaseMetadata):
    """What OPTIONS answers: the methods of the path. The shapes are in the schema."""

    def determine_metadata(self, request: Request, view: APIView) -> dict[str, Any]:
        return {"methods": view.allowed_methods}


class ErrorSchema(serializers.Serializer[Any]):
    error = serializers.CharField(help_text="One plain sentence")
    request_id = serializers.CharField(help_text="Also in X-Request-ID and in every log line of the request")
    field = serializers.CharField(required=False, help_text="The field or parameter at fault")
    error_type = serializers.CharField(required=False)


#: status -> (what it means, an example's sentence, more keys of the example)
ERRORS: dict[int, tuple[str, str, dict[str, Any]]] = {
    400: ("A parameter or the body is not valid", "limit: a valid integer is required, got 'ten'", {"field": "limit"}),
    401: ("The API key is missing or wrong", "a valid API key is needed", {}),
    402: ("The consumer's budget does not hold it",
          "the monthly budget of my-application for 2026-01 cannot carry this: it may cost up to $1.26, and $0.40 of "
          "$100.00 are left",
          {"error_type": "insufficient_budget", "consumer_id": "my-application", "budget": "monthly",
           "period": "2026-01", "limit": 100, "spent": 91.5, "reserved": 8.1, "needed": 1.26, "shortfall": 0.86}),
    403: ("The key may not do this", "this key lacks the scope spend", {"scope": "spend"}),
    404: ("There is no such thing, named in the sentence", "session sess-abc123 not found", {}),
    405: ("The path does not take this method", 'Method "PATCH" not allowed', {}),
    406: ("Answers are JSON, and the request accepts none", "Could not satisfy the request Accept header", {}),
    409: ("In conflict with the state that things are in", "session sess-abc123 is stopped", {}),
    413: ("The body is larger than 1 MB", "the request body is larger than 1 MB", {}),
    415: ("The body is not JSON", 'Unsupported media type "text/xml" in request', {}),
    429: ("Too many requests; `Retry-After` says when to come again", "too many requests, try again in 3 s", {}),
    500: ("A fault of ours; the request id finds it in the logs", "internal error; the request id finds it in the logs", {}),  # noqa: E501
    501: ("The provider has no such thing", "tensordock has no account SSH keys",
          {"error_type": "not_supported", "provider": "tensordock", "retry_suggested": False}),
    502: ("The provider refuses our key, or answers what cannot be understood", "vastai balance: Invalid user key",
          {"error_type": "auth_error", "provider": "vastai", "retry_suggested": False}),
    504: ("The provider's answer did not come in time: what was asked may have been done",
          "vastai new SSH key: no complete answer",
          {"error_type": "outcome_unknown", "provider": "vastai", "retry_suggested": False}),
    503: ("Something that this needs is away; try again", "the database is not available, try again", {}),
}  # fmt: skip
EXAMPLE_REQUEST_ID = "6f9619ff-8b86-4d01-b42d-00c04fc964ff"


def error_example(status: int, sentence: str = "", **more: Any) -> dict[str, Any]:
    _, usual, usual_more = ERRORS[status]
    return {"error": sentence or usual, **(more or ({} if sentence else usual_more)), "request_id": EXAMPLE_REQUEST_ID}


def errors(*statuses: int, **sentences: str) -> dict[int, OpenApiResponse]:
    """Responses for ``extend_schema``: ``errors(400, 404)``; an example's sentence as ``_404="offer x not found"``."""
    return {status: error(status, sentences.get(f"_{status}", "")) for status in statuses}


def error(status: int, sentence: str = "", description: str = "", **more: Any) -> OpenApiResponse:
    example = OpenApiExample(
        f"{status}", value=error_example(status, sentence, **more), response_only=True, status_codes=[str(status)]
    )
    return OpenApiResponse(ErrorSchema, description=description or ERRORS[status][0], examples=[example])


def example(value: Any, *, status: int = 200, name: str = "Answer") -> OpenApiExample:
    """An answer, for ``extend_schema(examples=[...])``."""
    return OpenApiExample(name, value=value, response_only=True, status_codes=[str(status)])


def request_example(value: Any, name: str = "Request") -> OpenApiExample:
    """A body, for ``extend_schema(examples=[...])``."""
    return OpenApiExample(name, value=value, request_only=True)


PREFER = OpenApiParameter(
    "Prefer", OpenApiTypes.STR, OpenApiParameter.HEADER, required=False, pattern=r"^wait=\d{1,4}$",
    description="`wait=N`: how many seconds (at most 60) to wait for the provider's verdict before answering",
)  # fmt: skip
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key", OpenApiTypes.STR, OpenApiParameter.HEADER, required=False, pattern=r"^[\x20-\x7e]{1,255}$",
    description="1 to 255 printable ASCII characters. The same key with the same body gets the same answer for 24 "
    "hours (a private key or API key with it for 10 minutes); with another body 409.",
)  # fmt: skip
KEY_REUSED = "this Idempotency-Key was already used for another request"
