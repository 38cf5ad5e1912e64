"""The LowCodeAPI gateway's 33 operations, and which of ours each one serves (Vast.ai contract, section 7.2).

A path's parameter is a literal word there (``/instances/instance_id``) and its value travels in the query. What the
seed does not know of an operation (a label, an environment) goes along as further keys: the gateway hands bodies and
queries on as they are. Operations of ours that are not here cannot be had through the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sent:
    """What a call carries: ``params`` for the query, ``json`` for the body (``None``: no body)."""

    ids: tuple[str, ...]
    params: Mapping[str, Any]
    json: Any


def _as_it_is(sent: Sent) -> Sent:
    return sent


@dataclass(frozen=True, slots=True)
class GatewayRoute:
    """``interval`` and ``gate`` are the vendor's, who counts the gateway's calls as ours. ``shape`` turns a call as the
    vendor itself would have it into the gateway's."""

    method: str
    path: str
    interval: float = 0.0
    changes: bool = False
    gate: str = ""
    shape: Callable[[Sent], Sent] = _as_it_is

    @property
    def parameters(self) -> tuple[str, ...]:
        """The literal words of the path that stand for a value, e.g. ``("instance_id",)``."""
        return tuple(word for word in self.path.split("/") if word.endswith("_id"))


def _without_query(sent: Sent) -> Sent:
    return Sent(sent.ids, {}, sent.json)


def _without_body(sent: Sent) -> Sent:
    return Sent(sent.ids, sent.params, None)


def _search(sent: Sent) -> Sent:
    """The vendor's search body as ``q``, where the vendor's own GET has it, and once more in the seed's words."""
    body = dict(sent.json)
    ((column, direction),) = body["order"]
    words = {"type": body["type"], "sort_option": column, "order": direction, "limit": body["limit"]}
    return Sent((), {**words, "q": body}, None)


def _order(sent: Sent) -> Sent:
    (offer_id,) = sent.ids
    return Sent((), {}, {"offer_id": offer_id, **sent.json})


def _listing(sent: Sent) -> Sent:
    """The vendor's ``machine`` and ``price_gpu`` in the seed's words."""
    body = {name: value for name, value in sent.json.items() if name not in ("machine", "price_gpu")}
    return Sent((), {}, {"machine_id": str(sent.json["machine"]), "price": sent.json["price_gpu"], **body})


def _named_key(sent: Sent) -> Sent:
    """The seed wants a name: the key's comment is one."""
    key = str(sent.json["ssh_key"])
    words = key.split(maxsplit=2)
    return Sent((), {}, {"name": words[2] if len(words) > 2 else "gpubroker", "public_key": key})


def _owner(sent: Sent) -> Sent:
    """The filter on whose templates they are is a word of its own in the seed."""
    creator = sent.params.get("select_filters", {}).get("creator_id", {}).get("eq")
    return sent if creator is None else Sent((), {**sent.params, "owner_id": str(creator)}, None)


ROUTES: Mapping[str, GatewayRoute] = {
    # Offers
    "list_offers": GatewayRoute("GET", "/offers", 6.0, shape=_search),
    "offer_page": GatewayRoute("GET", "/offers", 6.0, gate="list_offers"),
    "offer": GatewayRoute("GET", "/offers/offer_id", 6.0, gate="list_offers"),
    # Instances
    "list_instances": GatewayRoute("GET", "/instances", 1.0),
    "find_by_label": GatewayRoute("GET", "/instances", 1.0, gate="list_instances"),
    "instance_page": GatewayRoute("GET", "/instances", 1.0, gate="list_instances"),
    "get_instance": GatewayRoute("GET", "/instances/instance_id", 2.0, shape=_without_query),
    "create": GatewayRoute("POST", "/instances", 4.5, changes=True, shape=_order),
    "set_label": GatewayRoute("PUT", "/instances/instance_id", 1.0, changes=True, gate="put_instance"),
    "update_instance": GatewayRoute("PUT", "/instances/instance_id", 1.0, changes=True, gate="put_instance"),
    # No operation of its own; the machine has its keys from the order already: see orders.py.
    "attach_ssh_key": GatewayRoute("PUT", "/instances/instance_id", 1.0, changes=True, gate="put_instance"),
    "destroy": GatewayRoute("DELETE", "/instances/instance_id", 3.0, changes=True, shape=_without_body),
    # Bids
    "bids": GatewayRoute("GET", "/bids", 1.0, gate="list_instances"),
    "bid": GatewayRoute("GET", "/bids/bid_id", 2.0, gate="get_instance", shape=_without_query),
    "create_bid": GatewayRoute("POST", "/bids", 4.5, changes=True, gate="create"),
    "set_bid": GatewayRoute("PUT", "/bids/bid_id", 5.5, changes=True),
    "delete_bid": GatewayRoute("DELETE", "/bids/bid_id", 3.0, changes=True, gate="destroy"),
    # Money
    "balance": GatewayRoute("GET", "/balance"),
    "invoices": GatewayRoute("GET", "/invoices", 3.0),
    "invoice_page": GatewayRoute("GET", "/invoices", 3.0, gate="invoices"),
    "invoice": GatewayRoute("GET", "/invoices/invoice_id", 3.0, gate="invoices"),
    # Machines
    "machines": GatewayRoute("GET", "/machines", 2.5, shape=_without_query),
    "machine_page": GatewayRoute("GET", "/machines", 2.5, gate="machines"),
    "machine": GatewayRoute("GET", "/machines/machine_id", 2.5, gate="machines", shape=_without_query),
    "offer_machine": GatewayRoute("POST", "/machines", changes=True, shape=_listing),
    "update_machine": GatewayRoute("PUT", "/machines/machine_id", changes=True, gate="offer_machine"),
    "withdraw_machine": GatewayRoute("DELETE", "/machines/machine_id", 1.8, changes=True, shape=_without_body),
    # Keys
    "ssh_keys": GatewayRoute("GET", "/ssh_keys", 1.0),
    "add_ssh_key": GatewayRoute("POST", "/ssh_keys", 1.0, changes=True, shape=_named_key),
    "delete_ssh_key": GatewayRoute("DELETE", "/ssh_keys/ssh_key_id", 1.0, changes=True, shape=_without_body),
    # Templates
    "list_templates": GatewayRoute("GET", "/templates", 3.0, shape=_owner),
    "template_page": GatewayRoute("GET", "/templates", 3.0, gate="list_templates"),
    "template": GatewayRoute("GET", "/templates/template_id", 3.0, gate="list_templates"),
    "create_template": GatewayRoute("POST", "/templates", changes=True),
    "update_template": GatewayRoute("PUT", "/templates/template_id", changes=True),
    "delete_template": GatewayRoute("DELETE", "/templates/template_id", changes=True, shape=_without_body),
    # Users
    "current_user": GatewayRoute("GET", "/users/me", gate="balance"),
    "user": GatewayRoute("GET", "/users/user_id"),
    "update_current_user": GatewayRoute("PUT", "/users/me", 5.0, changes=True),
}
_START = GatewayRoute(
    "POST", "/instances/instance_id/start", 1.0, changes=True, gate="put_instance", shape=_without_body
)
_STOP = GatewayRoute("POST", "/instances/instance_id/stop", 1.0, changes=True, gate="put_instance", shape=_without_body)
STATES: Mapping[str, GatewayRoute] = {"running": _START, "stopped": _STOP}


def route_of(operation: str, json: Any) -> GatewayRoute | None:
    """The gateway's operation for ours; a change of state is two of them. ``None``: it has none."""
    if operation == "set_state":
        return STATES[json["state"]]
    return ROUTES.get(operation)
