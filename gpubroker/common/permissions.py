"""Who may use the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from gpubroker.common.errors import ApiError

if TYPE_CHECKING:
    from rest_framework.views import APIView  # at run time it imports this module


class OpenApi(BasePermission):
    """Everybody with ``API_AUTH=open``; nobody with ``key`` until keys can be made: closed is the safe side."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if settings.API_AUTH != "open":
            raise ApiError(401, "an API key is needed", headers={"WWW-Authenticate": "Bearer"})
        return True
