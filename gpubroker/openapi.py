"""What the OpenAPI schema says of every operation, and of the paths that are not API views.

drf-spectacular calls :func:`complete` with the schema that it made of the views. Here come the common headers, the
errors that any request can meet, summaries, links from a session's creation to what can be done with it, and
``/health``, ``/ready`` and ``/metrics``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gpubroker import openapi_text as text
from gpubroker.common.schema import ERRORS, error_example

Schema = dict[str, Any]
ERROR_REF = {"$ref": "#/components/schemas/ErrorSchema"}
#: Names of ``components/responses``, by status.
SHARED_ERRORS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 406: "NotAcceptable", 413: "TooLarge",
    415: "UnsupportedMediaType", 429: "TooManyRequests", 500: "ServerError", 503: "Unavailable",
}  # fmt: skip
#: Any request under ``/api/v1/`` can meet these; one with a body or a query also the others.
ALWAYS = (401, 403, 406, 429, 500, 503)
WITH_BODY = (400, 413, 415)
EXTRA_HEADERS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
WAITS = ("create_session", "destroy_session")


def complete(result: Schema, generator: Any, request: Any, public: bool) -> Schema:
    """The postprocessing hook."""
    result["info"]["description"] = text.DESCRIPTION
    result["servers"] = text.SERVERS
    result["tags"] = [{"name": name, "description": words} for name, words in text.TAGS.items()]
    components = result.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    components["parameters"] = text.PARAMETERS
    components["headers"] = text.HEADERS
    components["responses"] = {name: _error_response(status) for status, name in SHARED_ERRORS.items()}
    for _, _, operation in operations(result):
        _complete_operation(operation)
    _link_sessions(result)
    schemas["Health"], schemas["Ready"] = text.HEALTH_SCHEMA, text.READY_SCHEMA
    result["paths"] = {**text.SERVICE_PATHS, **result["paths"]}
    return result


def operations(schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    """(path, method, operation) of everything under ``paths``."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if method in ("get", "post", "put", "patch", "delete"):
                yield path, method, operation


def _error_response(status: int) -> Schema:
    return {
        "description": ERRORS[status][0],
        "headers": _headers(status),
        "content": {"application/json": {"schema": ERROR_REF, "example": error_example(status)}},
    }


def _headers(status: int) -> Schema:
    names = ["X-Request-ID", *([EXTRA_HEADERS[status]] if status in EXTRA_HEADERS else [])]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _complete_operation(operation: Schema) -> None:
    operation["description"] = _one_line_breaks(operation.get("description", ""))
    operation.setdefault("summary", _first_sentence(operation["description"]))
    parameters = operation.setdefault("parameters", [])
    for parameter in parameters:
        known = text.PATH_PARAMETERS.get(parameter["name"]) if parameter["in"] == "path" else None
        if known is not None:
            parameter["description"], parameter["example"] = known
    _add_headers(operation)
    responses = operation["responses"]
    wanted = [*ALWAYS, *(WITH_BODY if "requestBody" in operation else ())]
    if any(parameter.get("in") == "query" for parameter in parameters):
        wanted.append(400)
    for status in wanted:
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{SHARED_ERRORS[status]}"})
    for code, response in responses.items():
        if "$ref" not in response:
            _complete_response(int(code), response)
    operation["responses"] = dict(sorted(responses.items()))


def _complete_response(status: int, response: Schema) -> None:
    response["headers"] = {**_headers(status), **response.get("headers", {})}
    response["description"] = response.get("description") or text.ANSWERS.get(status) or ERRORS[status][0]
    body = response.get("content", {}).get("application/json")
    if status < 400 or body is None:
        return
    if body["schema"] == ERROR_REF:
        if not {"example", "examples"} & set(body):
            body["example"] = error_example(status)
    elif status in ALWAYS:  # the operation's own shape, or what any request can meet
        body["schema"] = {"anyOf": [body["schema"], ERROR_REF]}


def _add_headers(operation: Schema) -> None:
    parameters = operation["parameters"]
    wanted = ["X-Request-ID", *(["Prefer"] if operation["operationId"] in WAITS else [])]
    given = {parameter.get("name") for parameter in parameters if parameter.get("in") == "header"}
    parameters += [{"$ref": f"#/components/parameters/{name}"} for name in wanted if name not in given]


def _one_line_breaks(description: str) -> str:
    """A docstring's own line breaks are no paragraphs; ``code`` is `code` in Markdown."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", description.strip())]
    return "\n\n".join(paragraphs).replace("``", "`")


def _first_sentence(description: str) -> str:
    return re.split(r"(?<=[.!?])\s|[:;]\s", description, maxsplit=1)[0].rstrip(".:;")


def _link_sessions(schema: Schema) -> None:
    """From the answer of a create to every operation on that session: what OpenAPI calls links."""
    create = schema["paths"].get("/api/v1/sessions", {}).get("post")
    created = create["responses"].get("201") if create else None
    if created is None:
        return
    links = created.setdefault("links", {})
    for path, _, operation in operations(schema):
        if path.startswith("/api/v1/sessions/{session_id}"):
            links[operation["operationId"]] = {
                "operationId": operation["operationId"],
                "parameters": {"session_id": "$response.body#/session/id"},
                "description": operation["summary"],
            }
    costs = schema["paths"].get("/api/v1/costs", {}).get("get")
    if costs:
        links["get_costs"] = {
            "operationId": costs["operationId"],
            "parameters": {"query.session_id": "$response.body#/session/id"},
            "description": costs["summary"],
        }
