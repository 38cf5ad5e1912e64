"""Sessions in front of Django: the layer answers exactly as Django would, status, headers and bytes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from django.db import OperationalError, connection
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing import services as billing
from billing.keys import keyring
from gpubroker.common import clock, gathered, ratelimit
from gpubroker.common.models import Counter
from gpubroker.common.renderers import JSONRenderer
from gpubroker.reads import LIST, ONE, Reads
from sessions_app.models import Session
from sessions_app.shown import shown
from sessions_app.states import Status
from tests import keys
from tests.gpubroker.layers import World, header, kept_connection
from tests.sessions_app.test_states import make_session

pytestmark = pytest.mark.django_db
MINE, HERS = "sess-aaaaaaaaaaaaaaaa", "sess-bbbbbbbbbbbbbbbb"


@pytest.fixture
def world() -> Iterator[World]:
    """Seven of ann's and three of bob's; two have all that a session may show beyond the usual."""
    now = clock.now()
    ann, bob = billing.ensure_consumer("ann"), billing.ensure_consumer("bob")
    make_session(
        Status.RUNNING, id=MINE, consumer=ann, ssh_host="ssh5.vast.ai", ssh_port=10022, ssh_user="root",
        pricing="interruptible", bid_price=Decimal("0.000050"), paused_at=now, api_endpoint="http://1.2.3.4:8000",
        template_hash_id="a8a4", docker_image="ubuntu:22.04", max_price=Decimal("1.5"), end_message='"ü\u2028\\',
    )  # fmt: skip
    make_session(Status.STOPPED, id=HERS, consumer=bob, end_reason="expired", ended_at=now, offer_id="vastai-2")
    for number in range(8):
        make_session(
            Status.STOPPED, id=f"sess-{number}", consumer=(ann, bob)[number > 5], offer_id=f"vastai-9{number}",
            created_at=now - timedelta(minutes=number, microseconds=999_999),
            expires_at=now + timedelta(microseconds=1),
        )  # fmt: skip
    with kept_connection():
        yield World(Reads, LIST)


QUESTIONS = [
    "", "limit=3", "limit=3&offset=2", "limit=100000", "offset=99", "consumer_id=ann", "consumer_id=nobody",
    "consumer_id=", "status=running", "status=stopped&limit=2", "status=flying", "provider=vastai",
    "provider=tensordock", "provider=aws", f"after={HERS}", "after=sess-2&limit=2", "after=sess-none",
    "after=sess-2&consumer_id=bob",
    "consumer_id=bob&status=stopped&provider=vastai&limit=1&offset=1&after=sess-6", "limit=0", "offset=-1", "limit=x",
    "consumer_id=%00", "status=%FF", "unknown=1", "limit=1&limit=2", "&&", "=", "limit=+3", "format=csv",
]  # fmt: skip
PATHS = [
    f"{LIST}/{MINE}", f"{LIST}/{HERS}", f"{LIST}/sess-none", f"{LIST}/{MINE}/", f"{LIST}/", f"{LIST}/{MINE}/events",
    f"{LIST}/{MINE.upper()}", f"{LIST}/%00", f"{LIST}/sess-\x00", f"{LIST}//{MINE}", f"{LIST}x", "/api/v1", "/",
]  # fmt: skip


@pytest.mark.parametrize("query", QUESTIONS)
def test_every_list(world: World, query: str) -> None:
    world.both()
    world.both(query)


@pytest.mark.parametrize("path", PATHS)
def test_every_path(world: World, path: str) -> None:
    world.both("", PATH_INFO=f"{LIST}/{MINE}")
    world.both("", PATH_INFO=path)


VALUES = {
    "consumer_id": st.sampled_from(["ann", "bob", "eve", ""]),
    "status": st.sampled_from(["running", "stopped", "x"]),
    "provider": st.sampled_from(["vastai", "tensordock", "x"]),
    "limit": st.sampled_from(["1", "3", "10", "0"]),
    "offset": st.sampled_from(["0", "1", "9", "99"]),
    "after": st.sampled_from([MINE, HERS, "sess-3", "sess-7", "none"]),
}
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "HTTP_ACCEPT": st.sampled_from(["*/*", "application/json", "text/html", ""]),
        "HTTP_ACCEPT_ENCODING": st.sampled_from(["gzip", ""]),
        "HTTP_IF_NONE_MATCH": st.sampled_from(["*", '"x"']),
        "HTTP_HOST": st.sampled_from(["localhost", "localhost:8080", "evil.example", "bad host"]),
        "HTTP_X_FORWARDED_PROTO": st.sampled_from(["https", "http"]),
        "wsgi.url_scheme": st.sampled_from(["http", "https"]),
        "HTTP_COOKIE": st.sampled_from(["sessionid=x", "a=b"]),
        "CONTENT_LENGTH": st.sampled_from(["", "0"]),
        "CONTENT_TYPE": st.sampled_from(["application/json", "text/plain; charset=rot13"]),
        "PATH_INFO": st.sampled_from([LIST, *PATHS]),
        "REQUEST_METHOD": st.sampled_from(["GET", "HEAD", "OPTIONS", "PUT"]),
        "HTTP_X_API_KEY": st.sampled_from(["", "gpb_no"]),
    },
)


@hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(params=st.fixed_dictionaries({}, optional=VALUES), headers=HEADERS)
def test_any_question_however_it_is_asked(world: World, params: dict[str, str], headers: dict[str, str]) -> None:
    world.both(urlencode(params), **headers)


def test_it_answers_without_django_once_it_knows(world: World) -> None:
    expected = world.both()
    assert world.at_once() == expected
    assert orjson.loads(world.at_once("limit=2&status=stopped")[2])["total"] == 9
    for path in (f"{LIST}/{MINE}", f"{LIST}/{HERS}"):
        assert world.at_once("", PATH_INFO=path) == world.alone("", PATH_INFO=path)
    ids = {header(world.at_once("", HTTP_X_REQUEST_ID=""), "x-request-id") for _ in range(5)}
    assert len(ids) == 5


def test_what_it_prints_is_what_every_other_answer_shows(world: World) -> None:
    """The create's answer and the webhooks show a session by its object, the reads by its columns."""
    world.both("", PATH_INFO=f"{LIST}/{MINE}")
    for session in Session.objects.select_related("consumer"):
        told = orjson.loads(world.at_once("", PATH_INFO=f"{LIST}/{session.id}")[2])
        assert told == orjson.loads(JSONRenderer().render(shown(session)))
        assert told["created_at"] == clock.iso(session.created_at)


