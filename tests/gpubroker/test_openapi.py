"""The OpenAPI schema: complete, valid, without warnings, the same as the file in docs/, and a page to try it on."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from gpubroker.openapi import operations

# All of it on one worker: what the module's fixture makes is dear.
pytestmark = pytest.mark.xdist_group("openapi")

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """Validated, and any warning fails."""
    out = io.StringIO()
    call_command("spectacular", format="openapi-json", validate=True, fail_on_warn=True, stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def resolved(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    found: Any = schema
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    assert isinstance(found, dict)
    return found


def shapes(schema: dict[str, Any], shape: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives that a body may have."""
    shape = resolved(schema, shape)
    options = [*shape.get("anyOf", []), *shape.get("oneOf", [])]
    return [each for option in options for each in shapes(schema, option)] or [shape]


def is_error(shape: dict[str, Any]) -> bool:
    return {"error", "request_id"} <= set(shape.get("required", []))


def test_the_file_in_docs_is_this_schema(schema: dict[str, Any]) -> None:
    assert json.loads(KEPT.read_text()) == schema, "the API's description has changed: run `make schema` and commit it"


def test_it_says_what_it_is(schema: dict[str, Any]) -> None:
    assert schema["openapi"] == "3.1.1"
    assert schema["servers"][0]["url"] == "/"
    assert len(schema["info"]["description"]) > 500
    assert set(schema["components"]["securitySchemes"]) == {"bearerKey", "headerKey"}
    assert schema["components"]["securitySchemes"]["headerKey"]["name"] == "X-API-Key"


def test_every_path_of_the_seed_is_there(schema: dict[str, Any]) -> None:
    found = {(method.upper(), re.sub(r"\{\w+\}", "{}", path)) for path, method, _ in operations(schema)}
    promised = {
        ("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"), ("GET", "/api/v1/inventory"),
        ("GET", "/api/v1/inventory/{}"), ("GET", "/api/v1/inventory/{}/compatible-templates"),
        ("GET", "/api/v1/templates"), ("GET", "/api/v1/templates/{}"), ("POST", "/api/v1/sessions"),
        ("GET", "/api/v1/sessions"), ("GET", "/api/v1/sessions/{}"), ("POST", "/api/v1/sessions/{}/done"),
        ("POST", "/api/v1/sessions/{}/extend"), ("DELETE", "/api/v1/sessions/{}"),
        ("GET", "/api/v1/sessions/{}/diagnostics"), ("GET", "/api/v1/costs"), ("GET", "/api/v1/costs/summary"),
    }  # fmt: skip
    assert promised - found == set()


def test_every_operation_can_be_understood(schema: dict[str, Any]) -> None:
    lacking = []
    tags = {tag["name"] for tag in schema["tags"]}
    for path, method, operation in operations(schema):
        name = f"{method.upper()} {path}"
        good = [resolved(schema, answer) for code, answer in operation["responses"].items() if code < "300"]
        bodies = [body for answer in good for body in answer.get("content", {}).values()]
        request = operation.get("requestBody", {}).get("content", {}).values()
        checks = {
            "summary": 3 < len(operation["summary"]) <= 80,
            "description": len(operation["description"]) > 15,
            "a known tag": bool(operation["tags"]) and set(operation["tags"]) <= tags,
            "an example of the answer": all({"example", "examples"} & set(body) for body in bodies) and bool(good),
            "an example of the body": all({"example", "examples"} & set(body) for body in request),
            "descriptions of its answers": all(
                resolved(schema, each)["description"] for each in operation["responses"].values()
            ),
        }
        lacking += [f"{name}: {what}" for what, there in checks.items() if not there]
    assert lacking == []


def test_every_operation_names_its_errors_in_the_one_shape(schema: dict[str, Any]) -> None:
    lacking = []
    for path, method, operation in operations(schema):
        if not path.startswith("/api/v1/"):
            continue
        expected = {"401", "403", "429", "500", "503"}
        # An agent whose session is not there is told no more than one with a wrong token: 401.
        expected |= {"404"} if "{" in path and not path.endswith("/heartbeat") else set()
        expected |= {"400", "413", "415"} if "requestBody" in operation else set()
        expected |= {"400"} if any(each.get("in") == "query" for each in operation["parameters"]) else set()
        lacking += [f"{method} {path}: {code}" for code in expected - set(operation["responses"])]
        for code, answer in operation["responses"].items():
            body = resolved(schema, answer).get("content", {}).get("application/json")
            if code >= "400" and not (body and all(is_error(shape) for shape in shapes(schema, body["schema"]))):
                lacking.append(f"{method} {path}: {code} has another shape")
            if code >= "400" and not (body and {"example", "examples"} & set(body)):
                lacking.append(f"{method} {path}: {code} has no example")
    assert lacking == []


def test_headers_are_parameters_where_they_are_used(schema: dict[str, Any]) -> None:
    for path, method, operation in operations(schema):
        names = {resolved(schema, parameter)["name"] for parameter in operation["parameters"]}
        assert "X-Request-ID" in names
        assert ("Idempotency-Key" in names) is (method == "post"), path
        for answer in operation["responses"].values():
            if "headers" in resolved(schema, answer):
                assert "X-Request-ID" in resolved(schema, answer)["headers"]
    create = schema["paths"]["/api/v1/sessions"]["post"]
    assert "Prefer" in {resolved(schema, parameter)["name"] for parameter in create["parameters"]}


def test_a_created_session_links_to_all_that_can_be_done_with_it(schema: dict[str, Any]) -> None:
    links = schema["paths"]["/api/v1/sessions"]["post"]["responses"]["201"]["links"]
    on_a_session = [each["operationId"] for path, _, each in operations(schema) if "/sessions/{session_id}" in path]
    assert set(links) == {*on_a_session, "get_costs"}
    assert links["get_session"]["parameters"] == {"session_id": "$response.body#/session/id"}


def test_ids_are_unique_and_nothing_points_nowhere(schema: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(schema)]
    assert len(ids) == len(set(ids))
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(schema))):
        assert resolved(schema, {"$ref": reference})


@pytest.mark.django_db
def test_the_page_to_try_it_loads_all_that_it_names() -> None:
    client = Client()
    page = client.get("/api/docs").content.decode()
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(named) >= 4
    for address in named:
        answer = client.get(address)
        assert answer.status_code == 200, address
        b"".join(answer) if answer.streaming else answer.content
    assert client.get("/favicon.ico", follow=True).status_code == 200
    assert client.get("/api/schema", headers={"Accept": "application/json"}).json()["openapi"] == "3.1.1"
