"""``GET /sessions`` page by page: by offset, and by the session that came last."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import services as billing
from gpubroker.common import clock
from sessions_app.models import Session
from sessions_app.states import Status
from tests.harness import Api, MovableClock
from tests.keys import Caller, make
from tests.sessions_app.test_states import make_session

pytestmark = pytest.mark.django_db
COUNT = 23


@pytest.fixture
def newest_first() -> list[str]:
    """Twenty-three, some of them made in the same moment."""
    now = clock.now()
    me = billing.ensure_consumer("me")
    for number in range(COUNT):
        made = make_session(Status.STOPPED, id=f"sess-{number:02}", consumer=me, offer_id=f"vastai-{number}")
        Session.objects.filter(id=made.id).update(created_at=now - timedelta(minutes=number // 3))
    return [str(row) for row in Session.objects.order_by("-created_at", "-id").values_list("id", flat=True)]


def ids(answer: dict[str, Any]) -> list[str]:
    return [session["id"] for session in answer["sessions"]]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 22, 23, 24])
def test_page_after_page_holds_each_session_once_and_in_order(api: Api, newest_first: list[str], limit: int) -> None:
    answer = api.get("/sessions", limit=limit)
    found = ids(answer)
    while answer["next"] is not None:
        assert (answer["count"], answer["total"]) == (limit, COUNT)
        assert answer["next"] == found[-1]
        answer = api.get("/sessions", limit=limit, after=answer["next"])
        found += ids(answer)
    assert found == newest_first


def test_a_session_made_meanwhile_moves_no_page(api: Api, newest_first: list[str]) -> None:
    first = api.get("/sessions", limit=10)
    make_session(Status.STOPPED, id="sess-new", offer_id="vastai-new")
    assert ids(api.get("/sessions", limit=10, after=first["next"])) == newest_first[10:20]
    assert ids(api.get("/sessions", limit=10, offset=10)) == newest_first[9:19]  # an offset counts from the new one


def test_offsets_and_whole_lists_are_as_they_were(api: Api, newest_first: list[str]) -> None:
    assert ids(api.get("/sessions", limit=5, offset=20)) == newest_first[20:]
    whole = api.get("/sessions")
    assert (ids(whole), whole["count"], whole["next"]) == (newest_first, COUNT, None)
    assert ids(api.get("/sessions", after=newest_first[20])) == newest_first[21:]
    assert ids(api.get("/sessions", after=newest_first[0], limit=2, offset=3)) == newest_first[4:6]


def test_filters_hold_on_every_page(api: Api, newest_first: list[str]) -> None:
    Session.objects.filter(id__in=newest_first[::2]).update(status=Status.FAILED)
    first = api.get("/sessions", status="failed", limit=5)
    second = api.get("/sessions", status="failed", limit=5, after=first["next"])
    assert ids(first) + ids(second) == newest_first[::2][:10]
    assert (first["total"], second["total"]) == (12, 12)


def test_who_is_not_there_or_not_yours_cannot_be_followed(api: Api, newest_first: list[str]) -> None:
    assert api.get("/sessions", 404, after="sess-no")["error"] == "session sess-no not found"
    other = Caller(make("other", ["read"]).secret)
    status, answer = other("GET", f"/sessions?after={newest_first[3]}")
    assert (status, answer["error"]) == (404, f"session {newest_first[3]} not found")


def test_a_page_never_counts_through_those_before_it(api: Api, newest_first: list[str]) -> None:
    """The index is entered at the session, so the last page is as quick as the first."""
    with CaptureQueriesContext(connection) as captured:
        api.get("/sessions", limit=2, after=newest_first[15])
    page = next(query["sql"] for query in captured if "LIMIT 3" in query["sql"])
    assert page.endswith("LIMIT 3 OFFSET 0")
    assert '"created_at" <=' in page


NARROWED = (
    "", "&consumer_id=me", "&consumer_id=her&provider=vastai", "&provider=tensordock", "&status=stopped",
    "&status=failed",
)  # fmt: skip


def test_totals_are_right_while_time_goes_on_and_others_make_sessions(api: Api, time: MovableClock) -> None:
    """Those of more than an hour ago are counted once in ten minutes, the rest each time."""
    me, her = billing.ensure_consumer("me"), billing.ensure_consumer("her")
    made = 0
    for minutes in (0, 30, 5, 29, 1, 59, 120, 9, 2, 600):
        time.advance(minutes=minutes)
        for consumer in (me, me, her):
            make_session(Status.STOPPED, id=f"sess-{made:02}", consumer=consumer, offer_id=f"vastai-{made}",
                         created_at=clock.now(), expires_at=clock.now(), hard_max_at=clock.now())  # fmt: skip
            made += 1
        for _ in range(2):
            told = {narrowed: api.get(f"/sessions?limit=1{narrowed}")["total"] for narrowed in NARROWED}
            assert list(told.values()) == [made, made * 2 // 3, made // 3, 0, made, 0]


def test_a_total_looks_at_new_sessions_only(api: Api, newest_first: list[str]) -> None:
    api.get("/sessions", limit=1)
    counted = []
    # The last page shows that nothing is left to count; of one with an offset, that is not known.
    for narrowed in ({"limit": COUNT - 1}, {"limit": COUNT}, {"limit": COUNT, "offset": 1}):
        with CaptureQueriesContext(connection) as captured:
            assert api.get("/sessions", **narrowed)["total"] == COUNT
        counted.append([query["sql"] for query in captured if "COUNT(" in query["sql"]])
    assert list(map(len, counted)) == [1, 0, 1]
    assert '"created_at" >=' in counted[0][0]


def test_a_page_that_goes_back_further_than_an_hour_counts_nothing(api: Api, newest_first: list[str]) -> None:
    now = clock.now()
    for number, session in enumerate(newest_first):
        Session.objects.filter(id=session).update(created_at=now - timedelta(minutes=20 * number, microseconds=number))
    api.get("/sessions", limit=1)
    with CaptureQueriesContext(connection) as captured:
        assert api.get("/sessions", limit=5)["total"] == COUNT
    assert len(captured) == 1
