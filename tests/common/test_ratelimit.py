"""How often a caller may call: per key or address, shared through Redis, and never a reason to be down."""

from __future__ import annotations

import threading
import time as real_time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.test import Client

from gpubroker.common import ratelimit
from gpubroker.common.ratelimit import Tally, address
from gpubroker.supervisor import ports
from tests import servers
from tests.keys import bearer, make


@pytest.fixture
def three(settings: Any) -> Iterator[None]:
    """Three requests a minute, counted from zero."""
    settings.API_RATE_PER_MINUTE = 3
    ratelimit._tally.cache_clear()
    yield
    ratelimit._tally.cache_clear()


def status(headers: dict[str, str] | None = None, **environ: Any) -> int:
    client = Client(raise_request_exception=False)
    return client.get("/api/v1/sessions", headers=headers, **environ).status_code


@pytest.mark.django_db
def test_the_fourth_in_a_minute_is_refused_in_our_shape(three: None) -> None:
    client = Client(raise_request_exception=False)
    assert [client.get("/api/v1/sessions").status_code for _ in range(3)] == [200, 200, 200]
    refused = client.get("/api/v1/sessions")
    seconds = int(refused.headers["Retry-After"])
    assert 1 <= seconds <= 60
    assert (refused.status_code, refused.json()) == (
        429,
        {
            "error": f"more than 3 requests in a minute; try again in {seconds} s",
            "retry_suggested": True,
            "request_id": refused.headers["X-Request-ID"],
        },
    )
    assert client.post("/api/v1/sessions", {}, content_type="application/json").status_code == 429
    for path in ("/health", "/ready", "/metrics"):
        assert client.get(path).status_code in (200, 503)


@pytest.mark.django_db
def test_each_key_has_its_own_count_whatever_the_address(three: None) -> None:
    first, second = bearer(make().secret), bearer(make().secret)
    assert [status(first, REMOTE_ADDR=f"10.0.0.{number}") for number in range(4)] == [200, 200, 200, 429]
    assert status(second) == 200
    assert status() == 200


@pytest.mark.django_db
def test_each_address_has_its_own_count_without_a_key(three: None) -> None:
    assert [status(REMOTE_ADDR="10.0.0.1") for _ in range(4)] == [200, 200, 200, 429]
    assert status(REMOTE_ADDR="10.0.0.2") == 200


@pytest.mark.django_db
def test_wrong_keys_count_against_their_address(three: None, settings: Any) -> None:
    settings.API_AUTH = "key"
    right = bearer(make().secret)
    wrong = {"X-API-Key": "nonsense"}
    assert [status(wrong) for _ in range(4)] == [401, 401, 401, 429]
    assert status(right) == 200


@pytest.mark.django_db
def test_zero_is_no_limit(three: None, settings: Any) -> None:
    settings.API_RATE_PER_MINUTE = 0
    assert {status() for _ in range(20)} == {200}


@pytest.mark.parametrize(
    ("proxies", "remote", "forwarded", "seen"),
    [
        (0, "10.0.0.1", "", "10.0.0.1"),
        (0, "10.0.0.1", "6.6.6.6", "10.0.0.1"),
        (1, "10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        (2, "10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        (2, "10.0.0.1", "203.0.113.9", "10.0.0.1"),
        (1, "10.0.0.1", "", "10.0.0.1"),
        (1, "10.0.0.1", "nonsense\r\nX: y", "unknown"),
        (0, "2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"),
        (0, "::ffff:10.0.0.1", "", "10.0.0.1"),
        (0, "", "", "unknown"),
    ],
)
def test_whose_address_it_is(settings: Any, proxies: int, remote: str, forwarded: str, seen: str) -> None:
    settings.TRUSTED_PROXIES = proxies
    assert address({"REMOTE_ADDR": remote, "HTTP_X_FORWARDED_FOR": forwarded}) == seen


def test_processes_share_the_count_through_redis() -> None:
    with servers.valkey() as url:
        one, other = Tally(url), Tally(url)
        assert [tally.hit("key:a", 3) for tally in (one, other, one)] == [0, 0, 0]
        assert 1 <= other.hit("key:a", 3) <= 60
        assert other.hit("key:b", 3) == 0


class Seconds:
    value = 0.0

    def __call__(self) -> float:
        return self.value


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:{port}/0", "sentinel://127.0.0.1:{port}", ""])
def test_without_redis_the_process_counts_for_itself(url: str, caplog: pytest.LogCaptureFixture) -> None:
    tally, began = Tally(url.format(port=ports.free_port())), real_time.monotonic()
    assert [tally.hit("key:a", 3) for _ in range(3)] == [0, 0, 0]
    assert 1 <= tally.hit("key:a", 3) <= 60
    assert real_time.monotonic() - began < 1
    assert len(caplog.messages) == url.startswith("redis")
    assert "secret" not in caplog.text


def test_a_redis_that_is_back_counts_again() -> None:
    timer = Seconds()
    with servers.valkey() as url:
        tally, other = Tally(url, timer), Tally(url)
        assert tally.hit("key:a", 2) == 0
    assert tally.hit("key:a", 1) == 0, "counted in memory, from zero"
    assert tally.hit("key:a", 1) > 0
    timer.value = ratelimit.RETRY_SECONDS
    assert tally.hit("key:a", 1) > 0, "still away"
    assert other.hit("key:a", 1) == 0


def test_the_last_half_second_of_a_minute_uses_nothing_up() -> None:
    """Redis says how long the minute lasts in whole seconds: none are left, and yet it is not over."""
    with servers.valkey() as url:
        tally, store = Tally(url), redis.Redis.from_url(url)
        assert tally.hit("key:a", 1000) == 0
        (counter,) = store.keys("*")
        assert store.pexpire(counter, 450)
        assert [tally.hit("key:a", 1000) for _ in range(300)] == [0] * 300


def test_of_many_at_once_no_more_pass_than_may() -> None:
    with servers.valkey() as url:
        tally, passed = Tally(url), []
        threads = [threading.Thread(target=lambda: passed.append(tally.hit("key:a", 5))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(passed)[:6].count(0) == 5
