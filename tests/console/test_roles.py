"""What each role may and may not do, over every registered page, every action and every address of the console."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.db import models
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from billing import webhooks
from billing.models import Budget, BudgetPeriod, Consumer, ProviderBalance
from gpubroker.common import clock, roles
from gpubroker.common.windows import ReadOnly
from sessions_app.models import Event, ProviderWatch, SeenOrphan
from sessions_app.states import Debt, Status
from tests.console.people import logged_in, person, text
from tests.keys import make
from tests.sessions_app.test_states import make_rental, make_session
from tests.templates_app.factory import template

pytestmark = pytest.mark.django_db
POWERS = {"operate": roles.OPERATE, "money": roles.MONEY, "access": roles.ACCESS}
MODELS = sorted(model._meta.label_lower for model in admin.site._registry)
#: Of Django's own, which every login has, and which change nothing of ours.
EVERYBODYS = {"login", "logout", "password_change", "password_change_done", "jsi18n", "autocomplete", "search", "index"}
#: Lists do nothing but actions, which are posted one by one below; a history is only shown.
LISTS = re.compile(r"_(changelist|history)$")
PEOPLE = {"auth.user", "auth.group"}


def admin_of(label: str) -> Any:
    return admin.site.get_model_admin(apps.get_model(label))


def as_seen_by(client: Client) -> HttpRequest:
    request = RequestFactory().get("/admin/")
    request.user = User.objects.get(pk=client.session["_auth_user_id"])
    return request


def addresses(patterns: list[Any], prefix: str = "/admin/") -> Iterator[tuple[str, str]]:
    """Name and path of everything under ``/admin/``."""
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, prefix + str(pattern.pattern))
        elif isinstance(pattern, URLPattern) and pattern.name:
            yield pattern.name, prefix + str(pattern.pattern)


def all_addresses() -> list[tuple[str, str]]:
    console = next(
        each for each in get_resolver().url_patterns if isinstance(each, URLResolver) and each.namespace == "admin"
    )
    found = dict(addresses(console.url_patterns))
    return sorted((name, path) for name, path in found.items() if name not in EVERYBODYS and not LISTS.search(name))


@pytest.fixture
def books() -> dict[str, Any]:
    """A row of many kinds; the key of one of each model that has any."""
    now = clock.now()
    session = make_session(Status.RUNNING)
    rental = make_rental(session, Debt.LIVE)
    make_rental(None, Debt.DESTROYING, origin="orphan", destroy_requested_at=now)
    Event.objects.create(session=session, kind="note", at=now)
    budget = Budget.objects.create(
        consumer=session.consumer, monthly_limit=Decimal(5), updated_at=now, updated_by="me", next_check_at=now
    )
    BudgetPeriod.objects.create(budget=budget, period="2026-11", limit_micros=5)
    ProviderWatch.objects.create(provider="vastai", next_sweep_at=now, held_reason="too many")
    ProviderBalance.objects.create(provider="vastai", credit=Decimal(3), next_read_at=now)
    SeenOrphan.objects.create(provider="vastai", instance_id="7", label=rental.label, first_seen_at=now)
    make("me")
    webhooks.make("me", "https://example.com/hook", by="me")
    template("f" * 32)
    rows = {model._meta.label_lower: model._default_manager.order_by("pk").first() for model in apps.get_models()}
    return {label: row.pk for label, row in rows.items() if row is not None}


def everything() -> list[Any]:
    """Every row of ours and of Django's; a login's own session apart."""
    kept: list[type[models.Model]] = [model for model in apps.get_models() if model._meta.app_label != "sessions"]
    return [(model._meta.label, list(model._default_manager.order_by("pk").values_list())) for model in kept]


# -- the groups -------------------------------------------------------------------------------------------------


def permissions(role: str) -> set[str]:
    rows = Permission.objects.filter(group__name=role).values_list("content_type__app_label", "codename")
    return {f"{app}.{codename}" for app, codename in rows}


def test_each_role_has_its_powers_and_sees_all_but_people() -> None:
    looks = permissions("viewer")
    assert {label.replace(".", ".view_") for label in MODELS if label not in PEOPLE} <= looks
    assert {name.split(".")[1][:5] for name in looks} == {"view_"}
    assert {name.split(".")[0] for name in looks} == set(roles.SHOWN)
    assert permissions("operator") == looks | {roles.OPERATE}
    assert permissions("finance") == looks | {roles.MONEY}
    assert permissions("admin") == looks | {roles.OPERATE, roles.MONEY, roles.ACCESS} | roles.PEOPLE


def test_the_groups_are_kept_right_and_others_left_alone() -> None:
    right = {role: permissions(role) for role in roles.ROLES}
    viewer = Group.objects.get(name="viewer")
    viewer.permissions.add(Permission.objects.get(codename="operate_machines"))
    viewer.permissions.remove(Permission.objects.get(codename="view_session", content_type__app_label="sessions_app"))
    Group.objects.get(name="finance").delete()
    own = Group.objects.create(name="night shift")
    own.permissions.add(Permission.objects.get(codename="manage_money"))
    roles.keep(apps=apps)
    roles.keep(apps=apps)
    assert {role: permissions(role) for role in roles.ROLES} == right
    assert permissions("night shift") == {roles.MONEY}


def test_without_the_tables_of_users_there_is_nothing_to_keep() -> None:
    class Nothing:
        def get_model(self, app: str, name: str) -> None:
            raise LookupError

    roles.keep(apps=Nothing())


def test_somebody_inactive_may_nothing() -> None:
    client = person("admin")
    request = as_seen_by(client)
    assert roles.may(request, roles.OPERATE)
    request.user.is_active = False
    assert not roles.may(request, roles.OPERATE)


# -- every registered admin -------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", MODELS)
def test_a_viewer_is_offered_nothing(label: str) -> None:
    viewer = person("viewer")
    model_admin, request = admin_of(label), as_seen_by(viewer)
    assert model_admin.get_actions(request) == {}
    assert model_admin.get_actions_list(request) == []
    assert model_admin.get_actions_row(request) == []
    assert model_admin.get_actions_detail(request, "1") == []
    assert model_admin.get_actions_submit_line(request, "1") == []
    rights = model_admin.get_model_perms(request)
    assert rights == {"add": False, "change": False, "delete": False, "view": label not in PEOPLE}
    page = viewer.get(f"/admin/{label.replace('.', '/')}/")
    assert page.status_code == (403 if label in PEOPLE else 200)
    assert '<select name="action"' not in page.content.decode()


def test_who_has_no_role_sees_no_page() -> None:
    nobody = person()
    pages = {label: f"/admin/{label.replace('.', '/')}/" for label in MODELS}
    json = {"Accept": "application/json"}
    statuses = {label: nobody.get(page, headers=json).status_code for label, page in pages.items()}
    assert statuses == dict.fromkeys(MODELS, 403)


def test_rows_are_written_by_services_alone() -> None:
    """Whoever has all powers edits no row of ours: where a form adds or changes one, the page's own view calls a
    service."""
    request = as_seen_by(person("admin"))
    ours = {label: admin_of(label) for label in MODELS if label not in PEOPLE}
    assert [label for label, each in ours.items() if not isinstance(each, ReadOnly)] == []
    assert [label for label, each in ours.items() if each.has_change_permission(request)] == []
    assert [label for label, each in ours.items() if each.has_delete_permission(request)] == []


def actions() -> list[tuple[str, str, str]]:
    """Model, action, and the power that it declares; one that declares none is in nobody's list and fails here."""
    found = []
    for model, model_admin in admin.site._registry.items():
        for name in model_admin.actions or ():
            func, _, _ = model_admin.get_action(name)  # type: ignore[misc]
            declared = getattr(func, "allowed_permissions", None)
            found.append((model._meta.label_lower, str(name), declared[0] if declared else "nothing"))
    return sorted(found)


