"""The one place where the broker speaks HTTP to a provider; nothing else imports ``requests``.

What it guarantees, whatever the other side does:

* every call ends: limits on connecting, on each pause, on the whole exchange and on the body's size
  (name resolution is bounded by the system's resolver settings);
* nothing is sent twice: no retries, no redirects (one could drop the credential or the body);
* nothing of the environment leaks in: no proxies, no netrc, no cookies, certificates always checked;
* a failure is one of :mod:`providers.errors`, and says whether the call may have taken effect;
* no credential is in a URL that we build, an error, a log line or a ``repr``.

``requests.Session`` is not thread-safe, so each thread has its own, kept alive between calls. A connection that
lay idle for a while is dropped first: servers close those, and a create that meets one just closed would be ambiguous.
"""

from __future__ import annotations

import json as jsonlib
import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from providers import answers, deadline
from providers.answers import Answer
from providers.base import Gate, GateHeld, Observer
from providers.errors import (
    GateClosed,
    InvalidRequest,
    MalformedAnswer,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Unavailable,
)
from providers.gates import Clock, LocalGate, NullGate, NullObserver, SystemClock
from providers.redact import safe_text

__all__ = [
    "Answer",
    "HTTPClient",
    "Limits",
    "LocalGate",
    "NullGate",
    "NullObserver",
    "SystemClock",
    "safe_text",
]

T = TypeVar("T")

USER_AGENT = "gpubroker/0.1"
_IDLE_SECONDS = 10.0
_CHUNK = 65_536
_REQUEST_TIMEOUT = 408

# urllib3 writes whole URLs at DEBUG and in some warnings; a gateway's URL carries its token (rule I10).
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for connecting, for a pause between two reads and for the whole exchange; bytes of a body."""

    connect: float = 5.0
    read: float = 30.0
    total: float = 60.0
    body: int = 16 * 1024 * 1024


class _Adapter(HTTPAdapter):
    """No retries, and connections that keep the deadline."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": deadline.PlainPool,
            "https": deadline.EncryptedPool,
        }


class _PerThread(threading.local):
    session: requests.Session | None = None
    used_at: float = 0.0


