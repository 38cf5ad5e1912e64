"""The words and fixed parts of the OpenAPI schema."""

from __future__ import annotations

from typing import Any

DESCRIPTION = """\
One inventory of rentable GPUs at several marketplaces; sessions whose SSH was proved to answer; no machine left behind.

**The usual way**

1. `GET /api/v1/inventory` lists what can be rented now, cheapest first.
2. `POST /api/v1/sessions` rents one of the offers for some hours. Keep `ssh_private_key`: it is shown once.
3. `GET /api/v1/sessions/{session_id}` until `status` is `running`: then somebody has logged in over SSH and seen the
   promised GPUs.
4. `POST /api/v1/sessions/{session_id}/done` when the work is complete. If you never call, the machine is destroyed at
   `expires_at` all the same.

**Errors** are `{"error": <a plain sentence>, "request_id": …}`, often with more keys, such as the `field` at fault.
The request id is also in the header `X-Request-ID` of every answer and in every log line; send your own in the
same header to use that.

**Keys.** A broker that listens only on its own machine may ask for none. Otherwise send
`Authorization: Bearer <key>` or `X-API-Key: <key>`. A key belongs to a consumer and sees that consumer's things only.

**Repeating a POST** is safe with an `Idempotency-Key`: the same key and body give the same answer and nothing happens
twice.

Money is in US dollars, times are UTC, memory and disk are in GB. `price_per_hour` pays for what an offer's
`price_includes` names; the disk has a price of its own, and traffic may cost more: `docs/prices.md` in the repository
tells it per provider.
"""
SERVERS = [
    {"url": "/", "description": "This broker"},
    {"url": "http://localhost:8080", "description": "A broker on this computer, at its usual address"},
]
TAGS = {
    "inventory": "What can be rented, at which price",
    "templates": "Vast.ai's launch templates: an image, its environment and start command under one name",
    "sessions": "Rented machines, from the order to the proof that they are gone",
    "agents": "For the program on a rented machine, with the token that it finds in its environment",
    "costs": "What it cost, up to now",
    "budgets": "What a consumer may spend, what of it is spent and promised, and how long it lasts",
    "keys": "Consumers and their API keys, for staff",
    "webhooks": "Have a URL of yours told what happens: signed, tried for a day, replayable",
    "staff": "What runs, and how the providers are doing, for staff",
    "providers": "The provider accounts: their machines and whose they are, money, keys, templates; for staff",
    "service": "Is the broker itself well?",
}
#: What a status means where the operation does not say it better.
ANSWERS = {200: "The answer", 201: "Made", 202: "Begun, and it goes on"}
_ID = r"^[A-Za-z0-9._-]{1,128}$"
PARAMETERS: dict[str, Any] = {
    "X-Request-ID": {
        "name": "X-Request-ID", "in": "header", "required": False,
        "description": "Your own id for this request, of up to 128 letters, digits, dots, dashes or underscores; "
        "made for you when it is missing or malformed",
        "schema": {"type": "string"}, "example": "nightly-run-7",
    },
    "Prefer": {
        "name": "Prefer", "in": "header", "required": False,
        "description": "`wait=N`: how many seconds (at most 60) to wait for the provider's verdict before answering",
        "schema": {"type": "string"}, "example": "wait=20",
    },
}  # fmt: skip
HEADERS: dict[str, Any] = {
    "X-Request-ID": {"description": "Finds this request in the logs", "schema": {"type": "string", "pattern": _ID}},
    "Retry-After": {"description": "Seconds until it is worth trying again", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to authenticate", "schema": {"type": "string"}},
}
#: name -> (description, example)
PATH_PARAMETERS = {
    "session_id": ("A session's id, from its creation or the list", "sess-abc123"),
    "offer_id": ("An offer's id, from the inventory", "vastai-12345"),
    "hash_id": ("A template's hash, from the list of templates", "a8a44c7363cbca20056020397e3bf072"),
    "provider": ("A provider's name", "vastai"),
    "key_id": ("An SSH key's id at the provider, from the list of keys", "7001"),
    "template_id": ("A template's number at the provider, which stays when its hash changes", "338630"),
    "machine_id": ("The number of a machine that the account rents out", "28441"),
    "prefix": ("The visible part of an API key", "gpb_k3vq7rma"),
    "consumer": ("A consumer's name", "my-application"),
    "webhook_id": ("A webhook's id, from its creation or the list", "wh-3f9c0a81b27d64e5"),
    "delivery_id": ("A message's id, from its body or the list of deliveries", "b1c6a2de-52f0-4c0f-9c11-6a0d6a1f7f5e"),
}


def _object(properties: dict[str, Any], **now_and_then: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**properties, **now_and_then}, "required": list(properties)}


