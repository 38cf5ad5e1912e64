"""What wraps every request: its id, and paths that work with or without a trailing slash."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse

from gpubroker.common import errors, logs

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
Handler = Callable[[HttpRequest], HttpResponse]


class RequestIdMiddleware:
    """Takes the caller's ``X-Request-ID`` when it is well formed, else makes one; echoes it and logs with it."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        request.META["gpubroker.request_id"] = request_id
        with logs.context(request_id=request_id):
            response = self.handler(request)
        response["X-Request-ID"] = request_id
        return response


class PathMiddleware:
    """API paths have no trailing slash; one is tolerated, without a redirect that could drop a body."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def __call__(self, request: HttpRequest) -> HttpResponse:
        path = request.path_info
        if "\x00" in path:
            return JsonResponse(errors.body("there is no such path", request), status=404)
        if path.endswith("/") and len(path) > 1 and not path.startswith(("/admin", "/static")):
            request.path_info = path.rstrip("/")
        return self.handler(request)
