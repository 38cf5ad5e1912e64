"""Every route's interval is at least what its vendor publishes, so that we never cause a 429 ourselves."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from providers.tensordock.wire import LANES
from providers.tensordock.wire import ROUTES as TENSORDOCK
from providers.vastai.lowcodeapi_routes import ROUTES as GATEWAY
from providers.vastai.lowcodeapi_routes import STATES
from providers.vastai.transport import ROUTES as NATIVE

#: Vast.ai contract, section 1.5: seconds between two calls, by our operations for the endpoint. "10 per minute" is 6 s.
#: Those of endpoints that we never call (launch_instance, prepay, volumes, ...) have no route to check.
PUBLISHED: Mapping[tuple[str, ...], float] = {
    ("create",): 4.5,
    ("list_offers",): 6.0,
    ("list_templates",): 3.0,
    ("list_instances", "find_by_label", "newest_instances"): 1.0,
    ("get_instance",): 2.0,
    ("set_label", "set_state", "update_instance"): 1.0,
    ("destroy", "destroy_many"): 3.0,
    ("set_bid",): 5.5,
    ("reboot",): 1.0,
    ("recycle",): 1.0,
    ("detach_ssh_key",): 2.0,
    ("ssh_keys",): 1.0,
    ("add_ssh_key",): 1.0,
    ("delete_ssh_key",): 1.0,
    ("invoices",): 3.0,
    ("charges",): 1.0,
    ("set_min_bid",): 1.5,
    ("withdraw_machine",): 1.8,
    ("machines", "machine"): 2.5,
    ("update_current_user",): 5.0,
}
#: "None listed" there: attaching keys, users/current, template writes, logs; and putting machines up for rent.
UNLIMITED = {
    "request_logs", "attach_ssh_key", "instance_ssh_keys", "create_template", "update_template", "delete_template",
    "balance", "current_user", "offer_machine", "update_machine",
}  # fmt: skip
#: The gateway's calls count for the vendor's endpoints behind them.
BEHIND = {
    "offer_page": "list_offers", "offer": "list_offers", "instance_page": "list_instances", "bids": "list_instances",
    "bid": "get_instance", "create_bid": "create", "delete_bid": "destroy", "invoice_page": "invoices",
    "invoice": "invoices", "machine_page": "machines", "template_page": "list_templates", "template": "list_templates",
    "attach_ssh_key": "set_label",
}  # fmt: skip
LIMITS = {operation: seconds for operations, seconds in PUBLISHED.items() for operation in operations}
#: The vendor counts calls per organisation.
TENSORDOCK_PER_MINUTE = 100


@pytest.mark.parametrize("operation", NATIVE)
def test_vastai_keeps_what_is_published(operation: str) -> None:
    """Each operation stands in one of the two tables, so a new one must be looked up first."""
    assert (operation in LIMITS) is not (operation in UNLIMITED)
    assert NATIVE[operation].interval >= LIMITS.get(operation, 0.0)


@pytest.mark.parametrize("operations", PUBLISHED, ids="-".join)
def test_operations_on_one_endpoint_share_one_gate(operations: tuple[str, ...]) -> None:
    assert len({NATIVE[operation].gate or operation for operation in operations}) == 1


@pytest.mark.parametrize("operation", GATEWAY)
def test_the_gateway_keeps_it_too(operation: str) -> None:
    route, behind = GATEWAY[operation], BEHIND.get(operation, operation)
    published = LIMITS.get(behind, 0.0)
    assert route.interval >= published
    first = GATEWAY.get(behind, route)
    assert published == 0 or (route.gate or operation) == (first.gate or behind)


def test_start_and_stop_count_as_changes_of_the_instance() -> None:
    assert {(route.interval, route.gate) for route in STATES.values()} == {(1.0, NATIVE["set_state"].gate)}


def test_tensordocks_lanes_together_stay_below_its_limit() -> None:
    assert sum(60 / seconds for seconds in LANES.values()) <= TENSORDOCK_PER_MINUTE
    assert {route.lane for route in TENSORDOCK.values()} <= set(LANES)
    # Destroys never wait for anything else.
    assert [name for name, route in TENSORDOCK.items() if route.lane == "destroy"] == ["destroy"]