class HTTPClient:
    """Calls to one provider account. Thread-safe; keeps nothing but connections.

    ``pace`` multiplies every minimum interval (the sandbox and tests use less than 1). ``secrets`` are further
    credentials, besides ``bearer``, that must not show up anywhere. ``ValueError`` for a base URL or a key that
    can never work, without showing the key.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        bearer: str,
        gate: Gate,
        observer: Observer,
        clock: Clock | None = None,
        *,
        limits: Limits | None = None,
        pace: float = 1.0,
        secrets: tuple[str, ...] = (),
    ) -> None:
        bearer = bearer.strip()
        if not re.fullmatch(r"[\x21-\x7e]*", bearer):
            raise ValueError(f"the {provider} key holds characters that no HTTP header can carry")
        if not re.fullmatch(r"https?://[A-Za-z0-9._:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?", base_url):
            raise ValueError(f"the {provider} base URL must be http(s)://host[:port][/path]")
        self.provider = provider
        self.base_url = base_url.rstrip("/")
        self.clock = clock or SystemClock()
        self._bearer = bearer
        self._secrets = tuple(s for s in (bearer, *secrets) if s)
        self._gate = gate
        self._observer = observer
        self._limits = limits or Limits()
        self._pace = pace
        self._local = _PerThread()

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.base_url).netloc

    def __repr__(self) -> str:
        return f"HTTPClient({self.provider!r}, {self.base_url!r})"

    def safe_text(self, text: object) -> str:
        """:func:`safe_text` that knows this client's own credentials as well."""
        return safe_text(text, self._secrets)

    def request(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        read: Callable[[Answer], T],
        params: Mapping[str, str] | None = None,
        json: Any = None,
        gate_key: str = "",
        interval: float = 0.0,
        changes: bool = False,
        wait: float = 0.0,
        empty_is_fine: bool = False,
        any_text: bool = False,
    ) -> T:
        """One call: take the gate's slot, send, and hand the answer to ``read``, whose result is returned.

        ``read`` sees complete answers of status 2xx (always JSON) and 4xx (JSON or not) and raises a
        :class:`ProviderError` for what is refused. It raises :class:`MalformedAnswer` for a shape that it does not
        know; after a call that ``changes`` something this becomes :class:`OutcomeUnknown`. All else is dealt
        with here: gate, network, 429, redirects, 5xx, unreadable bodies. ``path`` starts with a slash, its parts
        already quoted; ``params`` are strings; ``json`` may hold ``Decimal``; ``wait`` is how long we may wait for the
        slot, in seconds. With ``empty_is_fine`` an accepted answer may be empty, with ``any_text`` it may be any text,
        and ``read`` sees no JSON then. Inside :func:`providers.deadline.within` everything ends by then.
        """
        call = _Call(self, operation, changes, gate_key or operation, interval * self._pace, empty_is_fine, any_text)
        started, outcome = self.clock.monotonic(), "internal_error"
        try:
            self._take_slot(call, wait)
            started = self.clock.monotonic()
            answer = self._exchange(call, method, path, params, json)
            call.check(answer)
            result = read(answer)
            outcome = ""
            return result
        except MalformedAnswer as exc:
            if not changes:
                outcome = exc.kind
                raise
            unclear = call.error(OutcomeUnknown, exc.message, status=exc.status, code=exc.code)
            outcome = unclear.kind
            raise unclear from None
        except ProviderError as exc:
            outcome = exc.kind
            raise
        finally:
            self._observer.observe(self.provider, operation, self.clock.monotonic() - started, outcome)

    def slow_down(self, call: _Call, seconds: float) -> None:
        self._gate.push_out(f"{self.provider}:{call.gate_key}", seconds)

    def _take_slot(self, call: _Call, wait: float) -> None:
        patience = deadline.left()
        if patience <= 0:
            raise call.error(GateClosed, "not sent: no time was left to wait for the answer", retry_after=1.0)
        try:
            self._gate.acquire(f"{self.provider}:{call.gate_key}", call.interval, wait=min(wait, patience))
        except GateHeld as held:
            raise call.error(GateClosed, held.reason, retry_after=held.retry_after) from None

    def _exchange(self, call: _Call, method: str, path: str, params: Mapping[str, str] | None, json: Any) -> Answer:
        session = self._session()
        try:
            body = None if json is None else jsonlib.dumps(json, default=_number, allow_nan=False).encode()
            prepared = session.prepare_request(
                requests.Request(method, self.base_url + path, params=dict(params or {}), data=body)
            )
        except (ValueError, TypeError, RecursionError):
            # Not the exception's own words: they may quote what could not be sent.
            raise call.error(InvalidRequest, "these arguments cannot be sent") from None
        fault: Exception | None = None
        response: requests.Response | None = None
        deadline.begin(self._limits.total, self._limits.read)
        connect = min(self._limits.connect, max(deadline.left(), 0.01))
        try:
            response = session.send(prepared, stream=True, timeout=(connect, self._limits.read), allow_redirects=False)
            content = self._read_body(call, response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
            fault = exc
        finally:
            self._local.used_at = self.clock.monotonic()
            if response is not None:
                response.close()
        if fault is not None or response is None:
            # Outside of the except block: the library's exception holds the request, and with it the key.
            call.network_fault(fault)
        return answers.parse(response.status_code, response.headers, content)

    def _read_body(self, call: _Call, response: requests.Response) -> bytes:
        chunks: list[bytes] = []
        size = 0
        for chunk in response.iter_content(_CHUNK):
            size += len(chunk)
            if size > self._limits.body:
                raise call.unclear(f"the answer is longer than {self._limits.body} bytes", response.status_code)
            chunks.append(chunk)
        return b"".join(chunks)

    def _session(self) -> requests.Session:
        local = self._local
        if local.session is None:
            session = requests.Session()
            session.trust_env = False
            session.verify = True
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            session.mount("https://", _Adapter())
            session.mount("http://", _Adapter())
            session.headers.update(
                {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": USER_AGENT}
            )
            if self._bearer:
                session.headers["Authorization"] = f"Bearer {self._bearer}"
            local.session = session
        elif self.clock.monotonic() - local.used_at > _IDLE_SECONDS:
            local.session.close()
        return local.session


@dataclass(frozen=True, slots=True)
class _Call:
    """One call under way, and how its failures are told."""

    client: HTTPClient
    operation: str
    changes: bool
    gate_key: str
    interval: float
    empty_is_fine: bool = False
    any_text: bool = False

    def error(
        self,
        kind: type[ProviderError],
        message: object,
        *,
        status: int | None = None,
        code: str = "",
        retry_after: float | None = None,
    ) -> ProviderError:
        return kind(
            self.client.safe_text(message),
            provider=self.client.provider,
            operation=self.operation,
            status=status,
            code=code,
            retry_after=retry_after,
        )

    def unclear(self, message: object, status: int | None = None, retry_after: float | None = None) -> ProviderError:
        """The other side was reached and we do not know what it did."""
        kind = OutcomeUnknown if self.changes else Unavailable
        return self.error(kind, message, status=status, retry_after=retry_after)

    def network_fault(self, fault: Exception | None) -> NoReturn:
        if fault is None or _never_sent(fault):
            raise self.error(Unavailable, f"{self.client.host} cannot be reached: {_plainly(fault)}")
        raise self.unclear(f"no complete answer ({_short(fault)})")

    def check(self, answer: Answer) -> None:
        """Raise for everything that means the same at every vendor."""
        now = self.client.clock.now()
        if answers.is_rate_limit(answer):
            pause = answers.pause_after_rate_limit(answer, self.interval, now)
            self.client.slow_down(self, pause)
            said = answer.said or "too many requests"
            raise self.error(RateLimited, said, status=answer.status, code="rate_limited", retry_after=pause)
        if answer.status >= 500 or answer.status == _REQUEST_TIMEOUT:
            asked = answers.retry_after(answer, now)
            raise self.unclear(answer.said or "empty answer", answer.status, asked or None)
        if answer.status < 200 or 300 <= answer.status < 400:
            raise self.unclear("a redirect, which is not followed", answer.status)
        empty = not answer.text.strip()
        if answer.ok and not answer.is_json and not (self.any_text or (empty and self.empty_is_fine)):
            raise self.error(MalformedAnswer, f"no JSON: {answer.text or 'empty'}", status=answer.status)


def _number(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError("not JSON")


def _never_sent(fault: BaseException) -> bool:
    """Whether the failure came before any byte of the request could leave."""
    if deadline.never_sent() or isinstance(fault, requests.ConnectTimeout):
        return True
    inner = fault.args[0] if fault.args else None
    reason = getattr(inner, "reason", None)
    return isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)


def _plainly(fault: BaseException | None) -> str:
    """Why nothing was sent, in words that tell a person where to look; else the names of the faults."""
    names = _short(fault)
    for name, words in _PLAIN_FAULTS.items():
        if name in names:
            return words
    return names or "no time left"


#: By the class names of urllib3 and requests, the telling ones first.
_PLAIN_FAULTS = {
    "NameResolutionError": "its name cannot be resolved",
    "ConnectTimeout": "it does not answer",
    "SSLError": "its TLS certificate is not accepted",
    "NewConnectionError": "nothing accepts connections there",
}


def _short(fault: BaseException | None) -> str:
    """The names of what went wrong, outermost first. Not the texts: they carry URLs."""
    names: list[str] = []
    while fault is not None and len(names) < 4:
        names.append(type(fault).__name__)
        inner = fault.args[0] if fault.args else None
        reason = getattr(inner, "reason", None)
        following = reason if isinstance(reason, BaseException) else inner
        fault = following if isinstance(following, BaseException) else None
    return " <- ".join(names)
