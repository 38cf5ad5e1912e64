"""Whatever the vendor answers, a call ends with a valid result or a ``ProviderError``: nothing else gets out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import responses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.base import Created, Instance, InstanceListing, OfferListing
from providers.errors import OutcomeUnknown, ProviderError
from providers.http import HTTPClient, NullGate, NullObserver
from providers.tensordock import TensorDock, Wire
from tests.providers.tensordock.conftest import (
    BASE,
    LABEL,
    ON_HOST,
    PORTS_ONLY,
    TOKEN,
    VM,
    detail,
    hostnode,
    listed_row,
    location,
    made,
    order,
)

OPERATIONS: dict[str, Callable[[TensorDock], Any]] = {
    "list_offers": lambda client: client.list_offers(),
    "create": lambda client: client.create(order(PORTS_ONLY)),
    "create_on_host": lambda client: client.create(order(ON_HOST)),
    "list_instances": lambda client: client.list_instances(),
    "find_by_label": lambda client: client.find_by_label(LABEL),
    "get_instance": lambda client: client.get_instance(VM),
    "destroy": lambda client: client.destroy(VM),
    "power_on": lambda client: client.power_on(VM),
    "power_off": lambda client: client.power_off(VM),
}
CREATES = ["create", "create_on_host"]

WORDS = [
    *("data", "attributes", "instances", "locations", "hostnodes", "error", "message", "status", "code", "path"),
    *("id", "name", "type", "ipAddress", "portForwards", "resources", "rateHourly", "gpus", "v0Name", "max_count"),
    *("available_resources", "availableCount", "available_ports", "pricing", "network_features", "total", "meta"),
]
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "running", VM, LABEL, "Instance not found", "ubuntu", "\x00", "\ud800"])
    | st.text(max_size=10)
)
_json = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=20,
)
_good = st.sampled_from(
    [
        {"data": {"locations": [location()], "hostnodes": [hostnode()]}},
        {"data": hostnode()},
        {"data": [listed_row()]},
        {"data": {"instances": [detail()]}},
        detail(),
        made(),
    ]
)


def paths(value: Any) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *rest) for key, child in children for rest in paths(child))]


@st.composite
def _broken(draw: st.DrawFn) -> Any:
    """A good answer with something else in one place."""
    body = json.loads(json.dumps(draw(_good)))
    *way, last = draw(st.sampled_from(paths(body)[1:]))
    holder = body
    for key in way:
        holder = holder[key]
    holder[last] = draw(_json)
    return body


BODIES = (
    _broken().map(lambda body: json.dumps(body).encode())
    | _json.map(lambda body: json.dumps(body).encode())
    | st.binary(max_size=60)
)


def check(result: Any) -> None:
    """A valid result holds nothing that could not be believed or stored."""
    assert isinstance(result, Created | InstanceListing | OfferListing | Instance | tuple | str | None)
    for offer in getattr(result, "offers", ()):
        assert type(offer.price_per_hour) is Decimal
        assert offer.price_per_hour > 0
        assert offer.gpu_count > 0
        assert offer.vram_mb > 0
        assert len(offer.provider_id) <= 96
        json.dumps(offer.raw, allow_nan=False).encode()
    for instance in getattr(result, "instances", ()):
        assert instance.instance_id
        assert "\x00" not in instance.label
        instance.label.encode()
    assert getattr(result, "instance_id", "x")


def check_error(error: ProviderError) -> None:
    assert error.may_have_happened == isinstance(error, OutcomeUnknown)
    assert TOKEN not in str(error)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(body=BODIES, status=st.sampled_from([200, 200, 200, 201, 204, 400, 401, 404, 409, 429, 500]))
def test_nothing_else_gets_out(name: str, body: bytes, status: int) -> None:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        for method in ("GET", "POST", "DELETE"):
            wire.add(method, re.compile(r".*"), body=body, status=status)
        http = HTTPClient("tensordock", BASE, TOKEN, NullGate(), NullObserver())
        client = TensorDock(Wire(http, http, NullGate()))
        try:
            check(OPERATIONS[name](client))
        except ProviderError as error:
            check_error(error)


@pytest.mark.parametrize("name", CREATES)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"null", b'"x"', b"7", b"true", b"\xff"])
def test_a_create_never_reads_nonsense_as_nothing(name: str, body: bytes) -> None:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        wire.add("GET", re.compile(r".*/hostnodes/.*"), json={"data": hostnode()})
        wire.add("POST", re.compile(r".*"), body=body)
        http = HTTPClient("tensordock", BASE, TOKEN, NullGate(), NullObserver())
        with pytest.raises(OutcomeUnknown):
            OPERATIONS[name](TensorDock(Wire(http, http, NullGate())))
