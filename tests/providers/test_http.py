"""The HTTP wrapper, against real sockets for what the network does and against ``responses`` for what is said."""

import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from providers.errors import (
    GateClosed,
    InvalidRequest,
    MalformedAnswer,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Unavailable,
)
from providers.http import Answer, HTTPClient, Limits
from tests.providers.wire import RecordingGate, RecordingObserver, http_bytes, serving

KEY = "f00dcafe" * 8
BASE = "https://vendor.test"
LIMITS = Limits(connect=1.0, read=0.4, total=0.8, body=10_000)


class Setup:
    def __init__(self, base_url: str = BASE, key: str = KEY, pace: float = 1.0) -> None:
        self.gate = RecordingGate()
        self.observer = RecordingObserver()
        self.http = HTTPClient("vendor", base_url, key, self.gate, self.observer, limits=LIMITS, pace=pace)

    def call(self, *, changes: bool = False, read: Callable[[Answer], Any] = lambda answer: answer, **more: Any) -> Any:
        return self.http.request("look", "PUT" if changes else "GET", "/thing/", read=read, changes=changes, **more)

    def failure(self, **more: Any) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            self.call(**more)
        shown = f"{caught.value} {caught.value!r} {caught.value.__dict__} {self.http!r}" + "".join(
            traceback.format_exception(caught.value)
        )
        assert KEY not in shown
        assert self.observer.seen[-1] == ("vendor", "look", caught.value.kind)
        return caught.value


@pytest.fixture
def setup() -> Setup:
    return Setup()


# What is sent


@responses.activate
def test_what_is_sent(setup: Setup) -> None:
    responses.put(f"{BASE}/thing/", json={"ok": True})
    answer = setup.call(changes=True, params={"q": '{"a":1}'}, json={"price": Decimal("0.350")}, interval=4.5)
    sent = responses.calls[0].request
    assert sent.url == f"{BASE}/thing/?q=%7B%22a%22%3A1%7D"
    assert json.loads(sent.body or "") == {"price": 0.35}
    assert sent.headers["Authorization"] == f"Bearer {KEY}"
    assert sent.headers["Accept"] == "application/json"
    assert sent.headers["User-Agent"].startswith("gpubroker/")
    assert answer.json == {"ok": True}
    assert setup.gate.taken == [("vendor:look", 4.5, 0.0)]
    assert setup.observer.seen == [("vendor", "look", "")]


@responses.activate
def test_no_key_no_header() -> None:
    responses.get(f"{BASE}/thing/", json={})
    Setup(key="").call()
    assert "Authorization" not in responses.calls[0].request.headers


@responses.activate
def test_white_space_around_the_key_is_dropped() -> None:
    responses.get(f"{BASE}/thing/", json={})
    Setup(key=f" {KEY}\n").call()
    assert responses.calls[0].request.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ключ"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ValueError, match="vendor key") as caught:
        Setup(key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["vendor.test", "ftp://vendor.test", "https://user:pass@vendor.test", "https://v.test?key=1", ""]
)
def test_a_base_url_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        Setup(base_url=url)


