"""Whoever asks waits no longer than it said, whatever the limits of the call are; and texts that lie elsewhere."""

from __future__ import annotations

import time

import pytest

from providers import deadline
from providers.errors import GateClosed, MalformedAnswer, OutcomeUnknown, Unavailable
from providers.http import HTTPClient, Limits, NullGate, NullObserver
from providers.vastai import NativeTransport, uploads
from tests.providers.wire import RecordingGate, http_bytes, serving

KEY = "f00dcafe" * 8
PATIENT = Limits(connect=5.0, read=30.0, total=30.0)


def client(url: str, gate: RecordingGate | None = None) -> HTTPClient:
    return HTTPClient("vendor", url, KEY, gate or NullGate(), NullObserver(), limits=PATIENT)


@pytest.mark.parametrize(("changes", "kind"), [(False, Unavailable), (True, OutcomeUnknown)])
def test_a_silent_server_is_left_when_the_time_is_over(changes: bool, kind: type[Exception]) -> None:
    with serving([20.0]) as server:
        before = time.monotonic()
        with deadline.within(0.4), pytest.raises(kind):
            client(server.url).request("look", "GET", "/", read=lambda answer: answer, changes=changes)
        assert time.monotonic() - before < 10


def test_nothing_is_sent_when_no_time_is_left() -> None:
    gate = RecordingGate()
    with serving([http_bytes(200, b"{}")]) as server:
        with deadline.within(0.0), pytest.raises(GateClosed) as caught:
            client(server.url, gate).request("look", "GET", "/", read=lambda answer: answer)
        assert caught.value.retry_after == 1.0
        assert server.requests == []


def test_the_shorter_of_two_counts_and_both_end() -> None:
    with deadline.within(100.0):
        with deadline.within(5.0):
            assert 0 < deadline.left() <= 5
            with deadline.within(50.0):
                assert deadline.left() <= 5
        assert 50 < deadline.left() <= 100
    assert deadline.left() == float("inf")


def transport(url: str) -> NativeTransport:
    return NativeTransport(client(url))


def test_a_text_is_fetched_without_our_key() -> None:
    with serving([http_bytes(200, b"one\ntwo\n")]) as server:
        assert uploads.fetch(transport(server.url), f"{server.url}/a.log?x=1") == "one\ntwo\n"
        assert server.requests[0].startswith(b"GET /a.log?x=1 HTTP/1.1")
        assert KEY.encode() not in server.requests[0]
        assert b"authorization" not in server.requests[0].lower()


@pytest.mark.parametrize("status", [403, 404])
def test_a_text_that_is_not_there_yet(status: int) -> None:
    with serving([http_bytes(status, b"<Error/>")]) as server:
        assert uploads.fetch(transport(server.url), f"{server.url}/a.log") is None


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "ftp://example.com/a", "//example.com/a", "",
        "https://key@example.com/a.log", "http://127.0.0.1:9/a", "https://exa mple.com/a",
    ],
)  # fmt: skip
def test_an_address_that_nobody_should_follow(address: str) -> None:
    with pytest.raises(MalformedAnswer):
        uploads.fetch(transport("https://console.vast.ai"), address)


def test_any_other_refusal_is_told() -> None:
    with serving([http_bytes(410, b"gone")]) as server, pytest.raises(MalformedAnswer) as caught:
        uploads.fetch(transport(server.url), f"{server.url}/a.log")
    assert caught.value.status == 410
