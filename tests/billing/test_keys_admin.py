"""Keys in the admin: made, rotated and revoked by people, the secret shown in the answer and nowhere else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session as LoginSession
from django.test import Client

from billing import keys
from billing.models import ApiKey
from tests.keys import make

pytestmark = pytest.mark.django_db
ADD, LIST = "/admin/billing/apikey/add/", "/admin/billing/apikey/"


def logged_in(*permissions: str, superuser: bool = False) -> Client:
    user = get_user_model().objects.create(username="ann", is_staff=True, is_superuser=superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def ann() -> Client:
    return logged_in(superuser=True)


def secrets_in(page: Any) -> list[str]:
    return re.findall(r"gpb_[a-z2-7]{8}_[a-z2-7]{40}", page.content.decode())


def test_make_a_key(ann: Client) -> None:
    assert ann.get(ADD).status_code == 200
    page = ann.post(ADD, {"consumer": "lab", "scopes": ["read", "spend"], "name": "nightly", "expires_in_days": "30"})
    (secret,) = secrets_in(page)
    assert page.status_code == 200
    assert "no-store" in page.headers["Cache-Control"]
    key = ApiKey.objects.get()
    assert keys.keyring.check(secret) is not None
    assert (str(key.consumer), key.scopes, key.name, key.created_by) == ("lab", "read,spend", "nightly", "admin:ann")
    assert key.expires_at is not None
    assert LogEntry.objects.get().object_repr == key.prefix
    kept = [str(page.cookies), str(ann.cookies), *(str(row.get_decoded()) for row in LoginSession.objects.all())]
    assert secret not in str(kept)
    for path in (LIST, f"{LIST}{key.pk}/change/", f"/admin/billing/consumer/{key.consumer_id}/change/"):
        shown = ann.get(path)
        assert shown.status_code == 200
        assert key.prefix in shown.content.decode()
        assert secrets_in(shown) == []
        assert key.digest not in shown.content.decode()


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"consumer": "lab", "scopes": ["staff"]}, "a staff key belongs to no consumer"),
        ({"consumer": "", "scopes": ["read"]}, "a key without the scope staff belongs to a consumer"),
        ({"consumer": "lab", "scopes": []}, "This field is required."),
        ({"consumer": "lab", "scopes": ["read"], "expires_in_days": "0"}, "greater than or equal to 1"),
    ],
)
def test_a_bad_wish_says_why(ann: Client, wish: dict[str, Any], sentence: str) -> None:
    assert sentence in ann.post(ADD, wish).content.decode()
    assert not ApiKey.objects.exists()


def test_revoke_and_rotate(ann: Client) -> None:
    first, second = make("lab"), make("lab")
    chosen = {"action": "rotate", "_selected_action": [first.key.pk, second.key.pk]}
    assert secrets_in(ann.post(LIST, chosen)) == []
    page = ann.post(LIST, {**chosen, "confirmed": "yes"})
    assert page.status_code == 200
    assert [keys.keyring.check(secret) is not None for secret in secrets_in(page)] == [True, True]
    assert keys.keyring.check(first.secret) is not None
    chosen = {"_selected_action": [first.key.pk], "confirmed": "yes"}
    refused = ann.post(LIST, {"action": "rotate", **chosen}, follow=True)
    assert "was replaced by" in refused.content.decode()
    ann.post(LIST, {"action": "revoke", **chosen, "confirm_typed": "revoke 2"})
    assert keys.keyring.check(first.secret) is not None
    ann.post(LIST, {"action": "revoke", **chosen, "confirm_typed": "revoke 1"})
    assert keys.keyring.check(first.secret) is None
    assert keys.keyring.check(second.secret) is not None


def test_who_may_only_look_makes_and_ends_nothing() -> None:
    made, looker = make("lab"), logged_in("view_apikey")
    assert looker.get(LIST).status_code == 200
    assert looker.get(ADD).status_code == 403
    assert looker.post(ADD, {"consumer": "lab", "scopes": ["read"]}).status_code == 403
    for action in ("revoke", "rotate"):
        answer = {"confirmed": "yes", "confirm_typed": "revoke 1"}
        looker.post(LIST, {"action": action, "_selected_action": [made.key.pk], **answer})
    assert ApiKey.objects.count() == 1
    assert keys.keyring.check(made.secret) is not None


def test_nobody_edits_or_deletes_a_key(ann: Client) -> None:
    made = make("lab")
    assert ann.post(f"{LIST}{made.key.pk}/change/", {"scopes": "staff"}).status_code == 403
    assert ann.post(f"{LIST}{made.key.pk}/delete/", {"post": "yes"}).status_code == 403
    assert ApiKey.objects.get().scopes == "read,spend"
