"""API keys over HTTP: ``Authorization: Bearer <key>`` or ``X-API-Key: <key>``."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from billing.keys import keyring
from gpubroker.common import ratelimit
from gpubroker.common.permissions import KeyNeeded
from gpubroker.common.principal import Principal


def presented_key(authorization: str | None, api_key: str | None) -> str | None:
    """The key in the two headers' values; ``None`` when there is none, empty when it cannot be read.

    Another scheme than Bearer is some proxy's business, not a key. A key in both headers is refused as unreadable, and
    so is an empty header: servers empty those that hold what a header may not hold.
    """
    if authorization is not None:
        scheme, credentials = [*authorization.split(None, 1), "", ""][:2]
        if scheme.lower() in ("", "bearer"):
            return "" if api_key is not None else credentials.strip()
    return api_key if api_key is None else api_key.strip()


class KeyAuthentication(BaseAuthentication):
    """``request.auth`` becomes the key's :class:`Principal`, or stays ``None`` without a key.

    A key that is not good is 401 also where none is asked for: whoever sends one means it to count. Each such attempt
    counts against the rate limit of the address that it came from.
    """

    def authenticate(self, request: Request) -> tuple[None, Principal] | None:
        headers = request.headers
        presented = presented_key(headers.get("Authorization"), headers.get("X-API-Key"))
        if presented is None:
            return None
        principal = keyring.check(presented)
        if principal is None:
            ratelimit.count_address(request.META)
            raise KeyNeeded
        return None, principal

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Both headers in the OpenAPI schema, and none: with ``API_AUTH=open`` no key is asked for."""

    target_class = KeyAuthentication
    name = ["bearerKey", "headerKey"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return [
            {"type": "http", "scheme": "bearer", "description": "An API key: `gpb_…`"},
            {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, in its own header"},
        ]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
        return [{"bearerKey": []}, {"headerKey": []}, {}]
