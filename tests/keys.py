"""API keys in tests: make one, and speak with it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django.test import Client

from billing import services
from billing.services import MadeKey


def make(consumer: str | None = "my-application", scopes: Iterable[str] = ("read", "spend"), **more: Any) -> MadeKey:
    return services.make_key(consumer, by="test", scopes=scopes, **more)


def staff() -> MadeKey:
    return make(None, ["staff"])


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


class Caller:
    """The HTTP API as somebody with this key uses it; an empty one sends none."""

    def __init__(self, secret: str = "") -> None:
        self.client = Client(raise_request_exception=False, headers=bearer(secret) if secret else None)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and parsed body of one request under /api/v1."""
        data = "" if body is None else json.dumps(body)
        response = self.client.generic(
            method, f"/api/v1{path}", data, content_type="application/json", headers={"Prefer": "wait=0", **headers}
        )
        return response.status_code, response.json()