@responses.activate
def test_the_environment_leaks_nothing_in(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine vendor.test login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    responses.get(f"{BASE}/thing/", json={}, headers={"Set-Cookie": "sid=1; Path=/"})
    setup.call()
    setup.call()
    sent: Any = responses.calls[1].request
    assert sent.headers["Authorization"] == f"Bearer {KEY}"
    assert "Cookie" not in sent.headers
    assert sent.req_kwargs["proxies"] == {}
    assert sent.req_kwargs["verify"] is True


@pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": object()}, {"x": Decimal("inf")}])
def test_what_is_no_json_is_not_sent(setup: Setup, body: Any) -> None:
    error = setup.failure(changes=True, json=body)
    assert type(error) is InvalidRequest
    assert not error.may_have_happened


@responses.activate
def test_numbers_arrive_exact(setup: Setup) -> None:
    responses.get(f"{BASE}/thing/", body='{"price": 0.1, "count": 3}', content_type="application/json")
    body = setup.call().json
    assert body == {"price": Decimal("0.1"), "count": 3}
    assert type(body["price"]) is Decimal
    assert type(body["count"]) is int


# The gate


def test_a_held_gate_closes_the_call(setup: Setup) -> None:
    setup.gate.held["vendor:key"] = 2.5
    error = setup.failure(changes=True, gate_key="key")
    assert (type(error), error.retry_after, error.provider, error.operation) == (GateClosed, 2.5, "vendor", "look")


@responses.activate
def test_pace_multiplies_the_interval() -> None:
    responses.get(f"{BASE}/thing/", json={})
    setup = Setup(pace=0.01)
    setup.call(interval=6.0, wait=9.0, gate_key="search")
    ((key, interval, wait),) = setup.gate.taken
    assert (key, wait) == ("vendor:search", 9.0)
    assert interval == pytest.approx(0.06)


# 429 in every form

PAGE = (
    "<html>\n<head><title>429 Too Many Requests</title></head>\n<body>The action was not performed: there were "
    "too many requests by the client.<br/>API requests too frequent: endpoint threshold=4.5*2.0</body></html>"
)
LIVE = {
    "message": "The action could not be performed because there were too many requests by the client.\n\n"
    "API requests too frequent: endpoint threshold=4.5*1.0\n\n",
    "code": "429 Too Many Requests",
}
DRAFT = {"error": "HTTPTooManyRequests", "msg": "API requests too frequent", "retry_after": 3, "limit": 5}


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize(
    ("status", "body", "headers", "interval", "pause"),
    [
        (429, "API requests too frequent", {}, 0.0, 1.0),
        (429, "API requests too frequent", {}, 3.0, 3.0),
        (429, "API requests too frequent: endpoint threshold=12.25", {}, 3.0, 12.25),
        (429, PAGE, {}, 3.0, 9.0),
        (429, "", {}, 2.0, 2.0),
        (429, {"detail": "API requests too frequent endpoint threshold=4.5"}, {}, 0.0, 4.5),
        (429, LIVE, {}, 1.0, 4.5),
        (429, {"success": False, "error": "rate_limit_exceeded", "msg": "slow"}, {}, 3.0, 3.0),
        (429, DRAFT, {}, 1.0, 3.0),
        (429, DRAFT, {"Retry-After": "7"}, 1.0, 7.0),
        (429, "x", {"Retry-After": "0.5"}, 1.0, 1.0),
        (429, "x", {"Retry-After": "999999"}, 1.0, 600.0),
        (429, "x", {"Retry-After": "soon"}, 1.0, 1.0),
        (429, "x", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 1.0, 1.0),
        (429, "x", {"Retry-After": "Wed, 21 Oct 2215 07:28:00 GMT"}, 1.0, 600.0),
        (429, {"retry_after": "never"}, {}, 1.0, 1.0),
        (429, {"retry_after": {"a": 1}}, {}, 1.0, 1.0),
        (429, "threshold=...", {}, 1.0, 1.0),
        (400, {"success": False, "error": "rate_limit_exceeded"}, {}, 3.0, 3.0),
        (200, {"success": False, "error": "rate_limit_exceeded"}, {}, 3.0, 3.0),
        (403, "API requests too frequent: endpoint threshold=4.5", {}, 3.0, 4.5),
    ],
)
@responses.activate
def test_rate_limits(
    setup: Setup, changes: bool, status: int, body: Any, headers: dict[str, str], interval: float, pause: float
) -> None:
    form: dict[str, Any] = {"body": body} if isinstance(body, str) else {"json": body}
    responses.add("PUT" if changes else "GET", f"{BASE}/thing/", status=status, headers=headers, **form)
    error = setup.failure(changes=changes, interval=interval, gate_key="things")
    assert type(error) is RateLimited
    assert error.retry_after == pytest.approx(pause)
    assert error.status == status
    ((key, seconds),) = setup.gate.pushed
    assert key == "vendor:things"
    assert seconds == pytest.approx(pause)


@responses.activate
def test_a_success_that_speaks_of_rate_limits_is_a_success(setup: Setup) -> None:
    responses.get(f"{BASE}/thing/", json={"success": True, "label": "too many requests"})
    assert setup.call().ok


# Statuses and bodies


@pytest.mark.parametrize(("changes", "kind"), [(False, Unavailable), (True, OutcomeUnknown)])
@pytest.mark.parametrize("status", [301, 302, 307, 308, 408, 500, 502, 503, 504, 599])
@responses.activate
def test_statuses_that_leave_it_open(setup: Setup, status: int, changes: bool, kind: type[ProviderError]) -> None:
    method = "PUT" if changes else "GET"
    responses.add(
        method, f"{BASE}/thing/", status=status, body="<h1>oops</h1>", headers={"Location": "https://evil.test/"}
    )
    error = setup.failure(changes=changes)
    assert (type(error), error.status) == (kind, status)
    assert error.may_have_happened is changes
    assert len(responses.calls) == 1


@responses.activate
def test_a_5xx_may_say_when_to_come_back(setup: Setup) -> None:
    responses.get(f"{BASE}/thing/", status=503, body="busy", headers={"Retry-After": "20"})
    assert setup.failure().retry_after == 20.0


@pytest.mark.parametrize(("changes", "kind"), [(False, MalformedAnswer), (True, OutcomeUnknown)])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>hello</html>",
        b'{"instances": [',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b"[" * 5_000,
        b"\xff\xfe\x00",
        b'{"a": 1e999999999999999999999}',
        b"{} trailing",
    ],
)
@responses.activate
def test_unreadable_successes(setup: Setup, body: bytes, changes: bool, kind: type[ProviderError]) -> None:
    responses.add("PUT" if changes else "GET", f"{BASE}/thing/", body=body)
    assert type(setup.failure(changes=changes)) is kind


