"""How a logical operation becomes an HTTP call on Vast.ai's own API (Vast.ai contract, sections 1.1, 1.2 and 1.5).

What the rows mean is not decided here, so another way to the same data (a gateway with other paths and another
envelope) is another class with the same ``send``.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from providers.answers import Answer
from providers.errors import NotSupported
from providers.gates import Clock
from providers.http import HTTPClient
from providers.vastai.reply import Reply

T = TypeVar("T")


class Transport(Protocol):
    """A way to call Vast.ai. ``send`` raises only :class:`providers.errors.ProviderError`."""

    @property
    def provider(self) -> str: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def base_url(self) -> str: ...

    @property
    def keys_at_create(self) -> bool:
        """Whether a machine's SSH keys must go along with its order, as a later attachment is not sure to be heard."""

    def supports(self, operation: str) -> bool:
        """Whether ``send`` knows the operation; it raises ``NotSupported`` for any other."""

    def safe_text(self, text: object) -> str: ...

    def send(
        self,
        operation: str,
        read: Callable[[Reply], T],
        *ids: str,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        wait: float = 0.0,
    ) -> T: ...


@dataclass(frozen=True, slots=True)
class Route:
    """``interval``: the published minimum of seconds between calls; ``gate``: the endpoint that it counts for,
    where several operations share one. ``changes``: whether the vendor's side changes."""

    method: str
    path: str
    interval: float = 0.0
    changes: bool = False
    gate: str = ""


ROUTES: Mapping[str, Route] = {
    # "10 per minute" is published for searches; spacing them evenly keeps any window.
    "list_offers": Route("POST", "/api/v0/bundles/", 6.0),
    "create": Route("PUT", "/api/v0/asks/{}/", 4.5, changes=True),
    "list_instances": Route("GET", "/api/v1/instances/", 1.0),
    "find_by_label": Route("GET", "/api/v1/instances/", 1.0, gate="list_instances"),
    "newest_instances": Route("GET", "/api/v1/instances/", 1.0, gate="list_instances"),
    "get_instance": Route("GET", "/api/v0/instances/{}/", 2.0),
    "destroy": Route("DELETE", "/api/v0/instances/{}/", 3.0, changes=True),
    # Nothing is published for the call for many: it counts for the same limit.
    "destroy_many": Route("DELETE", "/api/v0/instances/", 3.0, changes=True, gate="destroy"),
    "set_label": Route("PUT", "/api/v0/instances/{}/", 1.0, changes=True, gate="put_instance"),
    "set_state": Route("PUT", "/api/v0/instances/{}/", 1.0, changes=True, gate="put_instance"),
    "update_instance": Route("PUT", "/api/v0/instances/{}/", 1.0, changes=True, gate="put_instance"),
    "reboot": Route("PUT", "/api/v0/instances/reboot/{}/", 1.0, changes=True),
    "recycle": Route("PUT", "/api/v0/instances/recycle/{}/", 1.0, changes=True),
    "request_logs": Route("PUT", "/api/v0/instances/request_logs/{}/"),
    "set_bid": Route("PUT", "/api/v0/instances/bid_price/{}/", 5.5, changes=True),
    "attach_ssh_key": Route("POST", "/api/v0/instances/{}/ssh/", changes=True),
    "detach_ssh_key": Route("DELETE", "/api/v0/instances/{}/ssh/{}/", 2.0, changes=True),
    "instance_ssh_keys": Route("GET", "/api/v0/instances/{}/ssh/"),
    "ssh_keys": Route("GET", "/api/v0/ssh/", 1.0),
    "add_ssh_key": Route("POST", "/api/v0/ssh/", 1.0, changes=True),
    "delete_ssh_key": Route("DELETE", "/api/v0/ssh/{}/", 1.0, changes=True),
    "list_templates": Route("GET", "/api/v0/template/", 3.0),
    "create_template": Route("POST", "/api/v0/template/", changes=True),
    "update_template": Route("PUT", "/api/v0/template/", changes=True),
    "delete_template": Route("DELETE", "/api/v0/template/", changes=True),
    "balance": Route("GET", "/api/v0/users/current/"),
    "current_user": Route("GET", "/api/v0/users/current/", gate="balance"),
    "update_current_user": Route("PUT", "/api/v0/users/", 5.0, changes=True),
    # The vendor's own client leaves the last slash off for these two only.
    "machines": Route("GET", "/api/v0/machines", 2.5),
    "machine": Route("GET", "/api/v0/machines/{}", 2.5, gate="machines"),
    "offer_machine": Route("PUT", "/api/v0/machines/create_asks/", changes=True),
    "update_machine": Route("PUT", "/api/v0/machines/create_asks/", changes=True, gate="offer_machine"),
    "set_min_bid": Route("PUT", "/api/v0/machines/{}/minbid/", 1.5, changes=True),
    "withdraw_machine": Route("DELETE", "/api/v0/machines/{}/asks/", 1.8, changes=True),
    "charges": Route("GET", "/api/v0/charges/", 1.0),
    "invoices": Route("GET", "/api/v1/invoices/", 3.0),
}


class NativeTransport:
    """``https://console.vast.ai`` with the key in the header, never in the URL."""

    def __init__(self, http: HTTPClient) -> None:
        self._http = http

    def __repr__(self) -> str:
        return f"NativeTransport({self._http!r})"

    @property
    def provider(self) -> str:
        return self._http.provider

    @property
    def clock(self) -> Clock:
        return self._http.clock

    @property
    def base_url(self) -> str:
        return self._http.base_url

    @property
    def keys_at_create(self) -> bool:
        return False

    def supports(self, operation: str) -> bool:
        return operation in ROUTES

    def safe_text(self, text: object) -> str:
        return self._http.safe_text(text)

    def send(
        self,
        operation: str,
        read: Callable[[Reply], T],
        *ids: str,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        wait: float = 0.0,
    ) -> T:
        """Call ``operation``; ``ids`` fill the path's gaps. Parameters that are no text are sent as JSON."""
        if not self.supports(operation):
            missing = f"Vast.ai's own API has no operation '{operation}'"
            raise NotSupported(missing, provider=self.provider, operation=operation)
        route = ROUTES[operation]

        def read_answer(answer: Answer) -> T:
            return read(Reply(answer, operation, self.provider, self.safe_text))

        return self._http.request(
            operation,
            route.method,
            route.path.format(*(quote(each, safe="") for each in ids)),
            read=read_answer,
            params={name: as_parameter(value) for name, value in (params or {}).items()},
            json=json,
            gate_key=route.gate or operation,
            interval=route.interval,
            changes=route.changes,
            wait=wait,
        )


def as_parameter(value: Any) -> str:
    """Text as it is, everything else as JSON; money as the number that the vendor's filters compare with."""
    return value if isinstance(value, str) else jsonlib.dumps(value, separators=(",", ":"), default=float)
