"""Keys and consumers over HTTP: for staff, with the secret shown once."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import keys
from billing.models import ApiKey, Consumer
from tests.harness import MovableClock
from tests.keys import Caller, make, staff

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss() -> Caller:
    return Caller(staff().secret)


def books() -> list[Any]:
    return [list(ApiKey.objects.order_by("pk").values()), list(Consumer.objects.order_by("pk").values())]


def without_use(rows: list[Any]) -> list[Any]:
    return [[{**row, "last_used_at": None} for row in table] for table in rows]


def test_make_use_list_revoke(boss: Caller) -> None:
    status, made = boss("POST", "/keys", {"consumer_id": "lab", "name": "nightly", "expires_in_days": 7})
    assert (status, set(made)) == (201, {"key", "api_key"})
    prefix = made["key"]["prefix"]
    assert made["api_key"].startswith(f"{prefix}_")
    assert {name: made["key"][name] for name in ("consumer_id", "name", "scopes", "state", "last_used_at")} == {
        "consumer_id": "lab", "name": "nightly", "scopes": ["read", "spend"], "state": "active", "last_used_at": None,
    }  # fmt: skip
    assert Caller(made["api_key"])("GET", "/sessions")[0] == 200
    status, listed = boss("GET", "/keys", None)
    assert (status, listed["count"], listed["total"]) == (200, 2, 2)
    assert listed["keys"][0]["prefix"] == prefix
    assert listed["keys"][0]["last_used_at"] is not None
    assert listed["keys"][0]["created_by"] == f"staff:{listed['keys'][1]['prefix']}"
    secret = made["api_key"].rpartition("_")[2]
    assert secret not in str(listed)
    status, revoked = boss("DELETE", f"/keys/{prefix}")
    assert (status, revoked["state"]) == (200, "revoked")
    assert boss("DELETE", f"/keys/{prefix}") == (200, revoked)
    assert Caller(made["api_key"])("GET", "/sessions")[0] == 401
    assert secret not in str(revoked)


def test_the_answer_with_a_secret_is_cached_by_nobody(boss: Caller) -> None:
    answer = boss.client.post("/api/v1/keys", {"consumer_id": "lab"}, content_type="application/json")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")


def test_rotate(boss: Caller, time: MovableClock) -> None:
    old = make("lab", ["read"])
    status, made = boss("POST", f"/keys/{old.key.prefix}/rotate", {"grace_seconds": 60})
    assert (status, made["key"]["rotated_from"], made["key"]["scopes"]) == (201, old.key.prefix, ["read"])
    assert keys.keyring.check(old.secret) is not None
    time.advance(seconds=60)
    assert keys.keyring.check(old.secret) is None
    assert boss("POST", f"/keys/{old.key.prefix}/rotate")[0] == 409
    status, again = boss("POST", f"/keys/{made['key']['prefix']}/rotate", {"grace_seconds": 0})
    assert status == 201
    assert Caller(made["api_key"])("GET", "/sessions")[0] == 401
    assert Caller(again["api_key"])("GET", "/sessions")[0] == 200


def test_a_day_is_the_usual_grace(boss: Caller, time: MovableClock) -> None:
    old = make()
    assert boss("POST", f"/keys/{old.key.prefix}/rotate")[0] == 201
    time.advance(hours=23, minutes=59)
    assert keys.keyring.check(old.secret) is not None
    time.advance(minutes=1, seconds=1)
    assert keys.keyring.check(old.secret) is None


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("consumer_id", {}),
        ("consumer_id", {"consumer_id": "lab", "scopes": ["staff"]}),
        ("consumer_id", {"consumer_id": "x" * 129}),
        ("consumer_id", {"consumer_id": "nul\x00"}),
        ("consumer_id", {"consumer_id": 7}),
        ("scopes", {"consumer_id": "lab", "scopes": []}),
        ("scopes.0", {"consumer_id": "lab", "scopes": ["root"]}),
        ("scopes", {"consumer_id": "lab", "scopes": "read"}),
        ("name", {"consumer_id": "lab", "name": "x" * 101}),
        ("expires_in_days", {"consumer_id": "lab", "expires_in_days": 0}),
        ("expires_in_days", {"consumer_id": "lab", "expires_in_days": 3651}),
        ("expires_in_days", {"consumer_id": "lab", "expires_in_days": 10**30}),
    ],
)
def test_a_bad_wish_is_refused_by_name_and_makes_nothing(boss: Caller, field: str, body: dict[str, Any]) -> None:
    before = without_use(books())
    status, answer = boss("POST", "/keys", body)
    assert (status, answer["field"]) == (400, field)
    assert without_use(books()) == before


def test_what_does_not_exist_is_named(boss: Caller) -> None:
    for method, path in (("DELETE", "/keys/gpb_nothing1"), ("POST", "/keys/gpb_nothing1/rotate")):
        status, answer = boss(method, path)
        assert (status, answer["error"], answer["prefix"]) == (404, "key gpb_nothing1 not found", "gpb_nothing1")


def test_consumers(boss: Caller) -> None:
    status, made = boss("POST", "/consumers", {"consumer_id": "lab"})
    assert (status, made["consumer_id"]) == (201, "lab")
    assert boss("POST", "/consumers", {"consumer_id": "lab"})[0] == 409
    assert boss("POST", "/consumers", {"consumer_id": "atelier"})[0] == 201
    status, listed = boss("GET", "/consumers")
    assert (status, [row["consumer_id"] for row in listed["consumers"]]) == (200, ["atelier", "lab"])
    assert boss("GET", "/consumers?limit=1&offset=1")[1] == {"consumers": [made], "count": 1, "total": 2}


def test_keys_of_one_consumer_by_pages(boss: Caller) -> None:
    for consumer in ("lab", "lab", "atelier"):
        make(consumer)
    status, answer = boss("GET", "/keys?consumer_id=lab&limit=1")
    assert (status, answer["count"], answer["total"], answer["keys"][0]["consumer_id"]) == (200, 1, 2, "lab")
    assert boss("GET", "/keys?limit=0")[0] == 400


@pytest.mark.parametrize("path", ["/keys", "/consumers"])
def test_a_list_costs_the_same_queries_however_long(boss: Caller, path: str) -> None:
    boss("GET", path)
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            assert boss("GET", path)[0] == 200
        counts.append(len(queries))
        for number in range(5):
            make(f"lab-{len(counts)}-{number}")
    assert counts == [2, 2]


REFUSED = [
    ("GET", "/keys", None), ("POST", "/keys", {"consumer_id": "lab"}), ("DELETE", "/keys/{}", None),
    ("POST", "/keys/{}/rotate", {}), ("GET", "/consumers", None), ("POST", "/consumers", {"consumer_id": "lab"}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), REFUSED)
def test_only_staff(settings: Any, method: str, path: str, body: Any) -> None:
    settings.API_AUTH = "key"
    own, target = make(scopes=["read", "spend"]), make("other")
    before = without_use(books())
    status, answer = Caller(own.secret)(method, path.format(target.key.prefix), body)
    assert (status, answer["error"], answer["scope"]) == (403, "this key lacks the scope staff", "staff")
    assert Caller()(method, path.format(target.key.prefix), body)[0] == 401
    assert without_use(books()) == before


@pytest.mark.parametrize(("method", "path", "body"), REFUSED[:4])
def test_an_open_api_makes_no_keys(method: str, path: str, body: Any) -> None:
    """A key made there would outlive the openness; consumers are made by sessions anyway."""
    target = make("other")
    before = books()
    status, answer = Caller()(method, path.format(target.key.prefix), body)
    assert (status, answer["error"]) == (401, "a valid API key is needed")
    assert books() == before
    assert Caller()("POST", "/consumers", {"consumer_id": "lab"})[0] == 201