@responses.activate
def test_refusals_reach_the_reader_whatever_their_form(setup: Setup) -> None:
    responses.get(f"{BASE}/thing/", status=404, body="<h1>404</h1>")
    answer = setup.call()
    assert (answer.status, answer.json, answer.is_json, answer.ok) == (404, None, False, False)
    assert answer.text == "<h1>404</h1>"


@pytest.mark.parametrize(("changes", "kind"), [(False, MalformedAnswer), (True, OutcomeUnknown)])
@responses.activate
def test_a_reader_that_does_not_understand(setup: Setup, changes: bool, kind: type[ProviderError]) -> None:
    def read(answer: Answer) -> None:
        raise MalformedAnswer("what?", provider="vendor", operation="look", status=answer.status, code="c")

    responses.add("PUT" if changes else "GET", f"{BASE}/thing/", json=[])
    error = setup.failure(changes=changes, read=read)
    assert (type(error), error.message, error.status, error.code) == (kind, "what?", 200, "c")


@responses.activate
def test_a_bug_in_a_reader_is_no_provider_error(setup: Setup) -> None:
    responses.get(f"{BASE}/thing/", json={})
    with pytest.raises(KeyError):
        setup.call(read=lambda answer: answer.json["nothing"])
    assert setup.observer.seen == [("vendor", "look", "internal_error")]


@responses.activate
def test_what_the_vendor_wrote_is_redacted(setup: Setup) -> None:
    responses.get(f"{BASE}/thing/", status=500, json={"msg": f"bad key {KEY}\x1b[31m", "api_key": KEY})
    assert setup.failure().message == "bad key [redacted] [31m"


# The network


def test_nobody_listens(setup: Setup) -> None:
    with serving() as server:
        url = server.url
    for changes in (False, True):
        error = Setup(url).failure(changes=changes)
        assert (type(error), error.may_have_happened) == (Unavailable, False)


def test_no_such_host() -> None:
    error = Setup("http://no-such-host.invalid").failure(changes=True)
    assert (type(error), error.may_have_happened) == (Unavailable, False)


@responses.activate
def test_connecting_takes_too_long(setup: Setup) -> None:
    responses.put(f"{BASE}/thing/", body=requests.ConnectTimeout("slow"))
    assert type(setup.failure(changes=True)) is Unavailable


def test_a_plain_server_on_an_https_url() -> None:
    with serving([b"not tls at all\r\n", "close"]) as server:
        error = Setup(server.url.replace("http:", "https:")).failure(changes=True)
    assert (type(error), error.may_have_happened) == (Unavailable, False)


