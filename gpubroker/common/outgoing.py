"""HTTP to addresses that callers name: webhooks. Apart from ``providers.http`` the only place that speaks HTTP.

Whatever the URL and the other side do:

* nothing reaches this machine, the networks it stands in or a cloud's metadata service: the name is resolved once,
  *all* its addresses must be public, and the connection goes to the very address that was checked, so that a name
  which answers otherwise a moment later gains nothing. Host header, SNI and certificate are those of the name;
* it ends: one limit for name, connection, TLS, sending and reading together;
* nothing is sent twice and no redirect is followed (it would lead around the check); no proxies, no cookies;
* at most 4 KB of an answer are read.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import certifi
import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

from providers import deadline
from providers.redact import safe_text

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LONGEST_URL = 2_000
TOTAL_SECONDS = 10.0
CONNECT_SECONDS = 4.0
#: Of a name with many addresses, so many are tried.
MOST_ADDRESSES = 3
MOST_READ = 4_096
USER_AGENT = "gpubroker-webhooks/0.1"

NOT_PUBLIC = "its address is not public"
#: Public by their numbers, and yet some cloud's own services; or ways around the check.
_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's host
        "192.0.0.0/24",  # protocol assignments, among them Oracle's metadata
        "192.88.99.0/24",  # 6to4 relays
        "2002::/16",  # 6to4: holds an IPv4 address
        "2001::/23",  # Teredo and the like: also
        "fec0::/10",  # site-local
    )
)
#: How IPv6-only networks reach IPv4: the last 32 bits are the address.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]{2,45}\]")
#: All that C libraries take for an IPv4 address: 127.1, 0x7f000001, 2130706433, 0177.0.0.1.
_NUMERIC = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)(?:\.(?:0[xX][0-9A-Fa-f]*|[0-9]+)){0,3}\.?")
#: Names are looked up here, because a lookup cannot be given a time.
_lookups = ThreadPoolExecutor(8, thread_name_prefix="lookup")


class BadUrl(ValueError):
    """This URL will never do; the message says why and quotes nothing."""


class NotDelivered(Exception):
    """No answer came; the message is for people and holds neither the URL nor an address."""


@dataclass(frozen=True, slots=True)
class Target:
    secure: bool
    host: str
    port: int
    #: As in the Host header.
    netloc: str = field(repr=False)
    #: Path and query.
    path: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    #: One line of at most 300 characters from the start of the body.
    excerpt: str


def parse(url: str, *, allow_private: bool) -> Target:
    """The parts of a URL that may be called; :class:`BadUrl`. Names are not looked up here, but at every call."""
    if len(url) > LONGEST_URL:
        raise BadUrl(f"must have at most {LONGEST_URL} characters")
    if not re.fullmatch(r"[\x21-\x7e]+", url) or "\\" in url:
        raise BadUrl("must be printable ASCII without spaces or backslashes (percent-encode, write names in punycode)")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadUrl("is not a URL that can be read") from None
    if parts.scheme not in ("https", "http"):
        raise BadUrl("must begin with https:// or http://")
    if "@" in parts.netloc:
        raise BadUrl("must not hold a user name or password")
    if "#" in url:
        raise BadUrl("must not have a fragment (#)")
    host = parts.netloc.rsplit(":", 1)[0] if port is not None else parts.netloc.removesuffix(":")
    if not _HOST.fullmatch(host) or port == 0 or any(not 0 < len(label) < 64 for label in host.rstrip(".").split(".")):
        raise BadUrl("needs a host name, and a port from 1 to 65535 if any")
    if not allow_private and _is_private_on_sight(host):
        raise BadUrl(f"may not be called: {NOT_PUBLIC}")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(secure, host.strip("[]").lower(), port or (443 if secure else 80), parts.netloc, path)


def _is_private_on_sight(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    if host.startswith("["):
        try:
            return not is_public(ipaddress.ip_address(host.strip("[]")))
        except ValueError:
            raise BadUrl("holds an IPv6 address that is none") from None
    if not _NUMERIC.fullmatch(name):
        return False
    try:
        return not is_public(ipaddress.IPv4Address(socket.inet_aton(name)))
    except OSError:
        raise BadUrl("holds an IPv4 address that is none") from None


def is_public(address: Address) -> bool:
    """Whether it is somewhere on the open Internet."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    refused = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    refused = refused or address.is_reserved or address.is_unspecified or not address.is_global
    return not refused and not any(address in network for network in _REFUSED)


