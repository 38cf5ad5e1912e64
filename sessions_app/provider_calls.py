"""Asking a provider on behalf of a request: which one, whether it can, how long, and what a failure is called.

No request waits longer than ``CREATE_WAIT_SECONDS``, however slowly the other side drips. A slot of the gate that is
taken is waited for within that time. Never inside a transaction. What a provider can is asked by type; where it cannot,
:func:`lacking` is the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.conf import settings

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from providers import deadline
from providers.base import Provider
from providers.errors import (
    AuthError,
    GateClosed,
    InsufficientCredit,
    InvalidRequest,
    ListingIncomplete,
    MalformedAnswer,
    NotFound,
    NotSupported,
    OfferGone,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Unavailable,
)

T = TypeVar("T")

#: With less, no call could be made at all.
LEAST_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 0.3
STATUSES: dict[type[ProviderError], int] = {
    InvalidRequest: 400,
    NotFound: 404,
    OfferGone: 409,
    InsufficientCredit: 409,
    NotSupported: 501,
    AuthError: 502,
    MalformedAnswer: 502,
    ListingIncomplete: 502,
    GateClosed: 503,
    RateLimited: 503,
    Unavailable: 503,
    OutcomeUnknown: 504,
}
NO_OTHERS: Mapping[type[ProviderError], int] = {}


def known(name: str) -> Provider:
    """The provider; 404 where this broker has none of that name."""
    provider = configured.configured().get(name)
    if provider is not None:
        return provider
    if name in configured.KNOWN:
        raise ApiError(404, f"provider {name} is not configured on this broker", provider=name)
    raise ApiError(404, f"there is no provider {name}", provider=name)


def lacking(name: str, what: str, why: str = "") -> ApiError:
    return ApiError(
        501, f"{name} has no {what}{f': {why}' if why else ''}",
        error_type="not_supported", provider=name, retry_suggested=False,
    )  # fmt: skip


def patience() -> float:
    """Seconds that a request may spend on a provider."""
    return max(float(settings.CREATE_WAIT_SECONDS), LEAST_SECONDS)


def ask(what: str, call: Callable[[], T], statuses: Mapping[type[ProviderError], int] = NO_OTHERS) -> T:
    """The provider's answer, or the refusal in our words. ``what`` names the thing that is asked for or changed;
    ``statuses``: where they differ from :data:`STATUSES`."""
    seconds = patience()
    until = time.monotonic() + seconds
    with deadline.within(seconds):
        while True:
            try:
                return call()
            except (GateClosed, RateLimited) as error:
                # Nothing was sent, or nothing happened.
                pause = error.retry_after or LOOK_AGAIN_SECONDS
                if time.monotonic() + pause >= until:
                    raise refusal(error, what, statuses) from None
                clock.pause(pause)
            except ProviderError as error:
                raise refusal(error, what, statuses) from None


def refusal(error: ProviderError, what: str, statuses: Mapping[type[ProviderError], int] = NO_OTHERS) -> ApiError:
    """Typed, with the provider's own words, and whether it is worth asking again."""
    if isinstance(error, NotSupported):
        return lacking(error.provider, what, error.message)
    # A change that may have happened is to be looked at before it is asked for again.
    again = error.retryable and not error.may_have_happened
    extra: dict[str, Any] = {"error_type": error.kind, "provider": error.provider, "retry_suggested": again}
    headers = {"Retry-After": str(int(error.retry_after or 5) + 1)} if again else {}
    status = statuses.get(type(error)) or STATUSES.get(type(error), 502)
    return ApiError(status, f"{error.provider} {what}: {error.message}", headers=headers, **extra)