def test_every_action_declares_its_power() -> None:
    assert {power for _, _, power in actions()} <= set(POWERS)
    assert len(actions()) > 5


@pytest.mark.parametrize(("label", "name", "power"), actions())
def test_without_its_power_an_action_changes_nothing(books: dict[str, Any], label: str, name: str, power: str) -> None:
    lacking = [role for role, powers in roles.ROLES.items() if POWERS[power] not in powers]
    clients = [person(role, name=f"{role}-person") for role in lacking]
    assert len(clients) >= 2
    before = everything()
    chosen = books.get(label, 1)
    body = {
        "action": name, "_selected_action": [chosen], "index": 0, "confirmed": "yes", "confirm_typed": f"{name} 1",
        "hours": 1, "reason": "none", "until": "2026-11-30T00:00", "monthly_limit": 1,
    }  # fmt: skip
    for client in clients:
        client.post(f"/admin/{label.replace('.', '/')}/", body)
    assert everything() == before


# -- every address ----------------------------------------------------------------------------------------------


def test_a_post_of_a_viewer_to_any_address_changes_nothing(books: dict[str, Any]) -> None:
    viewer = person("viewer")
    before = everything()
    tried, wrong = 0, []
    body = {"confirmed": "yes", "confirm_typed": "destroy", "post": "yes", "action": "sweep", "hours": 1, "reason": "x"}
    for name, pattern in all_addresses():
        path = _filled(name, pattern, books)
        answer = viewer.post(path, body, headers={"Accept": "application/json"})
        tried += 1
        wrong += [(name, answer.status_code)] if answer.status_code not in (200, 302, 403, 404, 405) else []
    assert wrong == []
    assert tried > 80
    # Whoever sees the ledger may take it along, which is noted.
    LogEntry.objects.filter(change_message__startswith="exported").delete()
    assert everything() == before


