"""Everything that can go wrong at a provider, as types that answer three questions.

* ``retryable``: may the same call be made again?
* ``retry_after``: if so, not before this many seconds (``None``: the caller's own pause).
* ``may_have_happened``: can the call have taken effect although it failed? Only then must a
  create be looked up by its label before it is repeated (rule I2), or a destroy be proved anew.

No message ever holds a credential: texts come from :func:`providers.http.safe_text`, which cuts
and redacts what a vendor wrote.
"""

from __future__ import annotations

from typing import ClassVar


class ProviderError(Exception):
    """A provider call failed. Sub-classes say how; the class attributes answer the questions."""

    retryable: ClassVar[bool] = False
    may_have_happened: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        operation: str,
        status: int | None = None,
        code: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.operation = operation
        self.status = status
        self.code = code
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        """A short stable word for metrics and tables, e.g. ``RateLimited`` -> ``rate_limited``."""
        name = type(self).__name__
        return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))

    def __str__(self) -> str:
        where = f"{self.provider} {self.operation}"
        status = f" (HTTP {self.status})" if self.status else ""
        return f"{where}: {self.message}{status}"


class AuthError(ProviderError):
    """The provider does not know the key, or the key lacks the permission. Nothing happened."""

    def __str__(self) -> str:
        return f"{super().__str__()}; is the API key right?"


class RateLimited(ProviderError):
    """Too many calls. Nothing happened; ``retry_after`` is set."""

    retryable = True


class GateClosed(ProviderError):
    """Our own gate held the call back before it left us; ``retry_after`` is set."""

    retryable = True


class OfferGone(ProviderError):
    """The offer was taken or withdrawn between search and create. Nothing happened."""


class InsufficientCredit(ProviderError):
    """The account cannot pay. Nothing happened; another offer will not help."""


class InvalidRequest(ProviderError):
    """The provider refuses what we asked (image, disk, price, ...). Nothing happened."""


class NotFound(ProviderError):
    """The thing named does not exist at the provider (any more)."""


class NotSupported(ProviderError):
    """This provider or transport has no such capability; the message names it."""


class Unavailable(ProviderError):
    """The provider could not be reached or answered 5xx to a call that changes nothing there."""

    retryable = True


class MalformedAnswer(ProviderError):
    """An answer to a reading call that we cannot understand. It proves nothing (rule I5)."""

    retryable = True


class ListingIncomplete(ProviderError):
    """A listing that was cut short, changed under us, or does not add up. It proves nothing (I5)."""

    retryable = True


class OutcomeUnknown(ProviderError):
    """A changing call was sent and its answer was lost, cut off or unreadable."""

    retryable = True
    may_have_happened = True