DRIP = [step for _ in range(40) for step in (b"X-Slow: 1\r\n", 0.1)]
NETWORK_FAULTS: dict[str, list[bytes | float | str]] = {
    "closed after the request": ["close"],
    "reset after the request": ["reset"],
    "no answer": [3.0],
    "cut off in the status": [b"HTTP/1.", "close"],
    "cut off in the body": [http_bytes(200, b'{"success": tr', length=500), "close"],
    "cut off in a chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{", "close"],
    "cut off in a refusal": [http_bytes(400, b'{"success": fal', length=500), "close"],
    "dripping headers": [b"HTTP/1.1 200 OK\r\n", *DRIP],
    "dripping body": [http_bytes(200, b"{", length=500), *[step for _ in range(40) for step in (b" ", 0.1)]],
    "dripping chunks": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        *[step for _ in range(40) for step in (b"1\r\n \r\n", 0.1)],
    ],
    "endless body": [http_bytes(200, b" " * 20_000)],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.6\r\n", "close"],
    "bad gzip": [http_bytes(200, b"not gzip", "Content-Encoding: gzip")],
}


@pytest.mark.parametrize(("changes", "kind"), [(False, Unavailable), (True, OutcomeUnknown)])
@pytest.mark.parametrize("fault", NETWORK_FAULTS)
def test_network_faults_after_sending(fault: str, changes: bool, kind: type[ProviderError]) -> None:
    with serving(NETWORK_FAULTS[fault], [http_bytes(200, b"{}")]) as server:
        setup = Setup(server.url)
        started = time.monotonic()
        error = setup.failure(changes=changes, json={"a": 1})
        assert time.monotonic() - started < 2.0
        assert type(error) is kind
        assert error.may_have_happened is changes
        assert len(server.requests) == 1, "a request was sent twice"


def test_a_connection_is_used_again_by_its_thread() -> None:
    with serving(*[[http_bytes(200, b"{}")]] * 3) as server:
        setup = Setup(server.url)
        for _ in range(3):
            setup.call()
        assert (server.connections, len(server.requests)) == (1, 3)


def test_an_idle_connection_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.http._IDLE_SECONDS", -1.0)
    with serving(*[[http_bytes(200, b"{}")]] * 2) as server:
        setup = Setup(server.url)
        setup.call()
        setup.call(changes=True)
        assert (server.connections, len(server.requests)) == (2, 2)


@responses.activate
def test_threads_do_not_share_a_session(setup: Setup) -> None:
    responses.get(f"{BASE}/thing/", json={})
    sessions = []

    def work() -> None:
        setup.call()
        sessions.append(setup.http._session())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(session) for session in sessions}) == 4


@pytest.mark.parametrize(("changes", "kind"), [(False, MalformedAnswer), (True, OutcomeUnknown)])
def test_cut_off_in_the_headers(changes: bool, kind: type[ProviderError], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving([b"HTTP/1.1 200 OK\r\nContent-Le", "close"]) as server:
        error = Setup(server.url).failure(changes=changes, params={"api_token": "at_secret99"})
    assert type(error) is kind
    assert "at_secret99" not in caplog.text


def test_nothing_is_logged_about_urls(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving([http_bytes(200, b"{}")]) as server:
        Setup(server.url).call(params={"api_token": "at_secret99"})
    assert "at_secret99" not in caplog.text


# TLS, as in production


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate_file.write_bytes(made.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(certificate_file), str(key_file)


def test_a_certificate_that_nobody_vouches_for(certificate: tuple[str, str]) -> None:
    with serving([http_bytes(200, b"{}")], certificate=certificate) as server:
        error = Setup(server.url).failure(changes=True)
        assert (type(error), error.may_have_happened) == (Unavailable, False)
        assert server.requests == []


def trusting(url: str, certificate: tuple[str, str]) -> Setup:
    setup = Setup(url)
    setup.http._session().verify = certificate[0]
    return setup


def test_two_calls_over_one_encrypted_connection(certificate: tuple[str, str]) -> None:
    with serving(*[[http_bytes(200, b'{"a": 1}')]] * 2, certificate=certificate) as server:
        setup = trusting(server.url, certificate)
        assert [setup.call().json, setup.call(changes=True, json={}).json] == [{"a": 1}, {"a": 1}]
        assert (server.connections, len(server.requests)) == (1, 2)


@pytest.mark.parametrize("fault", ["dripping headers", "dripping body", "no answer", "cut off in the body"])
def test_network_faults_over_tls(fault: str, certificate: tuple[str, str]) -> None:
    with serving(NETWORK_FAULTS[fault], [http_bytes(200, b"{}")], certificate=certificate) as server:
        started = time.monotonic()
        error = trusting(server.url, certificate).failure(changes=True)
        assert time.monotonic() - started < 2.0
        assert type(error) is OutcomeUnknown
        assert len(server.requests) == 1