_STAMP = {"type": "string", "format": "date-time"}
_AT = "2026-01-29T12:00:00Z"
HEALTH_SCHEMA = _object(
    {
        "status": {"type": "string", "enum": ["ok", "unavailable"]},
        "timestamp": _STAMP,
        "services": _object(
            {
                "lifecycle": {
                    "type": "string", "enum": ["running", "stopped"], "description": "Does the scheduler tick?",
                },
                "inventory": {
                    "type": "string", "enum": ["ok", "stale", "empty"],
                    "description": "stale: every provider's last good listing failed or is older than 5 minutes",
                },
                "ready": {"type": "string", "enum": ["true", "false"], "description": "Is the start-up sweep over?"},
                "database": {"type": "string", "enum": ["ok", "unavailable"]},
            },
            maintenance={
                "type": "string", "description": "Providers that take no new session now; absent: none",
            },
        ),
    }
)  # fmt: skip
READY_SCHEMA = _object({"ready": {"type": "boolean"}, "timestamp": _STAMP})


def _health(status: str, lifecycle: str, ready: str) -> dict[str, Any]:
    services = {"lifecycle": lifecycle, "inventory": "ok", "ready": ready, "database": "ok"}
    return {"status": status, "timestamp": _AT, "services": services}


def _answer(description: str, schema: str, example: Any) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}},
    }


def _service(operation_id: str, summary: str, description: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {
        "get": {
            "operationId": operation_id, "tags": ["service"], "summary": summary, "description": description,
            "security": [{}], "parameters": [{"$ref": "#/components/parameters/X-Request-ID"}],
            "responses": {**responses, "500": {"$ref": "#/components/responses/ServerError"}},
        }
    }  # fmt: skip


SERVICE_PATHS: dict[str, Any] = {
    "/health": _service(
        "get_health", "Is it well?",
        "503 until the start-up sweep over all providers has finished, and while the database cannot be reached.",
        {
            "200": _answer("It is", "Health", _health("ok", "running", "true")),
            "503": _answer("Starting, or without its database", "Health", _health("unavailable", "stopped", "false")),
        },
    ),
    "/ready": _service(
        "get_ready", "May requests come?", "The short form of `/health`, for load balancers.",
        {
            "200": _answer("They may", "Ready", {"ready": True, "timestamp": _AT}),
            "503": _answer("Not yet", "Ready", {"ready": False, "timestamp": _AT}),
        },
    ),
    "/metrics": _service(
        "get_metrics", "Metrics for Prometheus",
        "In Prometheus text format. Names that begin with `gpu_` come from the books, whatever process answers: among "
        "them `gpu_sessions_active{provider,status}`, `gpu_orphans_detected_total`, `gpu_destroy_failures_total`, "
        "`gpu_ssh_verify_duration_seconds`, `gpu_ssh_verify_failures_total` and "
        "`gpu_provider_api_errors_total{provider,operation}`.",
        {
            "200": {
                "description": "All metrics",
                "content": {"text/plain": {
                    "schema": {"type": "string"},
                    "example": 'gpu_sessions_active{provider="vastai",status="running"} 3.0\n',
                }},
            },
        },
    ),
}  # fmt: skip
