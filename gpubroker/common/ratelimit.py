"""How often one key, or one address without a key, may call the API: ``API_RATE_PER_MINUTE``.

Counted in the queue's Redis, so that all web processes share the counts. While it is away each process counts for
itself: a dead Redis makes the limit looser, never the API unavailable.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import limits
from django.conf import settings
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage, Storage
from limits.strategies import FixedWindowRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from gpubroker.common import principal
from gpubroker.common.errors import ApiError

if TYPE_CHECKING:
    from rest_framework.views import APIView

log = logging.getLogger(__name__)

#: How long to count in memory after Redis failed, before it is tried again.
RETRY_SECONDS = 10.0
#: A request must not wait long for its count.
SOCKET_SECONDS = 0.25
#: In so many takes a limit is used up, and of so many callers takes are remembered.
TAKES, CALLERS = 100, 10_000
#: So long calls that were taken are good at least.
LEAST_SECONDS = 0.5
#: In ``request.META``: the layer in front of Django has counted this call.
COUNTED = "gpubroker.counted"
SHARED_SCHEMES = ("redis://", "rediss://")


def address(meta: Mapping[str, Any]) -> str:
    """The caller's address; behind ``TRUSTED_PROXIES`` proxies the one that the outermost of them saw.

    An IPv6 caller usually owns a whole /64 and counts as one.
    """
    seen = str(meta.get("REMOTE_ADDR", ""))
    if settings.TRUSTED_PROXIES:
        hops = [hop.strip() for hop in str(meta.get("HTTP_X_FORWARDED_FOR", "")).split(",") if hop.strip()]
        if len(hops) >= settings.TRUSTED_PROXIES:
            seen = hops[-settings.TRUSTED_PROXIES]
    return _plain(seen)


@functools.lru_cache(maxsize=4096)
def _plain(seen: str) -> str:
    try:
        parsed = ipaddress.ip_address(seen)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed), 64), strict=False))
    return str(parsed)


class TooMany(ApiError):
    """429 with ``Retry-After``."""

    def __init__(self, per_minute: int, seconds: int) -> None:
        super().__init__(
            429, f"more than {per_minute} requests in a minute; try again in {seconds} s",
            headers={"Retry-After": str(seconds)}, retry_suggested=True,
        )  # fmt: skip


@functools.cache
def together(per_minute: int) -> int:
    """How many calls a process takes at a time: the largest divisor of the limit up to a hundredth of it, so that
    whole takes fill the limit exactly."""
    return next(many for many in range(max(per_minute // TAKES, 1), 0, -1) if per_minute % many == 0)


@dataclass(slots=True)
class _Taken:
    """Calls that are counted already and not made yet; they are void when the minute is over."""

    left: int
    until: float


class Tally:
    """Counts calls per caller and minute: shared while Redis answers, else in this process.

    A process counts a hundredth of the limit at once and then lets so many calls through without asking again. So with
    several processes a caller may be refused a few calls early, those that another process took and did not need."""

    def __init__(self, redis_url: str, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._retry_at = 0.0
        self._lock = threading.Lock()
        self._own = FixedWindowRateLimiter(MemoryStorage())
        self._shared = _shared(redis_url)
        self._taken: dict[tuple[str, int], _Taken] = {}

    def hit(self, caller: str, per_minute: int) -> int:
        """Count one call; 0 when it may pass, else the seconds after which the next one may."""
        if self.use(caller, per_minute):
            return 0
        item = limits.RateLimitItemPerMinute(per_minute)
        if self._shared is not None and self._timer() >= self._retry_at:
            try:
                return self._take(self._shared, item, caller)
            except StorageError as error:
                with self._lock:
                    self._retry_at = self._timer() + RETRY_SECONDS
                reason = type(error.storage_error).__name__
                log.warning("rate limits are counted per process for now, Redis does not answer: %s", reason)
        return _hit(self._own, item, caller)

    def use(self, caller: str, per_minute: int) -> bool:
        """Count the call as one of those that were taken before; ``False``: none is left, nothing is counted."""
        if self._shared is None or self._timer() < self._retry_at:
            return False
        with self._lock:
            taken = self._taken.get((caller, per_minute))
            if taken is None or not taken.left or time.time() >= taken.until:
                return False
            taken.left -= 1
            return True

    def _take(self, shared: FixedWindowRateLimiter, item: limits.RateLimitItem, caller: str) -> int:
        many = together(item.amount)
        seconds = _hit(shared, item, caller, many)
        if many > 1 and not seconds:
            # It is told in whole seconds, and so as over already when less than half a second is left.
            until = max(shared.get_window_stats(item, caller).reset_time, time.time() + LEAST_SECONDS)
            with self._lock:
                if len(self._taken) >= CALLERS:
                    self._taken.clear()
                before = self._taken.get((caller, item.amount))
                # Of two threads that took at the same time, neither's calls are lost.
                more = before.left if before is not None and before.until > time.time() else 0
                self._taken[caller, item.amount] = _Taken(many - 1 + more, until)
        return seconds


def _shared(redis_url: str) -> FixedWindowRateLimiter | None:
    if not redis_url.startswith(SHARED_SCHEMES):
        return None
    storage: Storage = RedisStorage(
        redis_url,
        key_prefix="gpubroker:rate",
        wrap_exceptions=True,
        socket_connect_timeout=SOCKET_SECONDS,
        socket_timeout=SOCKET_SECONDS,
        retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type] # handed on to redis.Redis
    )
    return FixedWindowRateLimiter(storage)


def _hit(limiter: FixedWindowRateLimiter, item: limits.RateLimitItem, caller: str, cost: int = 1) -> int:
    if limiter.hit(item, caller, cost=cost):
        return 0
    left = limiter.get_window_stats(item, caller).reset_time - time.time()
    return min(max(ceil(left), 1), 60)


@functools.cache
def _tally(redis_url: str) -> Tally:
    return Tally(redis_url)


def count(caller: str) -> None:
    """Count one call of this caller; 429 beyond the limit."""
    if not settings.API_RATE_PER_MINUTE:
        return
    seconds = _tally(settings.REDIS_URL).hit(caller, settings.API_RATE_PER_MINUTE)
    if seconds:
        raise TooMany(settings.API_RATE_PER_MINUTE, seconds)


def use(key_prefix: str, meta: Mapping[str, Any]) -> bool:
    """Count one call where no other process has to be asked, and it may pass; ``False``: nothing is counted yet."""
    per_minute = settings.API_RATE_PER_MINUTE
    if not per_minute:
        return True
    return _tally(settings.REDIS_URL).use(_caller(key_prefix, meta), per_minute)


def _caller(key_prefix: str, meta: Mapping[str, Any]) -> str:
    return f"key:{key_prefix}" if key_prefix else f"address:{address(meta)}"


def count_address(meta: Mapping[str, Any]) -> None:
    count(_caller("", meta))


def count_caller(key_prefix: str, meta: Mapping[str, Any]) -> None:
    """Count one call: by key, or by address on the open API."""
    count(_caller(key_prefix, meta))


class PerCaller(BaseThrottle):
    """DRF's hook."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        if COUNTED not in request.META:
            count_caller(principal.of(request).key_prefix, request.META)
        return True
