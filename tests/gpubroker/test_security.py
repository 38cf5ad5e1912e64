"""What a hostile network meets: headers, bodies without end, and a login that cannot be guessed."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client

from gpubroker.common import login
from gpubroker.common.models import LoginFailure
from tests.harness import MovableClock
from tests.stack import ROOT

LIMIT = 1_048_576
EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
DATA = "default-src 'none'; frame-ancestors 'none'"


# --- headers ------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/sessions", 200),
        ("GET", "/api/v1/sessions/none", 404),
        ("PATCH", "/api/v1/sessions", 405),
        ("GET", "/nothing", 404),
        ("GET", "/metrics", 200),
        ("GET", "/api/schema", 200),
        ("GET", "/", 302),
        ("GET", "/static/nothing.css", 404),
        ("GET", "/%00", 404),
    ],
)
def test_every_answer_carries_the_safety_headers(method: str, path: str, status: int) -> None:
    answer = Client(raise_request_exception=False).generic(method, path, headers={"Origin": "https://evil.example"})
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in EVERYWHERE} == EVERYWHERE
    assert answer.headers["Content-Security-Policy"] == DATA
    assert "Strict-Transport-Security" not in answer.headers
    assert [name for name in answer.headers if name.lower().startswith("access-control")] == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "scripts"),
    # Alpine.js, which the console's theme is built on, compiles the expressions in its attributes.
    [("/api/docs", []), ("/admin/login/", ["script-src 'self' 'unsafe-eval'", "script-src-attr 'none'"])],
)
def test_pages_run_only_our_own_scripts_and_need_no_other(path: str, scripts: list[str]) -> None:
    page = Client().get(path)
    policy = page.headers["Content-Security-Policy"].split("; ")
    assert policy[0] == "default-src 'self'"
    assert [rule for rule in policy if rule.startswith("script-src")] == scripts
    html = page.content.decode()
    assert [tag for tag in re.findall(r"<script\b[^>]*>", html) if ' src="/' not in tag] == []
    assert re.findall(r"\son\w+=", html) == []
    for source in re.findall(r"<script[^>]* src=\"(/[^\"]+)\"", html):
        script = Client().get(source.replace("&amp;", "&"))
        assert script.status_code == 200
        assert "javascript" in script.headers["Content-Type"]


@pytest.mark.django_db
def test_https_is_insisted_on_where_it_is_the_rule(settings: Any) -> None:
    settings.SECURE = True
    assert Client().get("/api/v1/sessions").headers["Strict-Transport-Security"] == "max-age=31536000"
    settings.SECURE = False
    assert "Strict-Transport-Security" in Client().get("/api/v1/sessions", secure=True).headers
    assert "Strict-Transport-Security" not in Client().get("/ready", headers={"X-Forwarded-Proto": "https"}).headers


@pytest.mark.parametrize(
    ("environ", "read"),
    [
        ({}, [False, False, None]),
        ({"SECURE": "1"}, [True, True, None]),
        ({"TRUSTED_PROXIES": "1"}, [False, False, ["HTTP_X_FORWARDED_PROTO", "https"]]),
    ],
)
def test_cookies_and_proxies_are_settings(tmp_path: Path, environ: dict[str, str], read: list[Any]) -> None:
    names = ["SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_PROXY_SSL_HEADER"]
    script = (
        f"import json; from gpubroker import settings as s; print(json.dumps([getattr(s, n, None) for n in {names}]))"
    )
    own = {"PATH": os.environ["PATH"], "GPUBROKER_ENV_FILE": "", "GPUBROKER_DATA_DIR": str(tmp_path), **environ}
    done = subprocess.run([sys.executable, "-c", script], env=own, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == read


# --- bodies -------------------------------------------------------------------------------------


class Unread(io.BytesIO):
    """A body that nobody may touch."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("the body was read")


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/api/v1/sessions", "/admin/login/", "/health"])
@pytest.mark.parametrize("declared", [str(LIMIT + 1), "9" * 40])
def test_a_body_that_says_that_it_is_too_large_is_not_read(path: str, declared: str) -> None:
    environ: dict[str, Any] = {"CONTENT_LENGTH": declared, "wsgi.input": Unread(), "CONTENT_TYPE": "application/json"}
    answer = Client(raise_request_exception=False).post(path, **environ)
    assert answer.status_code == 413
    assert answer.json() == {
        "error": "the request body is larger than 1 MB",
        "request_id": answer.headers["X-Request-ID"],
    }


