"""HTTP requests as they are counted: by method, route and status, and how long they took."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from gpubroker.common import gathered

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
#: Whose many pages count as one.
_ADMIN = "admin/"


class TrafficMiddleware:
    """The outermost one, so that what others refuse is counted too."""

    def __init__(self, handler: Callable[[HttpRequest], HttpResponse]) -> None:
        self.handler = handler

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.perf_counter()
        response = self.handler(request)
        note(str(request.method), _route(request), response.status_code, time.perf_counter() - began)
        return response


def note(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answer. Whatever answers without Django calls this itself, with the route's words, not the path."""
    _answers(method if method in METHODS else "other", route, status).note(seconds)


@functools.lru_cache(maxsize=4096)
def _answers(method: str, route: str, status: int) -> gathered.Timed:
    return gathered.Timed(
        "gpu_http_requests_total", "gpu_http_request_duration_seconds", {"method": method, "route": route},
        {"status": str(status)},
    )  # fmt: skip


def _route(request: HttpRequest) -> str:
    """As the API's description names it, e.g. ``/api/v1/sessions/{session_id}``; never a path, which anybody may
    invent and which may hold a secret (I10)."""
    return "none" if request.resolver_match is None else _shown(request.resolver_match.route)


@functools.lru_cache(maxsize=512)
def _shown(route: str) -> str:
    return "/admin/" if route.startswith(_ADMIN) else "/" + _PARAMETER.sub(r"{\1}", route)