def addresses(host: str, port: int, *, allow_private: bool, seconds: float) -> list[str]:
    """Where the name leads; :class:`NotDelivered` when it leads nowhere, or anywhere that is not public."""
    looked_up = _lookups.submit(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)
    try:
        found = looked_up.result(timeout=max(seconds, 0))
    except TimeoutError:
        looked_up.cancel()
        raise NotDelivered("its name could not be resolved in time") from None
    except (OSError, UnicodeError):
        raise NotDelivered("its name cannot be resolved") from None
    listed = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private and not all(is_public(ipaddress.ip_address(text)) for text in listed):
        raise NotDelivered(NOT_PUBLIC)
    return listed


@functools.cache
def trust() -> ssl.SSLContext:
    """The system's authorities (or ``SSL_CERT_FILE``) and, as some systems have none, certifi's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool, total: float = TOTAL_SECONDS
) -> Reply:
    """Send once. ``total``: seconds for everything. :class:`BadUrl`, :class:`NotDelivered`."""
    ends_at = time.monotonic() + total
    target = parse(url, allow_private=allow_private)
    listed = addresses(target.host, target.port, allow_private=allow_private, seconds=total)
    fault: Exception | None = None
    for address in listed[:MOST_ADDRESSES]:
        left = ends_at - time.monotonic()
        if left <= 0:
            raise NotDelivered(f"no answer within {total:g} s")
        deadline.begin(left, left)
        try:
            return _exchange(target, address, body, headers, left)
        except (HTTPError, OSError) as error:
            fault = error
        if not deadline.never_sent():
            break
    raise NotDelivered(_plainly(fault, total))


def _exchange(target: Target, address: str, body: bytes, headers: Mapping[str, str], left: float) -> Reply:
    with _pool(target, f"[{address}]" if ":" in address else address) as pool:
        response = pool.urlopen(
            "POST",
            target.path,
            body,
            {**headers, "Host": target.netloc, "User-Agent": USER_AGENT, "Accept-Encoding": "identity",
             "Connection": "close"},
            retries=False, redirect=False, preload_content=False, decode_content=False,
            timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, left), read=left),
        )  # fmt: skip
        try:
            return Reply(response.status, _excerpt(response))
        finally:
            response.close()


def _pool(target: Target, address: str) -> urllib3.HTTPConnectionPool:
    if target.secure:
        return deadline.EncryptedPool(
            address, target.port, cert_reqs="CERT_REQUIRED", ssl_context=trust(), server_hostname=target.host
        )
    return deadline.PlainPool(address, target.port)


def _excerpt(response: urllib3.BaseHTTPResponse) -> str:
    """The status line is the answer: a body that breaks off or drips changes nothing of it."""
    pieces: list[bytes] = []
    size = 0
    try:
        while size < MOST_READ and (piece := response.read1(MOST_READ - size)):
            pieces.append(piece)
            size += len(piece)
    except (HTTPError, OSError):
        pieces.append(b" [broken off]")
    return safe_text(b"".join(pieces).decode("utf-8", "replace"))


def _plainly(fault: Exception | None, total: float) -> str:
    """Not the fault's own words: they hold the URL or the address."""
    if isinstance(fault, SSLError):
        return "its TLS certificate is not accepted, or it speaks no TLS"
    if isinstance(fault, NewConnectionError):  # which is also a ConnectTimeoutError
        return "nothing accepts connections there"
    if isinstance(fault, ConnectTimeoutError):
        return "it does not accept the connection in time"
    if isinstance(fault, (TimeoutError, urllib3.exceptions.TimeoutError)) or _timed_out(fault):
        return f"no answer within {total:g} s"
    return "the connection broke before an answer came"


def _timed_out(fault: BaseException | None) -> bool:
    """urllib3 wraps a read that ran out of time as a broken connection."""
    inner = fault.args[1] if fault is not None and len(fault.args) > 1 else None
    return isinstance(inner, TimeoutError)
