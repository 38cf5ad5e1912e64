"""Who is let in: which headers count, what is open, which scope a method needs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from billing import services
from billing.authentication import presented_key
from tests.harness import MovableClock
from tests.keys import Caller, bearer, make, staff

pytestmark = pytest.mark.django_db
PATHS = ("/api/v1/sessions", "/api/v1/inventory", "/api/v1/costs", "/api/v1/costs/summary", "/api/v1/templates")
OPEN = ("/health", "/ready", "/metrics", "/api/schema", "/api/docs")


@pytest.fixture(params=["open", "key"])
def mode(request: pytest.FixtureRequest, settings: Any) -> str:
    settings.API_AUTH = request.param
    return str(request.param)


@pytest.fixture
def closed(settings: Any) -> None:
    settings.API_AUTH = "key"


def get(headers: dict[str, str], path: str = "/api/v1/sessions") -> Any:
    return Client(raise_request_exception=False).get(path, headers=headers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"])
def test_a_closed_api_asks_everybody_for_a_key(closed: None, path: str, method: str) -> None:
    answer = Client(raise_request_exception=False).generic(method, path)
    assert answer.status_code == 401
    assert answer.json() == {"error": "a valid API key is needed", "request_id": answer.headers["X-Request-ID"]}
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", OPEN)
def test_what_is_always_open(closed: None, path: str) -> None:
    for headers in ({}, bearer("nonsense")):
        assert get(headers, path).status_code in (200, 503)


def test_both_headers_are_understood(mode: str) -> None:
    secret = make().secret
    for headers in (
        {"Authorization": f"Bearer {secret}"}, {"Authorization": f"bearer   {secret} "}, {"X-API-Key": secret},
        {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": secret},
    ):  # fmt: skip
        assert get(headers).status_code == 200


def test_a_wrong_key_is_told_nothing_whatever_the_mode(mode: str, time: MovableClock) -> None:
    right, expired, revoked = make().secret, make(expires_in=timedelta(hours=1)), make()
    services.revoke_key(revoked.key.prefix, by="test")
    time.advance(hours=1)
    presented = [
        {"X-API-Key": "nonsense"}, {"X-API-Key": ""}, {"X-API-Key": right[:-1]}, {"X-API-Key": f"{right},{right}"},
        {"X-API-Key": "a\x00b"}, {"X-API-Key": "ключ"}, {"X-API-Key": "x" * 100_000}, {"X-API-Key": expired.secret},
        {"X-API-Key": revoked.secret}, {"X-API-Key": "gpb_aaaaaaaa_" + "a" * 40},
        {"Authorization": "Bearer"}, {"Authorization": ""}, {"Authorization": f"Bearer {right} {right}"},
        {"Authorization": "Bearer \x00"}, {"Authorization": "Bearer é"},
        {"Authorization": f"Bearer {right}, Bearer {right}"},
        {"Authorization": f"Bearer {right}", "X-API-Key": right}, {"Authorization": "Bearer", "X-API-Key": right},
        {"Authorization": f"Bearer {expired.secret}"}, {"Authorization": f"Bearer\t{revoked.secret}"},
    ]  # fmt: skip
    answers = [get(headers) for headers in presented]
    assert [answer.status_code for answer in answers] == [401] * len(presented)
    assert {answer.json()["error"] for answer in answers} == {"a valid API key is needed"}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert len({tuple(sorted(answer.headers)) for answer in answers}) == 1


def test_the_open_api_needs_no_key_and_honours_one(settings: Any) -> None:
    assert get({}).status_code == 200
    assert get({"Authorization": "Basic dXNlcjpwYXNz"}).status_code == 200
    status, answer = Caller(make(scopes=["read"]).secret)("DELETE", "/sessions/sess-none")
    assert (status, answer["error"]) == (403, "this key lacks the scope spend")


@pytest.mark.parametrize(
    ("authorization", "api_key", "key"),
    [
        (None, None, None),
        ("Bearer a", None, "a"),
        ("BEARER a b", None, "a b"),
        (None, " a ", "a"),
        ("Basic a", None, None),
        ("Basic a", "b", "b"),
        ("Bearer a", "a", ""),
        ("", None, ""),
        ("Bearer", None, ""),
        (None, "", ""),
    ],
)
def test_the_key_in_the_headers(authorization: str | None, api_key: str | None, key: str | None) -> None:
    assert presented_key(authorization, api_key) == key


NEEDS = [
    ("GET", "/sessions", "read"), ("GET", "/inventory", "read"), ("GET", "/costs", "read"),
    ("OPTIONS", "/sessions", "read"), ("HEAD", "/sessions", "read"),
    ("POST", "/sessions", "spend"), ("DELETE", "/sessions/sess-none", "spend"),
    ("POST", "/sessions/sess-none/done", "spend"), ("PUT", "/sessions", "spend"), ("PATCH", "/sessions", "spend"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "scope"), NEEDS)
def test_each_method_needs_its_scope(mode: str, method: str, path: str, scope: str) -> None:
    def status(*scopes: str) -> int:
        client = Client(raise_request_exception=False, headers=bearer(make("lab", scopes).secret))
        return client.generic(method, f"/api/v1{path}", "{}", content_type="application/json").status_code

    other = {"read": "spend", "spend": "read"}[scope]
    assert status(other) == 403
    assert status(scope) not in (401, 403)
    assert status(scope, other) not in (401, 403)
    boss = Client(raise_request_exception=False, headers=bearer(staff().secret))
    assert boss.generic(method, f"/api/v1{path}", "{}", content_type="application/json").status_code not in (401, 403)


def test_options_answers_plainly_and_says_nothing_to_other_sites(mode: str) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST", **bearer(make().secret)}
    answer = Client().options("/api/v1/sessions", headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"methods": ["GET", "POST", "HEAD", "OPTIONS"]})
    assert [name for name in answer.headers if name.lower().startswith("access-control")] == []
