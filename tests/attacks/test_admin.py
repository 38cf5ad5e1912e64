"""The admin from outside: cookies, frames, redirects, forged forms."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from tests.attacks.surface import through_wsgi

pytestmark = pytest.mark.django_db
RIGHT = "correct-horse-battery"


@pytest.fixture
def root() -> None:
    get_user_model().objects.create_superuser("root", password=RIGHT)


def login(where: str = "/admin/login/", **headers: str) -> Any:
    return Client().post(where, {"username": "root", "password": RIGHT}, headers=headers or None)


def test_cookies_are_for_us_alone(root: None) -> None:
    page = login()
    assert page.status_code == 302
    session, token = page.cookies["sessionid"], page.cookies["csrftoken"]
    assert (session["httponly"], session["samesite"], session["path"], session["domain"]) == (True, "Lax", "/", "")
    assert (token["samesite"], token["domain"]) == ("Lax", "")


def test_a_login_gives_a_new_session(root: None) -> None:
    """One that was planted before is worth nothing."""
    client = Client()
    client.cookies["sessionid"] = "planted" * 4
    page = client.post("/admin/login/", {"username": "root", "password": RIGHT})
    assert page.cookies["sessionid"].value != "planted" * 4


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
     "https:evil.example", "///evil.example", "%2f%2fevil.example", "/%09/evil.example", "http:///evil.example"],
)  # fmt: skip
def test_a_login_leads_to_no_other_site(root: None, target: str) -> None:
    page = login(f"/admin/login/?next={target}")
    assert page.status_code == 302
    assert re.match(r"^/(?![/\\])", page.headers["Location"])


def test_a_form_of_another_site_is_refused(root: None) -> None:
    client = Client(enforce_csrf_checks=True)
    body = {"username": "root", "password": RIGHT}
    for headers in (
        {},
        {"X-CSRFToken": "a" * 64},
        {"Origin": "https://evil.example"},
        {"Referer": "https://evil.example/"},
    ):
        answer = client.post("/admin/login/", body, headers=headers)
        assert answer.status_code == 403
        assert "sessionid" not in answer.cookies
    assert RIGHT not in answer.content.decode()


@pytest.mark.parametrize("path", ["/admin/", "/admin/login/", "/api/docs", "/api/schema"])
def test_no_frame_holds_a_page(path: str) -> None:
    page = Client().get(path)
    assert page.headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/admin/", "/admin/billing/apikey/", "/admin/billing/apikey/add/", "/admin/nothing/"])
def test_without_a_login_nothing_is_told(path: str) -> None:
    for method in ("get", "post"):
        page = getattr(Client(), method)(path)
        assert page.status_code == 302
        assert page.headers["Location"].startswith("/admin/login/?next=")
        assert page.content == b""


def test_an_api_key_opens_no_page_and_a_login_no_api(root: None, settings: Any) -> None:
    from tests import keys

    settings.API_AUTH = "key"
    boss = Client(headers=keys.bearer(keys.staff().secret))
    assert boss.get("/admin/").status_code == 302
    person = Client()
    assert person.login(username="root", password=RIGHT)
    assert person.get("/admin/").status_code == 200
    assert person.get("/api/v1/sessions").status_code == 401
    assert person.post("/api/v1/keys", {}, content_type="application/json").status_code == 401


@pytest.mark.parametrize(
    "cookies",
    ['sessionid="aaaaaaaaaaaaaaaa\\000"', "sessionid=" + "a" * 5_000, 'csrftoken="\\000"', "sessionid=ÿþ", ";;;===;",
     'sessionid="\\012\\015"', "sessionid=' OR 1=1 --", "messages=x; sessionid=../../etc/passwd",
     "a=" + "b; a=" * 2_000],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_cookies_of_any_kind_are_no_login(cookies: str) -> None:
    assert through_wsgi(path="/admin/", HTTP_COOKIE=cookies)[0] == 302
    assert through_wsgi(path="/admin/login/", HTTP_COOKIE=cookies)[0] == 200
    assert through_wsgi(path="/api/v1/templates", HTTP_COOKIE=cookies)[0] == 200


def test_markup_in_what_consumers_say_is_shown_as_text(root: None) -> None:
    from tests import keys

    keys.make("<script>alert(1)</script>", name='"><img src=x onerror=alert(1)>')
    person = Client()
    assert person.login(username="root", password=RIGHT)
    for path in ("/admin/billing/apikey/", "/admin/billing/consumer/"):
        page = person.get(path).content.decode()
        assert "&lt;script&gt;" in page
        assert "<script>alert" not in page
        assert "<img src=x" not in page
