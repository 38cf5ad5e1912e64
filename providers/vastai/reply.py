"""What Vast.ai's answers mean: accepted, or refused in one of many ways (Vast.ai contract, sections 1.3 and 1.4).

The status alone says little: an unknown key is a 404, an offer that is gone a 400, 404 or 410, and a refusal may
come with 200. So the code and the words decide first, and the status only where they are silent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from providers.answers import Answer
from providers.errors import (
    AuthError,
    InsufficientCredit,
    InvalidRequest,
    MalformedAnswer,
    NotFound,
    NotSupported,
    OfferGone,
    ProviderError,
)

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,60}")
_AUTH_CODES = {"auth_error", "not_authorized", "unauthorized", "forbidden"}
_AUTH_WORDS = re.compile(
    r"invalid user key|session expired|two factor authentication|requires login|not authori[sz]ed", re.IGNORECASE
)
_CREDIT_CODES = {"insufficient_credit", "missing_billing", "spend_rate_limit"}
_CREDIT_WORDS = re.compile(r"lacks credit|insufficient[ _]credit|missing_billing|spend_rate_limit", re.IGNORECASE)
_GONE_WORDS = re.compile(r"no_such_ask|is not available|no longer available|is not your own", re.IGNORECASE)
_MISSING_CODES = {"no_such_instance", "not_found", "no_such_ssh_key", "invalid_id"}
_MISSING_WORDS = re.compile(r"instance(?: \d+)? not found|with that id does not exist|no_such_instance", re.IGNORECASE)
_NO_SUCH_INSTANCE = {"no_such_instance", "not_found"}
_PAYMENT_REQUIRED = {402, 411}


class Reply:
    """One answer to one logical operation, as the reading functions see it."""

    def __init__(self, answer: Answer, operation: str, provider: str, safe_text: Callable[[object], str]) -> None:
        self.answer = answer
        self.operation = operation
        self._provider = provider
        self._safe_text = safe_text

    @property
    def json(self) -> Any:
        return self.answer.json

    @property
    def code(self) -> str:
        """The ``error`` field where it is an identifier, e.g. ``no_such_ask``; else ""."""
        error = self.json.get("error") if isinstance(self.json, dict) else None
        return error if isinstance(error, str) and _CODE.fullmatch(error) else ""

    @property
    def note(self) -> str:
        """The vendor's words, fit to be shown; its code where it has no words."""
        return self._safe_text(self.answer.said) or self.code

    @property
    def accepted(self) -> bool:
        """2xx, and ``success`` absent or true."""
        if not self.answer.ok:
            return False
        return not isinstance(self.json, dict) or self.json.get("success", True) in (True, None)

    def error(self, kind: type[ProviderError], message: object = "") -> ProviderError:
        return kind(
            self._safe_text(message or self.answer.said or "refused without a word"),
            provider=self._provider,
            operation=self.operation,
            status=self.answer.status,
            code=self.code,
        )

    def malformed(self, what: str) -> ProviderError:
        return self.error(MalformedAnswer, what)

    def refusal(self) -> ProviderError | None:
        """The error that a refusal amounts to; ``None`` when the call was accepted."""
        return None if self.accepted else self.error(self._kind())

    def object(self) -> dict[str, Any]:
        """The body of an accepted call, which must be an object; raises otherwise."""
        if refusal := self.refusal():
            raise refusal
        if not isinstance(self.json, dict):
            raise self.malformed("the answer is no object")
        return self.json

    def says_no_such_instance(self) -> bool:
        """Whether the answer is the vendor's own "I do not have it". A framework's 404 page (a wrong path, a proxy)
        is not: it would prove machines gone that run on."""
        known = self.code in _NO_SUCH_INSTANCE or _MISSING_WORDS.search(self.answer.said) is not None
        return known and self._kind() is NotFound

    def _kind(self) -> type[ProviderError]:
        status, code, said = self.answer.status, self.code, self.answer.said[:2_000]
        if code == "auth_error":
            return AuthError
        if code in _CREDIT_CODES or _CREDIT_WORDS.search(said) or status in _PAYMENT_REQUIRED:
            return InsufficientCredit
        if code == "no_such_ask" or (self.operation == "create" and (status == 410 or _GONE_WORDS.search(said))):
            return OfferGone
        if code == "deprecated_endpoint":
            return NotSupported
        if code in _AUTH_CODES or status in (401, 403) or _AUTH_WORDS.search(said):
            return AuthError
        if code in _MISSING_CODES or status == 404 or _MISSING_WORDS.search(said):
            return NotFound
        return InvalidRequest
