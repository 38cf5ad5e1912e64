"""What TensorDock's answers mean: accepted, or refused in one of many shapes (TensorDock contract, sections 3 and 7).

A refusal may come with HTTP 200 and say its status inside, as a list of validation errors, or as plain words. The words
decide first, because one text means the same under every status.
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
    ListingIncomplete,
    MalformedAnswer,
    NotFound,
    OfferGone,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Unavailable,
)

#: :attr:`ProviderError.code` of refusals after which another form of the same order may be taken.
IMAGE_REFUSED = "image_refused"
NO_PUBLIC_IP = "no_public_ip"

_NO_PUBLIC_IP = re.compile(r"no available public ip", re.IGNORECASE)
#: Before the words about money: both say "insufficient".
_CAPACITY = re.compile(
    r"no available|hostnode unavailable|ratio limit|out of stock|insufficient capacity|not enough capacity"
    r"|resource_error|(?:hostnode|location)\b.{0,60}(?:not found|does not exist)",
    re.IGNORECASE | re.DOTALL,
)
#: The host took the order and failed some seconds later: something may be left over.
_BROKE_OFF = re.compile(r"deployment failed|during deployment", re.IGNORECASE)
_CREDIT = re.compile(r"need at least|\bbalance\b|insufficient (?:funds|credit)", re.IGNORECASE)
_UNAUTHORIZED = re.compile(r"\bunauthori[sz]ed\b|invalid (?:api )?(?:key|token)", re.IGNORECASE)
#: Says of a machine, and not of some path or page, that there is none.
_NO_MACHINE = re.compile(
    r"\b(?:instance|virtual ?machine|vm)\b(?!s).{0,80}(?:not found|not exist|no longer exist)"
    r"|no such (?:instance|virtual ?machine|vm)\b"
    r"|already (?:been )?(?:deleted|terminated|destroyed)",
    re.IGNORECASE | re.DOTALL,
)
_WORDS_IN = ("error", "message", "detail", "msg")


class Reply:
    """One answer to one operation, as the reading functions see it."""

    def __init__(
        self, answer: Answer, operation: str, provider: str, safe_text: Callable[[object], str], *, changes: bool
    ) -> None:
        self.answer = answer
        self.operation = operation
        self._provider = provider
        self._safe_text = safe_text
        self._changes = changes

    @property
    def json(self) -> Any:
        return self.answer.json

    @property
    def note(self) -> str:
        """The vendor's words, fit to be shown."""
        return self._safe_text(self.said)

    def safe_text(self, text: object) -> str:
        return self._safe_text(text)

    @property
    def issues(self) -> list[dict[str, Any]]:
        """The validation errors, where the answer is a list of them."""
        rows = self.json if isinstance(self.json, list) else []
        issues = [row for row in rows if isinstance(row, dict) and isinstance(row.get("message"), str)]
        return issues if rows and len(issues) == len(rows) else []

    @property
    def said(self) -> str:
        if issues := self.issues:
            return "; ".join(f"{_path(issue)}: {issue['message']}" for issue in issues)
        body = self.json
        if isinstance(body, dict):
            inner = body.get("error")
            for holder in (body, inner if isinstance(inner, dict) else {}):
                for key in _WORDS_IN:
                    if isinstance(holder.get(key), str) and holder[key].strip():
                        return str(holder[key])
        return self.answer.text

    @property
    def status(self) -> int:
        """The status that counts: the one inside of a 200, where there is one. 200 for an error that tells none."""
        inside = self.json.get("status") if isinstance(self.json, dict) else None
        if self.answer.ok and isinstance(inside, int) and 400 <= inside < 600:
            return inside
        return self.answer.status

    @property
    def accepted(self) -> bool:
        """2xx without an error inside. (``status`` is also a word of an instance: only a number is an error's.)"""
        if not self.answer.ok or self.issues or self.status >= 400:
            return False
        if not isinstance(self.json, dict):
            return True
        return not self.json.get("error") and not self.json.get("errors") and self.json.get("success") is not False

    def error(self, kind: type[ProviderError], message: object = "", code: str = "") -> ProviderError:
        return kind(
            self._safe_text(message or self.said) or "refused without a word",
            provider=self._provider,
            operation=self.operation,
            status=self.answer.status,
            code=code,
        )

    def malformed(self, what: str) -> ProviderError:
        return self.error(MalformedAnswer, what)

    def incomplete(self, what: str) -> ProviderError:
        return self.error(ListingIncomplete, what)

    def refusal(self) -> ProviderError | None:
        """The error that a refusal amounts to; ``None`` when the call was accepted."""
        return None if self.accepted else self.error(self._kind(), code=self._code())

    def object(self) -> dict[str, Any]:
        """The body of an accepted call, which must be an object; raises otherwise."""
        if refusal := self.refusal():
            raise refusal
        if not isinstance(self.json, dict):
            raise self.malformed("the answer is no object")
        return self.json

    def says_no_such_instance(self) -> bool:
        """Whether these are the vendor's own words for "I do not have this machine". A bare 404 is not: a wrong base
        URL gives that too, and it would prove machines gone that run on (section 1)."""
        return not self.accepted and self.answer.is_json and _NO_MACHINE.search(self.said[:2_000]) is not None

    def _kind(self) -> type[ProviderError]:
        status, said = self.status, self.said[:2_000]
        if self.operation == "create" and (kind := _kind_of_create(said)):
            return kind
        if status in (401, 403) or _UNAUTHORIZED.search(said):
            return AuthError
        if status == 429:
            return RateLimited
        if status == 402:
            return InsufficientCredit
        if status == 404 or (self.answer.is_json and _NO_MACHINE.search(said)):
            return NotFound
        if 400 <= status < 500 or self.issues:
            return InvalidRequest
        # "Something is wrong" in an accepted answer: it happened, or it did not.
        return OutcomeUnknown if self._changes else Unavailable

    def _code(self) -> str:
        if self.operation != "create":
            return ""
        if _NO_PUBLIC_IP.search(self.said[:2_000]):
            return NO_PUBLIC_IP
        issues = self.issues
        about_image = [issue for issue in issues if _path(issue).endswith("image")]
        named = "invalid_enum_value" in self.said and "image" in self.said
        return IMAGE_REFUSED if (issues and len(about_image) == len(issues)) or (not issues and named) else ""


def _kind_of_create(said: str) -> type[ProviderError] | None:
    """The contract's table of create-time texts (section 7); ``None`` for a text that is not in it."""
    if _CAPACITY.search(said):
        return OfferGone
    if _BROKE_OFF.search(said):
        return OutcomeUnknown
    return InsufficientCredit if _CREDIT.search(said) else None


def _path(issue: dict[str, Any]) -> str:
    path = issue.get("path")
    return ".".join(str(part) for part in path) if isinstance(path, list) else ""