@pytest.mark.django_db
@pytest.mark.parametrize("declared", ["-1", "ten", "1e3", "٣"])
def test_a_length_that_is_none_is_refused(declared: str) -> None:
    client = Client(raise_request_exception=False)
    environ: dict[str, Any] = {"CONTENT_LENGTH": declared, "wsgi.input": io.BytesIO(b"{}")}
    answer = client.post("/api/v1/sessions", **environ)
    assert (answer.status_code, answer.json()["error"]) == (400, "the Content-Length is not a number")


@pytest.mark.django_db
def test_a_megabyte_is_read_and_nesting_without_end_is_not(market: Any) -> None:
    client = Client(raise_request_exception=False)
    body = b'{"consumer_id": "' + b"x" * (LIMIT - 19) + b'"}'
    assert len(body) == LIMIT
    assert client.post("/api/v1/sessions", body, content_type="application/json").status_code == 400
    deep = client.post("/api/v1/sessions", b"[" * 500_000, content_type="application/json")
    assert (deep.status_code, deep.json()["error"]) == (400, "malformed JSON: the body is nested too deeply")


# --- the admin's login --------------------------------------------------------------------------

RIGHT = "correct-horse-battery"


@pytest.fixture
def root(db: None) -> None:
    get_user_model().objects.create_superuser("root", password=RIGHT)


def attempt(password: str, name: str = "root", remote: str = "10.0.0.1") -> Any:
    return Client().post("/admin/login/", {"username": name, "password": password}, REMOTE_ADDR=remote)


def test_five_wrong_passwords_lock_also_the_right_one(root: None, time: MovableClock) -> None:
    for _ in range(5):
        page = attempt("wrong")
        assert page.status_code == 200
        assert login.LOCKED not in page.content.decode()
    for password in (RIGHT, "wrong", RIGHT):
        page = attempt(password)
        assert page.status_code == 200
        assert login.LOCKED in page.content.decode()
    assert attempt(RIGHT, remote="10.0.0.2").status_code == 302
    time.advance(minutes=14, seconds=50)
    assert login.LOCKED in attempt(RIGHT).content.decode()
    time.advance(seconds=11)
    assert attempt(RIGHT).status_code == 302
    assert not LoginFailure.objects.exists()


def test_a_login_forgives_what_was_wrong_before(root: None) -> None:
    for _ in range(3):
        for _ in range(4):
            attempt("wrong")
        assert attempt(RIGHT, name="root").status_code == 302


def test_other_spellings_of_a_name_are_no_more_tries(root: None) -> None:
    for name in ("root", "ROOT", "Root", "rOOt", "roOT"):
        attempt("wrong", name)
    assert login.LOCKED in attempt(RIGHT).content.decode()


def test_one_address_may_not_try_every_name(root: None) -> None:
    for number in range(login.FAILURES_PER_ADDRESS):
        attempt("wrong", f"user-{number}")
    assert login.LOCKED in attempt(RIGHT).content.decode()
    assert attempt(RIGHT, remote="10.0.0.2").status_code == 302
    assert LoginFailure.objects.count() == login.FAILURES_PER_ADDRESS


def test_what_was_typed_as_a_name_is_not_kept(root: None) -> None:
    attempt("wrong", name="my-secret-password")
    assert "my-secret-password" not in str(list(LoginFailure.objects.values()))


@pytest.mark.django_db(transaction=True)
def test_many_at_once_get_no_more_tries_than_one() -> None:
    get_user_model().objects.create_superuser("root", password=RIGHT)
    pages: list[str] = []

    def guess() -> None:
        try:
            pages.append(attempt("wrong").content.decode())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=guess) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pages) == 12
    assert sum(login.LOCKED not in page for page in pages) <= 5
    assert login.LOCKED in attempt(RIGHT).content.decode()
