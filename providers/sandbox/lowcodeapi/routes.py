"""One operation of the gateway: its path, and the Vast.ai operation behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from providers.sandbox.vast.errors import invalid_request
from providers.sandbox.vast.gateway import Call, Handler, Route

_ID = re.compile(r"/([a-z_]+_id)\b")


def as_it_is(_: Call) -> None:
    """The vendor understands the call without a change."""


@dataclass(frozen=True, slots=True)
class GatewayRoute:
    """``path`` as in the seed, with the parameter's name for its value. ``translate`` turns the call's query and body
    into the vendor's, whose ``handler`` then answers; ``operation`` is what faults and rate limits go by."""

    method: str
    path: str
    operation: str
    handler: Handler
    translate: Callable[[Call], None] = as_it_is
    half: Callable[[Call], dict[str, Any]] | None = None

    @property
    def id_name(self) -> str:
        """The name of the path's parameter, e.g. ``instance_id``; "" where there is none."""
        found = _ID.search(self.path)
        return found[1] if found else ""

    @property
    def pattern(self) -> str:
        """The path as the server's router wants it: any text in the parameter's place."""
        return _ID.sub(r"/{\1}", self.path)

    @property
    def upstream(self) -> Route:
        # Bids are instances too: faults that name one strike both.
        path = "/instances/" if self.id_name in ("instance_id", "bid_id") else self.path
        return Route(self.method, path, self.operation, self.handler, half=self.half)


def query_object(call: Call, name: str) -> dict[str, Any]:
    """A query argument that carries a JSON object; empty where it is absent."""
    try:
        found = json.loads(call.query.get(name) or "{}")
    except ValueError:
        raise invalid_request("Invalid json body") from None
    if not isinstance(found, dict):
        raise invalid_request("Invalid json body")
    return found


def add_filter(call: Call, column: str, condition: dict[str, Any]) -> None:
    """One more condition for the vendor's ``select_filters``."""
    call.query["select_filters"] = json.dumps({**query_object(call, "select_filters"), column: condition})


def number_in_query(call: Call, name: str) -> int | None:
    text = call.query.get(name, "")
    return int(text) if text.isdigit() else None


def cut(call: Call, rows: list[Any]) -> list[Any]:
    """``limit`` and ``offset``, for listings that the vendor itself does not page."""
    start, size = number_in_query(call, "offset") or 0, number_in_query(call, "limit")
    return rows[start:] if size is None else rows[start : start + size]
