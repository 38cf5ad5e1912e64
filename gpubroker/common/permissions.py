"""Who may use the API."""

from __future__ import annotations

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from gpubroker.common.errors import ApiError


class OpenApi(BasePermission):
    """Everybody with ``API_AUTH=open``; nobody with ``key`` until keys can be made: closed is the safe side."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if settings.API_AUTH != "open":
            raise ApiError(401, "an API key is needed", headers={"WWW-Authenticate": "Bearer"})
        return True
