"""The layer in front of Django answers exactly as Django would: status, headers and bytes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing import services as billing
from billing.keys import keyring
from gpubroker import front
from gpubroker.common import clock, gathered, ratelimit
from gpubroker.common.models import Counter
from gpubroker.fast import Fast
from offers import failures, services, snapshot
from tests import keys
from tests.gpubroker.layers import World, header, kept_connection
from tests.harness import MovableClock
from tests.offers.factory import apply, row

pytestmark = pytest.mark.django_db
NAMES = ("gpu_http_requests_total", "gpu_http_request_duration_seconds_bucket")


ROWS = [
    row("1", price_per_hour=Decimal("0.40"), machine_id="m1"),
    row("2", price_per_hour=Decimal("0.40"), machine_id="m2", location="Oslo"),
    row("3", gpu_name_raw="H100 SXM", vram_mb=81559, price_per_hour=Decimal("2.5"), gpu_count=8, machine_id="m3"),
    row("4", price_per_hour=Decimal("0.000050"), cuda_version=None, reliability=None, machine_id="m4", disk_gb=None),
    row("5", price_per_hour=Decimal("1"), gpu_count=2, cuda_version=12.8, location="Québec, CA", machine_id="m5"),
]  # fmt: skip


@pytest.fixture
def world() -> Iterator[World]:
    apply(ROWS)
    with kept_connection():
        yield World(Fast, "/api/v1/inventory")
    snapshot.forget()


#: Every question about the inventory that the conformance suite asks, the refused ones too.
QUESTIONS = [
    "", "gpu_type=rtx4090", "gpu_type=RTX+4090", "gpu_type=A10", "location=sTOCK", "location=oslo", "limit=7&offset=0",
    "limit=10&offset=125", "limit=1", "min_cuda=0", "min_vram=-1", "limit=0", "min_reliability=1.2", "max_price=NaN",
    "min_cuda=inf", "min_cuda=-1", "offset=-1", "gpu_count=two", "provider=aws", "min_availability_confidence=1.01",
    "template_hash_id=abc", "provider=vastai", "provider=tensordock", "min_gpu_count=2", "gpu_count=2&min_gpu_count=4",
    "unknown=1", "min_availability_confidence=0.5", "max_price=0.00005", "max_price=5e-5", "location=Qu%C3%A9bec",
    "limit=1&limit=2", "gpu_type=", "location=%00", "gpu_type=%FF%FE", "&&", "=", "limit=+3", "limit=%33", "format=csv",
]  # fmt: skip


@pytest.mark.parametrize("query", QUESTIONS)
def test_every_question_of_the_conformance_suite(world: World, query: str) -> None:
    world.both(query)


VALUES = {
    "gpu_type": st.sampled_from(["rtx4090", "RTX 4090", "H100", "h100 sxm", "", "nothing"]),
    "provider": st.sampled_from(["vastai", "tensordock", "aws"]),
    "location": st.sampled_from(["SE", "oslo", "é", "", "%", "x" * 129]),
    "min_vram": st.sampled_from(["0", "24", "80", "-1", "x"]),
    "max_price": st.sampled_from(["0", "0.4", "0.40", "1", "2.5", "1e2", "inf"]),
    "min_gpu_count": st.sampled_from(["0", "2", "8", "1.5"]),
    "gpu_count": st.sampled_from(["1", "4"]),
    "min_reliability": st.sampled_from(["0", "0.98", "1", "2"]),
    "min_cuda": st.sampled_from(["0", "12.4", "12.8", "nan"]),
    "min_availability_confidence": st.sampled_from(["0", "0.5", "1"]),
    "limit": st.sampled_from(["1", "3", "100000", "0"]),
    "offset": st.sampled_from(["0", "1", "4", "99"]),
}
QUERIES = st.fixed_dictionaries({}, optional=VALUES)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "HTTP_ACCEPT": st.sampled_from(["*/*", "application/json", "text/html", "application/*;q=0.5", ""]),
        "HTTP_ACCEPT_ENCODING": st.sampled_from(["gzip", "br, gzip;q=0.5", "identity", "gzip;q=0", ""]),
        "HTTP_IF_NONE_MATCH": st.sampled_from(["*", '"x"', 'W/"x"', ""]),
        "HTTP_HOST": st.sampled_from(["localhost", "localhost:8080", "evil.example", "bad host"]),
        "HTTP_X_FORWARDED_PROTO": st.sampled_from(["https", "http"]),
        "wsgi.url_scheme": st.sampled_from(["http", "https"]),
        "HTTP_COOKIE": st.sampled_from(["sessionid=x", "a=b"]),
        "HTTP_X_REQUEST_ID": st.sampled_from(["given-1", "g" * 128]),
        "CONTENT_LENGTH": st.sampled_from(["", "0"]),
        "CONTENT_TYPE": st.sampled_from(["application/json", "text/plain; charset=rot13"]),
        "PATH_INFO": st.sampled_from(["/api/v1/inventory", "/api/v1/inventory/", "/api/v1/inventory/vastai-1"]),
        "REQUEST_METHOD": st.sampled_from(["GET", "HEAD", "OPTIONS", "POST"]),
        "HTTP_X_API_KEY": st.sampled_from(["", "gpb_no"]),
    },
)


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(params=QUERIES, headers=HEADERS)
def test_any_question_however_it_is_asked(world: World, params: dict[str, str], headers: dict[str, str]) -> None:
    world.both(urlencode(params), **headers)


def test_it_answers_without_django_once_it_knows(world: World) -> None:
    world.both("max_price=0.5&limit=50")
    for encoding in ("gzip", ""):
        expected = world.both("", HTTP_ACCEPT_ENCODING=encoding)
        assert world.at_once("", HTTP_ACCEPT_ENCODING=encoding) == expected
        known = {"HTTP_ACCEPT_ENCODING": encoding, "HTTP_IF_NONE_MATCH": header(expected, "etag")}
        unchanged = world.both("", **known)
        assert unchanged[0] == "304 Not Modified"
        assert world.at_once("", **known) == unchanged
        assert (header(unchanged, "etag"), unchanged[2]) == (header(expected, "etag"), b"")
    assert header(world.at_once("", HTTP_ACCEPT_ENCODING="gzip"), "content-encoding") == "gzip"
    assert header(world.at_once(""), "content-encoding") == ""


def test_without_an_id_each_answer_gets_one_of_its_own(world: World) -> None:
    world.both()
    ids = {header(world.at_once("", HTTP_X_REQUEST_ID=given), "x-request-id") for given in ("", "no good", "\n", "")}
    assert len(ids) == 4
    assert {len(each) for each in ids} == {36}


def test_a_new_version_is_another_answer_at_once(world: World) -> None:
    before = world.both("limit=1")
    services.withdraw("vastai-4", "gone at create")
    snapshot.forget()
    after = world.both("limit=1")
    assert (b"vastai-4" in before[2], b"vastai-4" in after[2]) == (True, False)
    assert header(before, "etag") != header(after, "etag")
    assert world.through("limit=1", HTTP_IF_NONE_MATCH=header(before, "etag"))[0] == "200 OK"


def test_ageing_and_failures_show_as_they_do_in_django(world: World) -> None:
    time = MovableClock()
    with clock.use(time):
        apply(ROWS)
        tags = []
        for minutes in (0, 2, 3, 5, 12, 60):
            time.advance(minutes=minutes)
            tags.append(header(world.both(), "etag"))
        assert tags[0] == tags[1]  # fresh for 150 seconds
        assert len(set(tags[1:])) == 5
        apply(ROWS, clock.now() + timedelta(seconds=1))
        for _ in range(3):
            failures.record_failure(provider="vastai", offer_id="vastai-1", machine_id="m1", gpu_type="RTX 4090",
                                    reason="boot_failed")  # fmt: skip
        snapshot.forget()
        assert b'"vastai-1"' not in world.both()[2]
        time.advance(minutes=31)
        assert b'"vastai-1"' in world.both()[2]


def test_keys_are_asked_for_as_django_asks(world: World, settings: Any) -> None:
    settings.API_AUTH = "key"
    good, spender, staff = keys.make(), keys.make("other", ["spend"]), keys.staff()
    expired = keys.make("third", ["read"], expires_in=timedelta(seconds=30))
    assert world.both("", HTTP_X_API_KEY=good.secret)[0] == "200 OK"
    assert world.at_once("", HTTP_AUTHORIZATION=f"Bearer {good.secret}")[0] == "200 OK"
    assert world.both("", HTTP_AUTHORIZATION=f"bearer  {staff.secret} ")[0] == "200 OK"
    refused = {
        "401 Unauthorized": [
            {}, {"HTTP_X_API_KEY": ""}, {"HTTP_X_API_KEY": good.secret[:-1]}, {"HTTP_AUTHORIZATION": "Basic eDp5"},
            {"HTTP_X_API_KEY": good.secret[:-1] + ("a" if good.secret[-1] != "a" else "b")},
            {"HTTP_X_API_KEY": good.secret, "HTTP_AUTHORIZATION": f"Bearer {good.secret}"},
        ],
        "403 Forbidden": [{"HTTP_X_API_KEY": spender.secret}],
    }  # fmt: skip
    for status, tries in refused.items():
        for headers in tries:
            assert world.both("", **headers)[0] == status
    assert world.both("", HTTP_X_API_KEY=expired.secret)[0] == "200 OK"
    with clock.use(lambda later=clock.now() + timedelta(seconds=31): later):  # type: ignore[misc]
        assert world.both("", HTTP_X_API_KEY=expired.secret)[0] == "401 Unauthorized"


def test_a_revoked_key_is_refused_as_soon_as_django_knows(world: World, settings: Any) -> None:
    settings.API_AUTH = "key"
    made = keys.make()
    assert world.both("", HTTP_X_API_KEY=made.secret)[0] == "200 OK"
    assert world.at_once("", HTTP_X_API_KEY=made.secret)[0] == "200 OK"
    billing.revoke_key(made.key.prefix, by="test")
    keyring.forget(made.key.prefix)
    assert world.through("", HTTP_X_API_KEY=made.secret)[0] == "401 Unauthorized"


def test_calls_are_counted_against_the_limit(world: World, settings: Any) -> None:
    settings.API_RATE_PER_MINUTE = 6
    ratelimit._tally.cache_clear()
    statuses = [world.through("", REMOTE_ADDR="192.0.2.7")[0] for _ in range(8)]
    assert statuses == ["200 OK"] * 6 + ["429 Too Many Requests"] * 2
    late = world.through("", REMOTE_ADDR="192.0.2.7")
    assert 1 <= int(header(late, "retry-after")) <= 60
    assert world.through("", REMOTE_ADDR="192.0.2.8")[0] == "200 OK"
    ratelimit._tally.cache_clear()


def test_answers_are_counted_for_the_metrics(world: World) -> None:
    def counted() -> tuple[int, int]:
        gathered.flush()
        rows = Counter.objects.filter(labels__contains="/api/v1/inventory")
        of = {name: int(sum(row.value for row in rows if row.name == name)) for name in NAMES}
        return of[NAMES[0]], of[NAMES[1]]

    world.both()
    answers, durations = counted()
    for _ in range(5):
        world.at_once()
    assert world.asked  # some of them may have been Django's
    assert counted()[0] - answers == counted()[1] - durations >= 5


def test_a_short_page_nobody_has_asked_for_is_printed_without_django(world: World) -> None:
    world.both("limit=3")
    before = world.asked
    fresh = world.at_once("limit=3&min_vram=20")
    assert world.asked - before <= 1  # the look that is due once a second
    assert fresh == world.alone("limit=3&min_vram=20")
    before = world.asked
    world.through("limit=201&min_vram=20")
    assert world.asked == before + 1


def test_an_old_inventory_is_not_kept_by_what_was_asked_of_it(world: World) -> None:
    for number in range(1, 4):
        world.at_once(f"limit={number}")
    before = weakref.ref(snapshot.current())
    services.withdraw("vastai-4", "gone at create")
    snapshot.forget()
    world.both("limit=9")
    world.at_once("limit=9")
    gc.collect()
    assert before() is None


def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "REMEMBERED", 3)
    for number in range(10):
        world.both(f"limit={number + 1}", HTTP_HOST=f"localhost:{8000 + number}")
    assert len(world.layer.questions) <= 3
    assert len(world.layer.learnt) <= 3
    before = len(world.layer.questions), len(world.layer.learnt)
    world.both("unknown=" + "x" * front.LONGEST)
    world.both("limit=1", HTTP_ACCEPT="application/json, " + "x" * front.LONGEST)
    assert len(world.layer.questions) <= before[0] + 1
    assert len(world.layer.learnt) == before[1]
