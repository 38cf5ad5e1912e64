"""What a request may do: the scope that its method needs, held by whoever it acts for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from gpubroker.common import principal
from gpubroker.common.errors import ApiError

if TYPE_CHECKING:
    from rest_framework.views import APIView  # at run time it imports this module


class KeyNeeded(ApiError):
    """401. The same words for a key that is missing, malformed, unknown, expired or revoked."""

    def __init__(self) -> None:
        super().__init__(401, "a valid API key is needed", headers={"WWW-Authenticate": "Bearer"})


class ScopeNeeded(ApiError):
    """403 that names the scope that the key lacks."""

    def __init__(self, scope: str) -> None:
        super().__init__(403, f"this key lacks the scope {scope}", scope=scope)


def holds(who: principal.Principal, scope: str) -> bool:
    """Staff holds every scope."""
    return scope in who.scopes or principal.STAFF in who.scopes


def require(request: Request, scope: str) -> None:
    """401 without a key where one is needed, 403 without the scope."""
    if settings.API_AUTH == "key" and request.auth is None:
        raise KeyNeeded
    if not holds(principal.of(request), scope):
        raise ScopeNeeded(scope)


class Scoped(BasePermission):
    """``read`` for GET, HEAD and OPTIONS, ``spend`` for whatever changes something.

    A view may say otherwise by method, e.g. ``scopes = {"POST": "read"}`` for a POST that only calculates.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        usual = principal.READ if request.method in SAFE_METHODS else principal.SPEND
        require(request, getattr(view, "scopes", {}).get(request.method, usual))
        return True


class StaffOnly(BasePermission):
    def has_permission(self, request: Request, view: APIView) -> bool:
        require(request, principal.STAFF)
        return True


class StaffKeyOnly(BasePermission):
    """A staff key even where the API is open: a key made there would outlive the openness."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if request.auth is None:
            raise KeyNeeded
        require(request, principal.STAFF)
        return True


class Anyone(BasePermission):
    """For calls that prove who they are otherwise; goes with ``authentication_classes = []``."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return True
