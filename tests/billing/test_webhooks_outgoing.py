"""Where webhooks may lead, and that every call ends: against real sockets on this machine."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gpubroker.common import outgoing
from gpubroker.common.outgoing import NOT_PUBLIC, BadUrl, NotDelivered
from tests.billing.receiver import Receiver, receiving

PRIVATE = [
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
    "100.100.100.200", "169.254.169.254", "169.254.0.1", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::127.0.0.1",
    "64:ff9b::a00:1", "64:ff9b:1::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "2001:db8::1",
    "2002:7f00:1::", "2001:0:7f00:1::",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
DISGUISED = [
    "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1", "017700000001", "2852039166", "0",
    "0xa9fea9fe", "127.0.0.1.", "localhost", "LOCALHOST", "localhost.", "a.localhost",
]  # fmt: skip


class Names:
    """The resolver: what each name leads to, one answer after the other, the last one again and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        self.asked: list[str] = []
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, port: Any, *args: Any, **more: Any) -> Any:
        lists = self.answers.get(str(host))
        if lists is None:
            return self._real(host, port, *args, **more)
        self.asked.append(str(host))
        found = lists.pop(0) if len(lists) > 1 else lists[0]
        return [entry for text in found for entry in self._real(text, port, *args, **more)]


def send(url: str, *, allow_private: bool = True, total: float = 10) -> outgoing.Reply:
    return outgoing.post(url, b'{"a":1}', {"X-Own": "1"}, allow_private=allow_private, total=total)


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_that_are_not_public(text: str) -> None:
    address = ipaddress.ip_address(text)
    host = f"[{text}]" if address.version == 6 else text
    assert not outgoing.is_public(address)
    with pytest.raises(BadUrl, match=NOT_PUBLIC):
        outgoing.parse(f"http://{host}:8000/x", allow_private=False)
    assert outgoing.parse(f"http://{host}:8000/x", allow_private=True).port == 8000


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_that_are_public(text: str) -> None:
    assert outgoing.is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("host", DISGUISED)
def test_private_addresses_in_disguise(host: str) -> None:
    with pytest.raises(BadUrl, match=NOT_PUBLIC):
        outgoing.parse(f"https://{host}/", allow_private=False)


