"""The whole surface, walked by its own description: every operation with its paths, parameters and fields."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import Client

from gpubroker.common.mediatype import PlainMediaType
from gpubroker.openapi import operations
from tests.keys import bearer

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
OURS = ("common", "offers", "templates_app", "billing", "sessions_app")
#: A value for every field that some operation requires.
USUAL: dict[str, Any] = {
    "consumer_id": "me", "offer_id": "vastai-1", "workload_type": "llm", "reservation_hours": 2, "additional_hours": 1,
    "agent_token": "not-the-token", "gpu_utilization": 5, "memory_used_mb": 5, "ssh_connections": 1,
    "hard_max_at": "2099-01-01T00:00:00Z", "since": "2026-01-01T00:00:00Z",
}  # fmt: skip
BY_TYPE: dict[str, Any] = {"string": "x", "integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    found: Any = SCHEMA
    for name in part["$ref"].removeprefix("#/").split("/") if "$ref" in part else ():
        found = found[name]
    return found if "$ref" in part else part


def shape_of(part: dict[str, Any]) -> dict[str, Any]:
    """The property with what a reference, alone or in ``allOf``, says of it."""
    options = [resolved(option) for option in part.get("allOf", [part])]
    return {**part, **options[0]}


@dataclass(frozen=True)
class Operation:
    name: str
    method: str
    path: str
    tags: tuple[str, ...]
    query: dict[str, dict[str, Any]] = field(repr=False)
    fields: dict[str, dict[str, Any]] = field(repr=False)
    required: tuple[str, ...] = field(repr=False)

    def at(self, **ids: str) -> str:
        return self.path.format(**ids)

    def body(self, **changes: Any) -> dict[str, Any]:
        """The smallest body that is accepted, with changes."""
        usual = {name: USUAL.get(name, BY_TYPE.get(self.fields[name].get("type", "string"))) for name in self.required}
        return {**usual, **changes}


def _read() -> Iterator[Operation]:
    for path, method, operation in operations(SCHEMA):
        content = resolved(operation.get("requestBody", {})).get("content", {}).get("application/json", {})
        body = resolved(content.get("schema", {}))
        given = [resolved(parameter) for parameter in operation["parameters"]]
        yield Operation(
            operation["operationId"], method.upper(), path, tuple(operation["tags"]),
            {each["name"]: shape_of(each["schema"]) for each in given if each["in"] == "query"},
            {name: shape_of(part) for name, part in body.get("properties", {}).items()},
            tuple(body.get("required", ())),
        )  # fmt: skip


ALL = [operation for operation in _read() if operation.path.startswith("/api/v1/")]
WITH_BODY = [operation for operation in ALL if operation.fields]
WITH_QUERY = [operation for operation in ALL if operation.query]


def books() -> dict[str, list[dict[str, Any]]]:
    """Every row of ours. When a key was last used is no change."""
    found = {}
    for model in apps.get_models():
        if model._meta.app_label in OURS:
            rows = model._default_manager.order_by("pk").values()
            found[model._meta.label] = [{k: v for k, v in row.items() if k != "last_used_at"} for row in rows]
    return found


class Attacker:
    """Speaks with one key, or none."""

    def __init__(self, secret: str = "") -> None:
        self.client = Client(raise_request_exception=False, headers=bearer(secret) if secret else None)

    def __call__(
        self, method: str, path: str, body: bytes | str | dict[str, Any] | None = None,
        media: str = "application/json", **headers: str,
    ) -> Any:  # fmt: skip
        data = json.dumps(body) if isinstance(body, dict) else body or ""
        sent = {"Prefer": "wait=0", **headers}
        return self.client.generic(method, path, data, content_type=media, headers=sent)

    def json(self, *arguments: Any, **more: Any) -> tuple[int, Any]:
        answer = self(*arguments, **more)
        return answer.status_code, answer.json()


def assert_refused(answer: Any, status: int, **expected: Any) -> None:
    """In the one error shape, with these keys."""
    assert answer.status_code == status, (answer.status_code, answer.content[:300])
    body = answer.json()
    assert answer.headers["Content-Type"] == "application/json"
    assert isinstance(body["error"], str)
    assert body["error"]
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert {name: body.get(name) for name in expected} == expected


def through_wsgi(
    method: str = "GET", path: str = "/api/v1/sessions", query: str = "", body: bytes = b"", **environ: Any
) -> tuple[int, Any]:
    """Through WSGI, of which Django's test client takes only the inner part; in this thread and transaction. The real
    server's whole way in is test_wire's."""
    status: list[str] = []

    def start(line: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
        status.append(line)
        return lambda _: None

    usual: dict[str, Any] = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "SERVER_NAME": "localhost",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "localhost", "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": io.BytesIO(body), "wsgi.url_scheme": "http", "wsgi.errors": io.StringIO(),
        "CONTENT_LENGTH": str(len(body)),
    }  # fmt: skip
    # A request's beginning and end close idle connections, and the test's own transaction with them.
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    try:
        pieces = PlainMediaType(WSGIHandler())({**usual, **environ}, start)
        text = b"".join(pieces).decode()
    finally:
        for signal in signals:
            signal.connect(close_old_connections)
    return int(status[0].split()[0]), json.loads(text) if text.startswith("{") else text
