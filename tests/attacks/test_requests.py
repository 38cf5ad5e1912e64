"""Paths, headers and limits: traversal, forged hosts and proxies, methods in disguise, caches, CORS, waiting."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.test import Client

from gpubroker.common import ratelimit
from sessions_app.models import Rental, Session
from sessions_app.states import Debt
from tests import keys
from tests.attacks.conftest import World
from tests.attacks.surface import ALL, Attacker, Operation, assert_refused, books, through_wsgi

PATHS = [
    "/static/../../../../etc/passwd", "/static/%2e%2e/%2e%2e/gpubroker/settings/__init__.py", "/static//etc/passwd",
    "/static/..%5c..%5cetc%5cpasswd", "/static/admin/../../../manage.py", "/..%2f..%2fetc/passwd", "/etc/passwd",
    "/api/v1/../../admin/", "/api/v1/sessions/..%2f..%2fkeys", "/api/v1/%2e%2e/v1/keys", "/api/v1//keys",
    "//api/v1/keys",
    "/api/v1/keys;x=1", "/API/V1/KEYS", "/api/v1/keys%20", "/api/v1/keys/../keys", "/api/v1/.env", "/.git/config",
    "/.env",
    "/api/v1/%ED%A0%80", "/api/v1/%FF%FE", "/api/v1/keys%0d%0aX-Evil:%201", "/server-status", "/api/v1/sessions.json",
    "/api/v2/sessions", "/api/v1/keys%23", "/static/%ff", "/debug/", "/api/v1/keys%3f",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_paths_lead_nowhere_else(world: World, path: str) -> None:
    before = books()
    for method in ("GET", "POST", "DELETE"):
        answer = world.staff(method, path)
        assert_refused(answer, 404)
        assert "X-Evil" not in answer.headers
    assert books() == before


def test_dots_are_an_id_like_any_other(world: World) -> None:
    for dots in ("..", "%2e%2e", ".", "~", "%2e"):
        answer = world.staff("GET", f"/api/v1/sessions/{dots}")
        assert_refused(answer, 404, error=f"session {dots.replace('%2e', '.')} not found")


def test_an_encoded_slash_asks_for_no_less(world: World) -> None:
    """The path that results is judged, not the one that was written."""
    before = books()
    assert_refused(world.me("POST", f"/api/v1/sessions/{world.theirs}%2fdone"), 404)
    assert_refused(Attacker()("POST", f"/api/v1/sessions/{world.mine}%2fdone"), 401)
    assert books() == before


def test_urls_without_end(world: World) -> None:
    long = "x" * 500_000
    assert_refused(world.me("GET", f"/api/v1/sessions/{long}"), 404)
    assert_refused(world.me("GET", f"/api/v1/{long}"), 404)
    answer = world.me("GET", f"/api/v1/sessions?status={long}")
    assert_refused(answer, 400, field="status")
    assert len(answer.content) < 1_000
    assert world.me("GET", f"/api/v1/sessions?unknown={long}").status_code == 200
    many = "&".join(f"a{number}=1" for number in range(1_200))
    assert_refused(world.me("GET", f"/api/v1/sessions?{many}"), 400, error="too many parameters")


HOSTS = [
    "evil.example", "localhost.evil.example", "localhost@evil.example", "evil.example:80", "[::1", "", " ", "a b",
    "localhost,evil.example", "localhost/evil", "e\x1b[31mvil", "localhost:80:80", "..", "xn--", "\u202e",
    "a\r\nX-Evil: 1",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_other_hosts_are_refused_in_plain_words(world: World, settings: Any, caplog: Any, host: str) -> None:
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
    with caplog.at_level(logging.DEBUG):
        for path in ("/api/v1/sessions", "/health", "/admin/login/", "/api/docs"):
            answer = world.me("GET", path, Host=host)
            assert_refused(answer, 400)
            assert "ALLOWED_HOSTS" in answer.json()["error"]
            assert "X-Evil" not in answer.headers
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []  # no traceback for each


FORGED = {
    "Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "1",
    "X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=1.2.3.4;host=evil.example;proto=https",
    "X-Forwarded-Prefix": "/evil", "X-Original-URL": "/admin/", "X-Rewrite-URL": "/api/v1/keys",
    "X-Script-Name": "/evil",
    "Origin": "https://evil.example", "Referer": "https://evil.example/", "Via": "1.1 evil.example",
}  # fmt: skip


def test_forged_hosts_and_proxies_stand_in_no_answer(world: World, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]  # as where it listens on a network
    for path in (
        "/",
        "/api/docs",
        "/api/schema",
        "/admin/",
        "/admin/login/",
        "/health",
        "/api/v1/sessions",
        "/favicon.ico",
    ):
        answer = world.me("GET", path, None, "application/json", **FORGED)
        assert answer.status_code in (200, 302, 503)
        assert "evil" not in answer.content.decode() + str(answer.headers)
    assert world.me("GET", "/", None, "application/json", **FORGED).headers["Location"] == "/admin/"


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_methods_in_disguise(world: World, name: str) -> None:
    before, path = books(), f"/api/v1/sessions/{world.mine}"
    for method in ("DELETE", "delete", "PUT"):
        assert_refused(world.me("POST", path, {}, **{name: method}), 405)
        assert world.me("GET", path, None, "application/json", **{name: method}).status_code == 200
        assert_refused(world.me("POST", f"{path}?_method={method}&method={method}", {"_method": method}), 405)
    assert books() == before


@pytest.mark.parametrize("operation", ALL, ids=lambda each: each.name)
def test_other_methods_are_405_and_change_nothing(world: World, operation: Operation) -> None:
    path = operation.at(**world.ids)
    taken = {each.method for each in ALL if each.path == operation.path} | {"OPTIONS"} | {"HEAD"}
    before = books()
    for method in sorted({"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "X" * 500} - taken):
        status, answer = through_wsgi(method, path, HTTP_X_API_KEY=world.secrets[1])
        assert (status, set(answer)) == (405, {"error", "request_id"})
    assert books() == before


def test_no_other_site_may_ask(world: World) -> None:
    headers = {
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "x-api-key",
        "Origin": "null",
    }
    for origin in ("null", "https://evil.example", "http://localhost:8080", "http://localhost:8080.evil.example"):
        for method in ("OPTIONS", "GET"):
            answer = world.me(method, "/api/v1/sessions", None, "application/json", **{**headers, "Origin": origin})
            assert answer.status_code == 200
            assert [name for name in answer.headers if name.lower().startswith("access-control")] == []


@pytest.mark.parametrize("operation", [each for each in ALL if each.method == "GET"], ids=lambda each: each.name)
def test_what_a_key_sees_is_kept_by_no_cache(world: World, operation: Operation) -> None:
    """A cache in between does not know that ``X-API-Key`` says whose answer it is."""
    for attacker in (world.me, world.staff, Attacker()):
        answer = attacker("GET", operation.at(**{**world.ids, "session_id": world.mine}))
        assert answer.headers["Cache-Control"] == "no-store"


def test_secrets_are_kept_by_no_cache(world: World) -> None:
    order = {"consumer_id": "me", "offer_id": "vastai-3", "workload_type": "llm", "reservation_hours": 1}
    answer = world.me("POST", "/api/v1/sessions", {**order, "ssh_key_type": "ed25519"})
    assert "PRIVATE KEY" in answer.json()["ssh_private_key"]
    assert answer.headers["Cache-Control"] == "no-store"


PREFERENCES = [
    "wait=-1", "wait=", "wait=99999999999999999999", "wait=1e9", "wait=NaN", "wait=0x10", "wait =1", "wait=١",
    "wait=0;wait=60", "wait=1.5",
    "respond-async, wait=00000", "x" * 100_000, "wait=" + "0," * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("preference", PREFERENCES, ids=lambda text: text[:24])
def test_waiting_is_bounded_whatever_is_preferred(world: World, settings: Any, preference: str) -> None:
    settings.DESTROY_WAIT_SECONDS = 0
    session = Session.objects.get(id=world.mine)
    Rental.objects.filter(session=session).update(state=Debt.CREATING)  # so that there is something to wait for
    status, answer = world.me.json("DELETE", f"/api/v1/sessions/{world.mine}", Prefer=preference)
    assert (status, answer["session_id"]) == (202, world.mine)


@pytest.mark.parametrize("key", ["", "x" * 256, "ключ", "a\tb", "a\x00b", "é", "a\r\nb", "\x7f"])
def test_an_idempotency_key_that_is_none(world: World, key: str) -> None:
    before = books()
    order = {"consumer_id": "me", "offer_id": "vastai-3", "workload_type": "llm", "reservation_hours": 1}
    for path, body in (("/sessions", order), (f"/sessions/{world.mine}/done", {})):
        answer = world.me("POST", f"/api/v1{path}", body, **{"Idempotency-Key": key})
        assert_refused(answer, 400, field="Idempotency-Key")
    assert books() == before


def test_an_idempotency_key_of_another_opens_nothing(world: World) -> None:
    """The same key and the same body, asked by another: its own answer, without the first one's private key."""
    order = {"consumer_id": "me", "offer_id": "vastai-3", "workload_type": "llm", "reservation_hours": 1}
    headers = {"Idempotency-Key": "guessed"}
    first = world.me("POST", "/api/v1/sessions", {**order, "ssh_key_type": "ed25519"}, **headers)
    assert first.status_code == 201
    them = Attacker(keys.make("them").secret)
    answer = them("POST", "/api/v1/sessions", {**order, "ssh_key_type": "ed25519"}, **headers)
    assert_refused(answer, 403)
    assert "Idempotency-Replayed" not in answer.headers
    assert "PRIVATE" not in answer.content.decode()


