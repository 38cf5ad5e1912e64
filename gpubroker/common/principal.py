"""On whose behalf a request acts: decided by authentication, asked by every view that shows or changes something."""

from __future__ import annotations

from dataclasses import dataclass, field

from rest_framework.request import Request

from gpubroker.common.errors import ApiError

READ, SPEND, STAFF = "read", "spend", "staff"
SCOPES = (READ, SPEND, STAFF)


@dataclass(frozen=True, slots=True)
class Principal:
    """``consumer`` is the only one whose things may be seen and touched; ``None``: everybody's (open API, staff)."""

    consumer: str | None
    scopes: frozenset[str] = field(default_factory=frozenset)
    #: The key's visible part, for logs and rate limits; empty for the open API.
    key_prefix: str = ""

    @property
    def actor(self) -> str:
        """For events: who did it."""
        if self.consumer is not None:
            return f"consumer:{self.consumer}"
        return f"staff:{self.key_prefix}" if self.key_prefix else "consumer"

    def may_see(self, consumer: str) -> bool:
        return self.consumer is None or self.consumer == consumer

    def narrowed(self, consumer: str | None) -> str | None:
        """The consumer to filter by: the one asked for, if it may be seen; 403 for another's."""
        if consumer is not None and not self.may_see(consumer):
            raise ApiError(403, "this key belongs to another consumer", field="consumer_id")
        return self.consumer if consumer is None else consumer


#: Everybody, on an API that asks for no key.
OPEN = Principal(consumer=None, scopes=frozenset(SCOPES))


def of(request: Request) -> Principal:
    """Set by authentication as ``request.auth``; the open API has none."""
    return request.auth if isinstance(request.auth, Principal) else OPEN
