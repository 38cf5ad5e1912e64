"""How a logical operation becomes an HTTP call on TensorDock's v2 API (TensorDock contract, sections 1, 2 and 6).

The vendor counts 100 calls a minute over the whole organisation. The gate knows endpoints, so the calls are shared out
to lanes, whose sum stays below that: however busy one kind of call is, destroys always have their own share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from providers.answers import Answer
from providers.base import Gate
from providers.errors import RateLimited
from providers.gates import Clock
from providers.http import HTTPClient, Limits
from providers.tensordock.reply import Reply

T = TypeVar("T")

#: Creates and deletes take from seconds to more than a minute (section 2), and what we do not wait for must be looked
#: up afterwards.
PATIENT = Limits(read=100.0, total=100.0)
#: After a refusal that says "too many" without saying how long.
PAUSE = 10.0

#: Seconds between two calls of a lane: 90 calls a minute in all, 1.5 a second.
LANES: Mapping[str, float] = {
    "locations": 20.0,
    "hostnodes": 20.0,
    "hostnode": 12.0,
    "create": 6.0,
    "list_instances": 4.0,
    "describe": 3.0,
    "get_instance": 4.0,
    "destroy": 4.0,
    "power": 15.0,
}


@dataclass(frozen=True, slots=True)
class Route:
    """``changes``: whether the vendor's side changes; such calls are waited for longer."""

    method: str
    path: str
    lane: str
    changes: bool = False


ROUTES: Mapping[str, Route] = {
    "list_offers": Route("GET", "/locations", "locations"),
    "list_hostnodes": Route("GET", "/hostnodes", "hostnodes"),
    "get_hostnode": Route("GET", "/hostnodes/{}", "hostnode"),
    "create": Route("POST", "/instances", "create", changes=True),
    "list_instances": Route("GET", "/instances", "list_instances"),
    "find_by_label": Route("GET", "/instances", "list_instances"),
    "describe": Route("GET", "/instances/{}", "describe"),
    "get_instance": Route("GET", "/instances/{}", "get_instance"),
    "destroy": Route("DELETE", "/instances/{}", "destroy", changes=True),
    "power_on": Route("POST", "/instances/{}/start", "power", changes=True),
    "power_off": Route("POST", "/instances/{}/stop", "power", changes=True),
}


class Wire:
    """``https://dashboard.tensordock.com/api/v2`` with the token in the header, never in the URL. ``quick`` is for
    calls that only read, ``patient`` for those that change something; both speak for the same account."""

    def __init__(self, quick: HTTPClient, patient: HTTPClient, gate: Gate) -> None:
        self._quick = quick
        self._patient = patient
        self._gate = gate

    def __repr__(self) -> str:
        return f"Wire({self._quick!r})"

    @property
    def provider(self) -> str:
        return self._quick.provider

    @property
    def clock(self) -> Clock:
        return self._quick.clock

    def safe_text(self, text: object) -> str:
        return self._quick.safe_text(text)

    def send(self, operation: str, read: Callable[[Reply], T], *ids: str, json: Any = None, wait: float = 0.0) -> T:
        """Call ``operation``; ``ids`` fill the path's gaps. A "too many" holds back every lane of the account."""
        route = ROUTES[operation]

        def read_answer(answer: Answer) -> T:
            return read(Reply(answer, operation, self.provider, self.safe_text, changes=route.changes))

        try:
            return (self._patient if route.changes else self._quick).request(
                operation,
                route.method,
                route.path.format(*(quote(each, safe="") for each in ids)),
                read=read_answer,
                json=json,
                gate_key=route.lane,
                interval=LANES[route.lane],
                changes=route.changes,
                wait=wait,
                empty_is_fine=operation == "destroy",
            )
        except RateLimited as limited:
            limited.retry_after = limited.retry_after or PAUSE
            for lane in LANES:
                self._gate.push_out(f"{self.provider}:{lane}", limited.retry_after)
            raise
