"""What wraps every request: its id, the browsers' safety headers, the size of its body, and paths that work with or
without a trailing slash."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from gpubroker.common import bodies, errors, logs

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
Handler = Callable[[HttpRequest], HttpResponse]
BODY_PROBLEMS = {
    bodies.LATE: (408, "the request body did not come in time"),
    bodies.CUT: (400, "the request body ended before its Content-Length"),
}


def request_id_of(given: str) -> str:
    """The caller's own id where it is well formed, else a new one, written like a random UUID."""
    if given and REQUEST_ID.fullmatch(given):
        return given
    # It names a request in logs and is no secret. Asking the system for true randomness costs more than all the rest.
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


class RequestIdMiddleware:
    """Takes the caller's ``X-Request-ID`` when it is well formed, else makes one; echoes it and logs with it."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = request_id_of(request.headers.get("X-Request-ID", ""))
        request.META["gpubroker.request_id"] = request_id
        with logs.context(request_id=request_id):
            response = self.handler(request)
        response["X-Request-ID"] = request_id
        return response


#: Pages for people load only what we serve ourselves.
_PAGES = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
#: The console's theme (docs/adr/0014-console.md): Alpine.js compiles the expressions in its attributes, which browsers
#: call eval, and styles are set inline. Scripts still come from our own files alone; none stands in a page.
_CONSOLE = (
    f"{_PAGES}; script-src 'self' 'unsafe-eval'; script-src-attr 'none'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; worker-src 'none'"
)
#: Swagger UI draws with inline styles and data: images.
_DOCS = f"{_PAGES}; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
#: JSON, files, metrics: nothing in them is to be run or shown.
_DATA = "default-src 'none'; frame-ancestors 'none'"
CONTENT_POLICIES = (("/admin", _CONSOLE), ("/api/docs", _DOCS))
#: Whose answers depend on the key, which a cache in between may not know: `X-API-Key` means nothing to it.
PRIVATE = "/api/v1/"
HSTS = "max-age=31536000"


class SecurityHeadersMiddleware:
    """No sniffing, no frames, no referrers, only our own scripts; what a key sees is cached by nobody; HSTS where https
    is the rule. Never CORS."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.handler(request)
        policy = next((policy for path, policy in CONTENT_POLICIES if request.path_info.startswith(path)), _DATA)
        response.headers.setdefault("Content-Security-Policy", policy)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("X-Frame-Options", "DENY")
        response.headers.setdefault("Referrer-Policy", "same-origin")
        if request.path_info.startswith(PRIVATE):
            response.headers.setdefault("Cache-Control", "no-store")
        if settings.SECURE or request.is_secure():
            response.headers.setdefault("Strict-Transport-Security", HSTS)
        return response


class BodyMiddleware:
    """413 for a body that is too large, without a byte read when it says so itself; 408 for one that does not come."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def __call__(self, request: HttpRequest) -> HttpResponse:
        declared = str(request.META.get("CONTENT_LENGTH") or "0")
        if not (declared.isascii() and declared.isdigit()):
            return JsonResponse(errors.body("the Content-Length is not a number", request), status=400)
        if len(declared) > 12 or int(declared) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return JsonResponse(errors.body(errors.TOO_LARGE, request), status=413)
        problem = request.META.get(bodies.PROBLEM)
        return self.handler(request) if problem is None else _without_a_body(request, problem)


def _without_a_body(request: HttpRequest, problem: str) -> HttpResponse:
    status, sentence = BODY_PROBLEMS[problem]
    # What may still come of the body is no next request.
    return JsonResponse(errors.body(sentence, request), status=status, headers={"Connection": "close"})


class PathMiddleware:
    """API paths have no trailing slash; one is tolerated, without a redirect that could drop a body."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def __call__(self, request: HttpRequest) -> HttpResponse:
        path = request.path_info
        if "\x00" in path:
            return JsonResponse(errors.body("there is no such path", request), status=404)
        # Written \000 in a quoted value. No cookie of ours has one, and PostgreSQL looks for no such session.
        for name in [name for name, value in request.COOKIES.items() if "\x00" in value]:
            del request.COOKIES[name]
        if path.endswith("/") and len(path) > 1 and not path.startswith(("/admin", "/static")):
            request.path_info = path.rstrip("/")
        return self.handler(request)