@pytest.fixture
def limited(world: World, settings: Any) -> World:
    settings.API_RATE_PER_MINUTE = 5
    settings.REDIS_URL = ""
    ratelimit._tally.cache_clear()
    return world


def test_no_disguise_gets_more_than_the_limit(limited: World) -> None:
    """Forged addresses, other spellings of the path, other methods, unknown ids, fresh keys of the same address."""
    attacker, paths = limited.me, ["/sessions", "/sessions/", "/sessions?x=1", "/sessions/none", "/inventory", "/costs"]
    answers = [
        attacker(method, f"/api/v1{path}", None, "application/json", **{
            "X-Forwarded-For": f"203.0.113.{number}", "X-Real-IP": f"203.0.113.{number}", "User-Agent": f"{number}",
            "X-Request-ID": f"r{number}", "Cookie": f"a={number}", "Accept": "*/*",
        })
        for number, (method, path) in enumerate((m, p) for p in paths for m in ("GET", "OPTIONS", "HEAD"))
    ]  # fmt: skip
    assert [answer.status_code != 429 for answer in answers] == [True] * 5 + [False] * 13
    assert {answer.headers["Retry-After"].isdigit() for answer in answers[5:]} == {True}


def test_guessing_keys_is_limited_by_address(limited: World) -> None:
    wrong = [f"gpb_aaaaaaa{letter}_" + letter * 40 for letter in "abcdefghij"]
    statuses = [
        Client(raise_request_exception=False).get("/api/v1/sessions", headers={"X-API-Key": key}).status_code
        for key in wrong
    ]
    assert statuses == [401] * 5 + [429] * 5
    assert limited.me("GET", "/api/v1/sessions").status_code == 200  # a good key has its own count


def test_guessing_agent_tokens_is_limited_by_address(limited: World) -> None:
    body = {"gpu_utilization": 1, "memory_used_mb": 1, "ssh_connections": 1}
    path = f"/api/v1/sessions/{limited.mine}/heartbeat"
    answers = [Attacker()("POST", path, {**body, "agent_token": f"{number}"}).status_code for number in range(8)]
    assert answers == [401] * 5 + [429] * 3