@pytest.mark.parametrize("text", PRIVATE)
def test_a_name_that_leads_to_one_of_them_beside_a_public_one(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    Names(monkeypatch, hooks_test=[["8.8.8.8", text]])
    with pytest.raises(NotDelivered, match=NOT_PUBLIC):
        outgoing.addresses("hooks.test", 80, allow_private=False, seconds=10)


def test_a_name_for_this_machine_is_not_connected_to(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, hooks_test=[["127.0.0.1"]])
    with pytest.raises(NotDelivered) as refusal:
        send(f"http://hooks.test:{receiver.port}/", allow_private=False)
    assert str(refusal.value) == NOT_PUBLIC
    assert receiver.received == []


def test_the_address_that_was_checked_is_the_one_that_is_called(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is asked for once: what it says afterwards (203.0.113.1) counts for nothing."""
    names = Names(monkeypatch, hooks_test=[["127.0.0.1"], ["203.0.113.1"]])
    assert send(f"http://hooks.test:{receiver.port}/a?b=c").status == 200
    assert names.asked == ["hooks.test"]
    (request,) = receiver.received
    assert (request.path, request.headers["Host"]) == ("/a?b=c", f"hooks.test:{receiver.port}")
    assert (request.headers["X-Own"], request.body) == ("1", b'{"a":1}')


def test_of_several_addresses_the_one_that_answers_is_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, hooks_test=[["127.0.0.2", "127.0.0.1"]])  # nothing listens on the first
    assert send(f"http://hooks.test:{receiver.port}/").status == 200
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://hooks.test/", "must begin with https:// or http://"),
        ("hooks.test/x", "must begin with"),
        ("//hooks.test/x", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("https://", "needs a host name"),
        ("https:///x", "needs a host name"),
        ("https://user:pass@hooks.test/", "user name or password"),
        ("https://user@hooks.test/", "user name or password"),
        ("https://hooks.test@127.0.0.1/", "user name or password"),
        ("https://hooks.test/#part", "fragment"),
        ("https://hooks.test:0/", "port from 1 to 65535"),
        ("https://hooks.test:65536/", "cannot|can be read"),
        ("https://hooks.test:x/", "can be read"),
        ("https://[::1/", "can be read"),
        ("https://[12345]/", "IPv6 address|needs a host name|can be read"),
        ("https://999.1.1.1/", "IPv4 address that is none"),
        ("https://hooks_/..", "needs a host name"),
        ("https://a..b/", "needs a host name"),
        ("https://" + "a" * 64 + ".test/", "needs a host name"),
        ("https://hooks.test\\@evil.test/", "backslashes"),
        ("https://hooks.test/a b", "spaces"),
        ("https://hooks.test/a\r\nX: 1", "spaces"),
        ("https://hööks.test/", "punycode"),
        ("https://hooks.test/" + "a" * 2000, "at most 2000"),
    ],
)
def test_urls_that_will_never_do(url: str, reason: str) -> None:
    with pytest.raises(BadUrl, match=reason):
        outgoing.parse(url, allow_private=False)


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://hooks.test", "hooks.test", 443, "/"),
        ("http://Hooks.Test:81/a?b=c", "hooks.test", 81, "/a?b=c"),
        ("https://[2606:4700::1111]:8443/x", "2606:4700::1111", 8443, "/x"),
        ("https://8.8.8.8/", "8.8.8.8", 443, "/"),
    ],
)
def test_urls_that_will_do(url: str, host: str, port: int, path: str) -> None:
    target = outgoing.parse(url, allow_private=False)
    assert (target.host, target.port, target.path) == (host, port, path)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("hang", "no answer within 0.3 s"),
        ("drip", "no answer within 0.3 s"),
        ("close", "the connection broke before an answer came"),
        ("garbage", "the connection broke before an answer came"),
    ],
)
def test_what_is_no_answer(receiver: Receiver, behaviour: str, words: str) -> None:
    receiver.usual = behaviour
    began = time.monotonic()
    with pytest.raises(NotDelivered) as failure:
        send(receiver.url, total=0.3)
    assert str(failure.value) == words
    assert time.monotonic() - began < 5
    assert len(receiver.received) == 1  # and nothing was sent twice


def test_the_status_is_the_answer_however_slow_the_body(receiver: Receiver) -> None:
    receiver.usual = "drip body"
    began = time.monotonic()
    reply = send(receiver.url, total=0.5)
    assert reply.status == 200
    assert reply.excerpt.startswith("XX")
    assert time.monotonic() - began < 5


def test_four_kilobytes_of_a_body_are_read_and_300_characters_kept(receiver: Receiver) -> None:
    receiver.usual = "big"
    reply = send(receiver.url)
    assert reply == outgoing.Reply(200, "y" * 299 + "…")


def test_a_body_is_kept_on_one_line_without_controls(receiver: Receiver) -> None:
    receiver.answer = b"no\r\nroom\x00\x1b[31m left \xff token=abcdef"
    assert send(receiver.url).excerpt == "no room [31m left \ufffd token=[redacted]"


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 308, 400, 404, 410, 500])
def test_every_status_is_an_answer_and_none_is_followed(receiver: Receiver, status: int) -> None:
    receiver.usual = status
    receiver.answer = b""
    assert send(receiver.url).status == status
    assert len(receiver.received) == 1


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(NotDelivered, match=r"^nothing accepts connections there$"):
        send(f"http://127.0.0.1:{port}/secret-path")
    with pytest.raises(NotDelivered, match=r"^its name cannot be resolved$"):
        send("http://no-such-name.invalid/")


def test_somebody_who_never_begins_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(NotDelivered, match=r"^no answer within 0.3 s$"):
        send(f"https://127.0.0.1:{deaf.getsockname()[1]}/", total=0.3)


def test_a_resolver_that_does_not_answer_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: stuck.wait(20))
    try:
        with pytest.raises(NotDelivered, match=r"^its name could not be resolved in time$"):
            send("http://hooks.test/", total=0.2)
    finally:
        stuck.set()


def _certificate(name: str, folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for ``name``, and a server's context with it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context


def test_certificates_are_those_of_the_name_and_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, hooks_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    path, context = _certificate("hooks.test", tmp_path)
    with receiving(context) as receiver:
        outgoing.trust.cache_clear()
        with pytest.raises(NotDelivered, match="certificate is not accepted"):
            send(f"https://hooks.test:{receiver.port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        outgoing.trust.cache_clear()
        try:
            assert send(f"https://hooks.test:{receiver.port}/").status == 200
            with pytest.raises(NotDelivered, match="certificate is not accepted"):
                send(f"https://other.test:{receiver.port}/")
        finally:
            outgoing.trust.cache_clear()
    assert [request.headers["Host"] for request in receiver.received] == [f"hooks.test:{receiver.port}"]


def test_no_proxy_of_the_environment_is_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    assert send(receiver.url).status == 200