def _filled(name: str, pattern: str, books: dict[str, Any]) -> str:
    """The address of a row that is there, where its model has one."""
    label = next((each for each in MODELS if pattern.startswith(f"/admin/{each.replace('.', '/')}/")), "")
    key = str(books.get(label, 1))
    path = re.sub(r"<slug:name>", "vastai", pattern)
    return re.sub(r"<[^>]+>|\^|\$|\(\?P.*?\)", key, path).replace("//", "/")


@pytest.mark.parametrize("role", ["viewer", "finance"])
@pytest.mark.parametrize("name", ["extend", "done", "hard-maximum", "rekey", "retry", "destroy"])
def test_only_an_operator_acts_on_a_session(books: dict[str, Any], name: str, role: str) -> None:
    session = books["sessions_app.session"]
    client = person(role)
    before = everything()
    body = {"confirmed": "yes", "confirm_typed": "destroy", "hours": 1, "until": "2026-11-30T00:00", "reason": "x"}
    for answer in (client.get(f"/admin/sessions_app/session/{session}/{name}/"),
                   client.post(f"/admin/sessions_app/session/{session}/{name}/", body)):  # fmt: skip
        assert answer.status_code == 403
    assert everything() == before


# -- people -----------------------------------------------------------------------------------------------------


def test_an_admin_makes_people_but_no_superuser() -> None:
    client = person("admin")
    ann = User.objects.get(username="ann")
    add = {"username": "ivan", "usable_password": "false", "password1": "", "password2": ""}
    assert client.post("/admin/auth/user/add/", add).status_code == 302
    ivan = User.objects.get(username="ivan")
    group = Group.objects.get(name="operator")
    for user in (ivan, ann):
        body = {
            "username": user.username, "is_active": "on", "is_staff": "on", "is_superuser": "on",
            "groups": [group.pk], "user_permissions": [Permission.objects.get(codename="add_logentry").pk],
        }  # fmt: skip
        assert client.post(f"/admin/auth/user/{user.pk}/change/", body).status_code == 302
        user.refresh_from_db()
        assert (user.is_superuser, user.user_permissions.count()) == (False, 0)
        assert list(user.groups.all()) == [group]


def test_an_admin_takes_over_no_superuser_and_changes_no_role() -> None:
    client, root = person("admin"), User.objects.create_superuser("root", password=None)
    viewer = Group.objects.get(name="viewer")
    before = everything()
    new = {
        "password1": "a long enough pass phrase",
        "password2": "a long enough pass phrase",
        "usable_password": "true",
    }
    assert client.post(f"/admin/auth/user/{root.pk}/password/", new).status_code == 403
    assert client.post(f"/admin/auth/user/{root.pk}/change/", {"username": "gone"}).status_code == 403
    assert client.post(f"/admin/auth/user/{root.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(f"/admin/auth/group/{viewer.pk}/change/", {"name": "all"}).status_code == 403
    assert client.post(f"/admin/auth/group/{viewer.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post("/admin/auth/group/add/", {"name": "more"}).status_code == 403
    assert everything() == before


def test_a_superuser_makes_groups_but_bends_no_role() -> None:
    root = logged_in(User.objects.create_superuser("root", password=None))
    viewer = Group.objects.get(name="viewer")
    assert root.post("/admin/auth/group/add/", {"name": "night shift"}).status_code == 302
    assert root.post(f"/admin/auth/group/{viewer.pk}/change/", {"name": "all"}).status_code == 403
    assert root.post(f"/admin/auth/group/{viewer.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "operator" in text(root.get("/admin/auth/group/"))


def test_the_sidebar_shows_what_may_be_seen() -> None:
    Consumer.objects.create(name="lab", created_at=clock.now())
    for role, people in (("viewer", False), ("admin", True)):
        page = person(role, name=role).get("/admin/").content.decode()
        assert ('href="/admin/auth/user/"' in page) is people
        assert 'href="/admin/sessions_app/session/"' in page
        assert 'href="/admin/review/"' in page
    page = person(name="nobody").get("/admin/").content.decode()
    assert 'href="/admin/sessions_app/session/"' not in page
    assert 'href="/admin/review/"' not in page


def test_who_is_refused_is_told_so_on_a_page() -> None:
    viewer = person("viewer")
    session = make_session(Status.RUNNING)
    refused = viewer.get(f"/admin/sessions_app/session/{session.pk}/destroy/")
    assert (refused.status_code, refused.headers["Content-Type"]) == (403, "text/html; charset=utf-8")
    assert "Your role does not allow this" in text(refused)
    nothing = viewer.get("/admin/nothing/")
    assert nothing.status_code == 404
    assert "There is no such page" in text(nothing)
    stranger = Client().post("/admin/login/", headers={"Origin": "https://evil.example"})
    assert stranger.status_code == 200
    program = viewer.get("/admin/nothing/", headers={"Accept": "application/json"})
    assert (program.status_code, program.json()["error"]) == (404, "there is no /admin/nothing/")
    assert Client().get("/nothing").json()["error"] == "there is no /nothing"
