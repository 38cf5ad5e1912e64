"""The audit log: who did what and when; and log lines that name their request, session and rental."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from gpubroker.common import audit, clock, logs
from sessions_app.models import Rental
from sessions_app.states import Status
from tests.console.people import person, superuser, text
from tests.harness import Api, Driver
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_session

pytestmark = pytest.mark.django_db
PAGE = "/admin/admin/logentry/"
NOW = datetime(2026, 11, 15, 12, 34, 56, tzinfo=UTC)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the process logs as JSON, as production does."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.JsonFormatter("%(levelname)s %(name)s %(message)s"))
    handler.addFilter(logs.ContextFilter())
    root = logging.getLogger()
    root.addHandler(handler)
    yield written
    root.removeHandler(handler)


def note(who: str, what: str, obj: Any = None, name: str = "") -> LogEntry:
    request = RequestFactory().post("/")
    request.user = User.objects.get_or_create(username=who)[0]
    with clock.use(lambda: NOW):
        return audit.note(request, obj, what, name)


def test_a_note_says_who_what_and_when() -> None:
    session = make_session(Status.RUNNING)
    row = note("olga", "destroyed", session)
    assert (row.user.username, row.action_time, row.object_id) == ("olga", NOW, session.pk)
    assert (row.object_repr, row.get_change_message(), row.get_edited_object()) == (session.pk, "destroyed", session)
    nameless = note("olga", "swept", name="vastai")
    assert (nameless.content_type, nameless.object_id, nameless.object_repr) == (None, "", "vastai")


def test_the_log_is_shown_newest_first_and_found() -> None:
    session = make_session(Status.RUNNING)
    note("olga", "destroyed", session)
    note("fred", "budget set to $5", name="lab")
    viewer = person("viewer")
    seen = text(viewer.get(PAGE))
    assert seen.index("fred - lab budget set to $5") < seen.index(f"olga session {session.pk} destroyed")
    for query, wanted in ((session.pk, 1), ("olga", 1), ("lab", 1), ("budget", 1), ("nothing", 0), ("ol", 0)):
        assert len(viewer.get(PAGE, {"q": query}).context["cl"].result_list) == wanted, query
    fred = User.objects.get(username="fred")
    User.objects.filter(pk=fred.pk).update(is_staff=True)
    assert [row.user_id for row in viewer.get(PAGE, {"who": fred.pk}).context["cl"].result_list] == [fred.pk]
    assert len(viewer.get(PAGE, {"who": "x"}).context["cl"].result_list) == 2


def test_nobody_changes_the_log() -> None:
    row = note("olga", "destroyed")
    root = superuser()
    for path in (f"{PAGE}add/", f"{PAGE}{row.pk}/delete/"):
        assert root.post(path, {"post": "yes"}).status_code == 403
    assert root.post(f"{PAGE}{row.pk}/change/", {"change_message": "nothing"}).status_code == 403
    assert list(LogEntry.objects.values_list("pk", "change_message")) == [(row.pk, "destroyed")]


def test_no_row_costs_a_query() -> None:
    viewer = person("viewer")
    counts = []
    for more in (2, 20):
        for number in range(more):
            note(f"user-{number}", "did it", make_session(Status.STOPPED, offer_id=f"v-{more}-{number}"))
        with CaptureQueriesContext(connection) as queries:
            viewer.get(PAGE)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_what_is_done_to_people_is_logged_as_well() -> None:
    root = superuser()
    body = {"username": "ivan", "usable_password": "false", "password1": "", "password2": ""}
    assert root.post("/admin/auth/user/add/", body).status_code == 302
    ivan = User.objects.get(username="ivan")
    assert f"root user {ivan} Added." in text(root.get(PAGE))


def test_json_lines_carry_request_session_and_rental(
    lines: io.StringIO, market: SandboxProcess, api: Api, driver: Driver
) -> None:
    olga: Client = person("operator", name="olga")
    one = api.create()["session"]["id"]
    driver.until_status(one, Status.RUNNING)
    address = f"/admin/sessions_app/session/{one}/destroy/"
    olga.post(address, {"confirmed": "yes", "confirm_typed": "destroy"}, headers={"X-Request-ID": "press-1"})
    driver.until_status(one, Status.STOPPED)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    ends = next(line for line in told if line["message"].startswith(f"session {one} ends: deleted"))
    assert (ends["request_id"], ends["session_id"]) == ("press-1", one)
    gone = next(line for line in told if line["message"].startswith("machine ") and " is gone: " in line["message"])
    assert (gone["session_id"], gone["rental_id"]) == (one, str(Rental.objects.get().pk))
