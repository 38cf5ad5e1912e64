"""What all parts of the Vast.ai client have in common: the transport, ids, errors, and pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from providers import fields
from providers.errors import InvalidRequest, ListingIncomplete, NotSupported, ProviderError
from providers.vastai.reply import Reply
from providers.vastai.transport import Transport

T = TypeVar("T")

#: How long a further page may wait for its slot; the first one does not wait.
PAGE_WAIT = 30.0


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a listing is wanted; ``None`` is the other side's own default. The gateway takes it as it is; where
    Vast.ai itself has no pages, it is cut out of the whole."""

    limit: int | None = None
    offset: int | None = None
    #: Whose rows; only the gateway asks.
    owner_id: str = ""

    def of(self, rows: Sequence[T]) -> tuple[T, ...]:
        """The part of a complete listing."""
        start = self.offset or 0
        return tuple(rows[start:] if self.limit is None else rows[start : start + self.limit])

    def params(self) -> dict[str, Any]:
        """In the gateway's words."""
        known = {"owner_id": self.owner_id, "limit": self.limit, "offset": self.offset}
        return {name: value for name, value in known.items() if value not in ("", None)}


WHOLE = Part()


class Caller:
    """The base of every part of :class:`providers.vastai.client.VastAI`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def name(self) -> str:
        return self._transport.provider

    def _id(self, operation: str, value: str) -> str:
        """``value`` if it is an id of this vendor. An empty one would name the whole collection in a path."""
        if known := fields.identifier(value):
            return known
        # Not NotFound: that would sound like proof that something is gone.
        raise self._error(InvalidRequest, operation, "this is no id of the provider")

    def _own_rows_only(self, operation: str, part: Part) -> None:
        """Vast.ai itself shows nobody else's."""
        if part.owner_id:
            raise self._error(NotSupported, operation, "Vast.ai's own API has no 'owner_id' here")

    def _incomplete(self, operation: str, why: str) -> ProviderError:
        return self._error(ListingIncomplete, operation, why)

    def _error(self, kind: type[ProviderError], operation: str, message: str) -> ProviderError:
        return kind(self._transport.safe_text(message), provider=self.name, operation=operation)


def read_note(reply: Reply) -> str:
    """The vendor's words about a change that it accepted."""
    return fields.text(reply.object().get("msg"), 300) or "accepted"


def rows_under(reply: Reply, *names: str) -> list[Any]:
    """The rows of an accepted answer: the list under the first of these names, or the answer itself."""
    if refusal := reply.refusal():
        raise refusal
    body = reply.json
    for name in names:
        if isinstance(body, dict) and isinstance(body.get(name), list):
            rows: list[Any] = body[name]
            return rows
    if isinstance(body, list):
        return body
    raise reply.malformed(f"no list under '{names[0]}'")
