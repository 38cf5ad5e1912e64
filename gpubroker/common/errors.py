"""The one error shape of the API: ``{"error": <a plain sentence>, "request_id": ...}`` and more keys."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import (
    DisallowedHost,
    PermissionDenied,
    RequestDataTooBig,
    TooManyFieldsSent,
)
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

log = logging.getLogger(__name__)

TOO_LARGE = "the request body is larger than 1 MB"
LONGEST = 300
#: What Django refuses before or beside a view, in words that help.
SUSPICIOUS: dict[type[Exception], str] = {
    DisallowedHost: "the Host header names none of this broker's hosts; they are set by ALLOWED_HOSTS",
    TooManyFieldsSent: "too many parameters",
}


class ApiError(Exception):
    """A refusal that a caller can act on. ``extra`` keys stand beside ``error`` in the body."""

    def __init__(self, status: int, message: str, /, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}
        self.extra = extra


class BadField(ApiError):
    """400 that names the field and says what is wrong with it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(400, f"{field}: {reason}", field=field)


def body(message: str, request: HttpRequest | Request | None, /, **extra: Any) -> dict[str, Any]:
    request_id = request.META.get("gpubroker.request_id", "") if request is not None else ""
    return {"error": message, **extra, "request_id": request_id}


def first_problem(detail: Any, path: str = "") -> tuple[str, str]:
    """The first leaf of DRF's nested error detail as (field, sentence)."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            name = "" if key == "non_field_errors" else str(key)
            return first_problem(value, f"{path}.{name}" if path and name else path or name)
    if isinstance(detail, list):
        for index, value in enumerate(detail):
            if value:
                deeper = isinstance(value, (dict, list))
                return first_problem(value, f"{path}[{index}]" if deeper and path else path)
    sentence = str(detail)
    # Some tell back what was sent, however long it was.
    return path, sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST]}…"


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's hook: everything that a view can raise, in our shape. Unknown faults stay 500 and are logged."""
    request: Request | None = context.get("request")
    if isinstance(error, ApiError):
        return Response(body(error.message, request, **error.extra), status=error.status, headers=error.headers)
    if isinstance(error, exceptions.ValidationError):
        field, sentence = first_problem(error.detail)
        extra = {"field": field} if field else {}
        return Response(body(f"{field}: {sentence}" if field else sentence, request, **extra), status=400)
    if isinstance(error, exceptions.APIException):
        wait = getattr(error, "wait", None)
        headers = {"Retry-After": str(int(wait) + 1)} if wait else {}
        return Response(body(_sentence(error), request), status=error.status_code, headers=headers)
    if isinstance(error, RequestDataTooBig):
        return Response(body(TOO_LARGE, request), status=413)
    if isinstance(error, Http404):
        return Response(body("not found", request), status=404)
    if isinstance(error, PermissionDenied):
        return Response(body("permission denied", request), status=403)
    if isinstance(error, (OperationalError, InterfaceError)):
        log.exception("database unavailable")
        headers = {"Retry-After": "5"}
        return Response(body("the database is not available, try again", request), status=503, headers=headers)
    return None


def _sentence(error: exceptions.APIException) -> str:
    if isinstance(error, exceptions.ParseError):
        return f"malformed JSON: {error.detail}".replace("JSON parse error - ", "")
    return str(error.detail).rstrip(".")


def _plain(status: int, message: str, request: HttpRequest) -> JsonResponse:
    return JsonResponse(body(message, request), status=status)


def not_found(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
    return _plain(404, f"there is no {request.path}", request)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
    sentence = next((text for kind, text in SUSPICIOUS.items() if isinstance(exception, kind)), "bad request")
    return _plain(400, sentence, request)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
    return _plain(403, "permission denied", request)


def server_error(request: HttpRequest) -> JsonResponse:
    return _plain(500, "internal error; the request id finds it in the logs", request)