def test_a_change_shows_in_the_next_answer(world: World) -> None:
    path = f"{LIST}/{MINE}"
    world.both("", PATH_INFO=path)
    assert orjson.loads(world.at_once("", PATH_INFO=path)[2])["status"] == "running"
    Session.objects.filter(id=MINE).update(status=Status.STOPPING, ssh_port=None)
    found = orjson.loads(world.at_once("", PATH_INFO=path)[2])
    assert (found["status"], found["ssh_port"]) == ("stopping", 0)
    before = orjson.loads(world.both()[2])["total"]
    make_session(Status.STOPPED, id="sess-new", offer_id="vastai-new")
    assert orjson.loads(world.at_once()[2])["total"] == before + 1


def test_a_consumer_sees_its_own_and_learns_nothing_of_others(world: World, settings: Any) -> None:
    settings.API_AUTH = "key"
    ann, staff, spender = keys.make("ann"), keys.staff(), keys.make("ann", ["spend"])
    mine, hers = {"PATH_INFO": f"{LIST}/{MINE}"}, {"PATH_INFO": f"{LIST}/{HERS}"}
    for who in (staff, ann):
        assert world.both("", HTTP_X_API_KEY=who.secret, **mine)[0] == "200 OK"
        assert world.both("", HTTP_X_API_KEY=who.secret)[0] == "200 OK"
    assert world.at_once("", HTTP_X_API_KEY=staff.secret, **hers)[0] == "200 OK"
    unknown = world.both("", HTTP_X_API_KEY=ann.secret, PATH_INFO=f"{LIST}/{HERS[:-1]}c")
    refused = world.both("", HTTP_X_API_KEY=ann.secret, **hers)
    assert (refused[0], refused[2].replace(HERS.encode(), b"")) == (
        "404 Not Found", unknown[2].replace(f"{HERS[:-1]}c".encode(), b"")
    )  # fmt: skip
    seen = orjson.loads(world.at_once("", HTTP_X_API_KEY=ann.secret)[2])["sessions"]
    assert {each["consumer_id"] for each in seen} == {"ann"}
    assert world.both("consumer_id=bob", HTTP_X_API_KEY=ann.secret)[0] == "403 Forbidden"
    assert world.both(f"after={HERS}", HTTP_X_API_KEY=ann.secret)[0] == "404 Not Found"
    assert world.both("", HTTP_X_API_KEY=spender.secret, **mine)[0] == "403 Forbidden"
    assert world.both("", **mine)[0] == "401 Unauthorized"
    billing.revoke_key(ann.key.prefix, by="test")
    keyring.forget(ann.key.prefix)
    assert world.through("", HTTP_X_API_KEY=ann.secret, **mine)[0] == "401 Unauthorized"


def test_each_call_is_counted_once(world: World, settings: Any) -> None:
    settings.API_RATE_PER_MINUTE = 6
    ratelimit._tally.cache_clear()
    paths = [f"{LIST}/{MINE}", f"{LIST}/sess-none"] * 4
    statuses = [world.through("", REMOTE_ADDR="192.0.2.9", PATH_INFO=path)[0][:3] for path in paths]
    assert statuses == ["200", "404"] * 3 + ["429"] * 2
    ratelimit._tally.cache_clear()


def test_answers_are_counted_for_the_metrics(world: World) -> None:
    def counted(route: str) -> int:
        gathered.flush()
        rows = Counter.objects.filter(name="gpu_http_requests_total", labels__contains=f'"{route}"')
        return int(sum(row.value for row in rows))

    world.both()
    world.both("", PATH_INFO=f"{LIST}/{MINE}")
    before = counted(LIST), counted(ONE)
    for _ in range(5):
        world.at_once("", PATH_INFO=f"{LIST}/{MINE}")
    world.at_once()
    assert (counted(LIST) - before[0], counted(ONE) - before[1]) == (1, 5)


def test_without_the_database_django_says_why(world: World) -> None:
    world.both()

    def refuses(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("away")

    with connection.execute_wrapper(refuses):
        assert world.both()[0] == "503 Service Unavailable"
    assert world.both()[0] == "200 OK"
