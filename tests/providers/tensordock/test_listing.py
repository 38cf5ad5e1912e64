"""Listings: every shape, nothing odd read as empty, and details beside the rows (sections 6.1 and 6.2)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from providers.base import Phase, SSHEndpoint
from providers.errors import (
    AuthError,
    GateClosed,
    InvalidRequest,
    ListingIncomplete,
    MalformedAnswer,
    NotFound,
    ProviderError,
    RateLimited,
    Unavailable,
)
from tests.providers.tensordock.conftest import LABEL, MISSING, OTHER_VM, VM, Vendor, detail, listed_row

OTHER_LABEL = "gpb-prod-abcdefghijklmn27-2"
NESTED = {"type": "instance", "id": VM, "attributes": {"name": LABEL, "status": "running", "region": "us"}}

SHAPES: list[Any] = [
    {"data": [listed_row()]},
    {"data": [NESTED]},
    {"data": {"instances": [NESTED]}},
    {"data": {"type": "list", "id": "instances", "attributes": {"instances": [NESTED]}}},
    {"data": {"instances": [listed_row()]}},
]


@pytest.mark.parametrize("body", SHAPES)
def test_every_shape_of_a_listing(vendor: Vendor, body: Any) -> None:
    vendor.answer("GET", "/instances", body)
    (found,) = vendor.client.find_by_label(LABEL)
    assert (found.instance_id, found.label, found.phase, found.status) == (VM, LABEL, Phase.RUNNING, "running")


EMPTY: list[Any] = [
    {"data": []},
    {"data": {"instances": []}},
    {"data": {"type": "list", "id": "instances", "attributes": {"instances": []}}},
]


@pytest.mark.parametrize("body", EMPTY)
def test_an_empty_listing(vendor: Vendor, body: Any) -> None:
    vendor.answer("GET", "/instances", body)
    vendor.answer("GET", "/instances", body)
    assert vendor.client.list_instances().instances == ()
    assert vendor.client.find_by_label(LABEL) == ()


ODD: list[tuple[Any, int, type[ProviderError]]] = [
    ({}, 200, MalformedAnswer),
    ({"data": None}, 200, MalformedAnswer),
    ({"data": {}}, 200, MalformedAnswer),
    ({"data": {"instances": None}}, 200, MalformedAnswer),
    ({"data": {"instances": {}}}, 200, MalformedAnswer),
    ({"data": {"attributes": {}}}, 200, MalformedAnswer),
    ({"data": {"attributes": {"instances": None}}}, 200, MalformedAnswer),
    ({"data": "none"}, 200, MalformedAnswer),
    ({"instances": []}, 200, MalformedAnswer),
    ([], 200, MalformedAnswer),
    ("", 200, MalformedAnswer),
    ("", 204, MalformedAnswer),
    ("null", 200, MalformedAnswer),
    ('{"data": [', 200, MalformedAnswer),
    ("<html>ok</html>", 200, MalformedAnswer),
    ({"data": ["x"]}, 200, ListingIncomplete),
    ({"data": [{"name": LABEL, "status": "running"}]}, 200, ListingIncomplete),
    ({"data": [{"id": VM, "status": "running"}]}, 200, ListingIncomplete),
    ({"data": [{"id": VM, "name": 5, "status": "running"}]}, 200, ListingIncomplete),
    ({"data": [listed_row(), listed_row()]}, 200, ListingIncomplete),
    ({"data": [listed_row()], "total": 2}, 200, ListingIncomplete),
    ({"data": [listed_row()], "meta": {"totalCount": 2}}, 200, ListingIncomplete),
    ({"data": {"attributes": {"count": 2, "instances": [listed_row()]}}}, 200, ListingIncomplete),
    ({"data": [], "error": "Something went wrong"}, 200, Unavailable),
    ({"status": 500, "error": "Internal"}, 200, Unavailable),
    ({"status": 400, "message": "no"}, 200, InvalidRequest),
    ({"status": 401, "error": "Unauthorized"}, 200, AuthError),
    ({"error": "Unauthorized"}, 200, AuthError),
    ({"status": 404, "error": "Not found"}, 200, NotFound),
    ({"status": 429, "error": "Slow down"}, 200, RateLimited),
    ({"error": "Unauthorized"}, 401, AuthError),
    ({"error": "Forbidden"}, 403, AuthError),
    ({"error": "Not found"}, 404, NotFound),
    ({"error": "Too many"}, 429, RateLimited),
    ("<html>502</html>", 502, Unavailable),
    ("moved", 302, Unavailable),
]


@pytest.mark.parametrize(("body", "status", "kind"), ODD)
@pytest.mark.parametrize("which", ["list_instances", "find_by_label"])
def test_an_odd_listing_is_an_error(
    vendor: Vendor, which: str, body: Any, status: int, kind: type[ProviderError]
) -> None:
    calls = {
        "list_instances": vendor.client.list_instances,
        "find_by_label": lambda: vendor.client.find_by_label(LABEL),
    }
    vendor.answer("GET", "/instances", body, status)
    vendor.refuses(kind, calls[which])


def test_a_label_is_compared_exactly(vendor: Vendor) -> None:
    rows = [LABEL, LABEL + "0", LABEL[:-1], LABEL.upper(), f" {LABEL}", None, ""]
    listed = [listed_row(f"vm-{number}", name) for number, name in enumerate(rows)]
    vendor.listed(*listed)
    assert [each.instance_id for each in vendor.client.find_by_label(LABEL)] == ["vm-0"]


def test_our_machines_come_with_their_details(vendor: Vendor) -> None:
    vendor.listed(listed_row(), listed_row(OTHER_VM, "somebody else's"))
    vendor.answer("GET", f"/instances/{VM}", detail(name="renamed"))
    ours, other = vendor.client.list_instances().instances
    assert (ours.instance_id, ours.label, ours.phase) == (VM, LABEL, Phase.RUNNING)
    assert ours.ssh_endpoints == (
        SSHEndpoint("174.94.145.71", 20456, "user"),
        SSHEndpoint("174.94.145.71", 20456, "root"),
    )
    assert ours.gpu_price_per_hour == Decimal("0.4846")
    assert ours.storage_price_per_hour == Decimal("0.005")
    assert (other.instance_id, other.label, other.ssh_endpoints) == (OTHER_VM, "somebody else's", ())


def test_a_row_that_tells_all_is_not_asked_for_again(vendor: Vendor) -> None:
    vendor.listed(detail())
    (instance,) = vendor.client.list_instances().instances
    assert instance.ports == {22: ("174.94.145.71", 20456)}
    assert len(vendor.sent) == 1


def test_details_are_kept_while_the_listing_says_the_same(vendor: Vendor) -> None:
    vendor.answer("GET", f"/instances/{VM}", detail())
    for _ in range(3):
        vendor.listed(listed_row())
    found = [vendor.client.list_instances().instances for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert [path for _, path in vendor.sent].count(f"/instances/{VM}") == 1


def test_details_are_asked_again_after_a_while(vendor: Vendor) -> None:
    vendor.answer("GET", f"/instances/{VM}", detail())
    vendor.answer("GET", f"/instances/{VM}", detail(rateHourly=0.5))
    rates = []
    for seconds in (0, 119, 1):
        vendor.clock.seconds += seconds
        vendor.listed(listed_row())
        rates.append(vendor.client.list_instances().instances[0].gpu_price_per_hour)
    assert rates == [Decimal("0.4846"), Decimal("0.4846"), Decimal("0.495")]


def test_a_refresh_does_not_wait_for_its_slot(vendor: Vendor) -> None:
    vendor.answer("GET", f"/instances/{VM}", detail())
    vendor.answer("GET", f"/instances/{OTHER_VM}", detail(OTHER_VM))
    vendor.listed(listed_row())
    first = vendor.client.list_instances().instances
    vendor.clock.seconds += 1_000
    vendor.gate.held["tensordock:describe"] = 2.0
    vendor.listed(listed_row())
    assert vendor.client.list_instances().instances == first
    del vendor.gate.held["tensordock:describe"]
    vendor.listed(listed_row(OTHER_VM))
    assert vendor.client.list_instances().instances[0].ssh_endpoints
    waits = [wait for key, _, wait in vendor.gate.taken if key == "tensordock:describe"]
    assert waits == [30.0, 30.0]


def test_a_machine_that_boots_is_asked_every_time(vendor: Vendor) -> None:
    booting = detail(status="creating", ipAddress=None, portForwards=[], rateHourly=None)
    for body in (booting, booting, detail(status="creating")):
        vendor.listed(listed_row(status="creating"))
        vendor.answer("GET", f"/instances/{VM}", body)
    seen = [vendor.client.list_instances().instances[0].ssh_endpoints for _ in range(3)]
    assert seen[:2] == [(), ()]
    assert seen[2][0].port == 20456
    assert {wait for key, _, wait in vendor.gate.taken if key == "tensordock:describe"} == {30.0}


def test_another_status_means_another_look(vendor: Vendor) -> None:
    vendor.listed(listed_row())
    vendor.answer("GET", f"/instances/{VM}", detail())
    vendor.listed(listed_row(status="stopped"))
    vendor.answer("GET", f"/instances/{VM}", detail(status="stopped", ipAddress=None, portForwards=[]))
    assert vendor.client.list_instances().instances[0].phase is Phase.RUNNING
    (stopped,) = vendor.client.list_instances().instances
    assert (stopped.phase, stopped.ssh_endpoints) == (Phase.FAILED, ())


@pytest.mark.parametrize(("body", "status"), [(MISSING, 404), ("<html>", 502), ({"id": "other"}, 200), ("", 429)])
def test_a_machine_whose_details_fail_is_listed_all_the_same(vendor: Vendor, body: Any, status: int) -> None:
    vendor.listed(listed_row())
    vendor.answer("GET", f"/instances/{VM}", body, status)
    (instance,) = vendor.client.list_instances().instances
    assert (instance.instance_id, instance.label, instance.phase) == (VM, LABEL, Phase.RUNNING)
    assert (instance.ssh_endpoints, instance.gpu_price_per_hour) == ((), None)


def test_details_that_fail_later_stay_as_they_were(vendor: Vendor) -> None:
    vendor.listed(listed_row())
    vendor.answer("GET", f"/instances/{VM}", detail())
    before = vendor.client.list_instances().instances
    vendor.clock.seconds += 1_000
    vendor.listed(listed_row())
    vendor.answer("GET", f"/instances/{VM}", "<html>", 502)
    assert vendor.client.list_instances().instances == before


def test_one_broken_machine_does_not_hide_the_next(vendor: Vendor) -> None:
    vendor.listed(listed_row(), listed_row(OTHER_VM, OTHER_LABEL))
    vendor.answer("GET", f"/instances/{VM}", "<html>", 502)
    vendor.answer("GET", f"/instances/{OTHER_VM}", detail(OTHER_VM))
    broken, good = vendor.client.list_instances().instances
    assert (broken.ssh_endpoints, good.ssh_endpoints[0].port) == ((), 20456)


@pytest.mark.parametrize(("answer", "status", "calls"), [("<html>", 502, 2), ({"error": "slow down"}, 429, 1)])
def test_a_vendor_that_is_down_is_not_asked_for_every_machine(
    vendor: Vendor, answer: Any, status: int, calls: int
) -> None:
    rows = [listed_row(f"vm-{number}", f"gpb-prod-abcdefghijklmn27-{number + 1}") for number in range(5)]
    vendor.listed(*rows)
    for number in range(calls):
        vendor.answer("GET", f"/instances/vm-{number}", answer, status)
    assert len(vendor.client.list_instances().instances) == 5
    assert len(vendor.sent) == 1 + calls


def test_a_closed_gate_leaves_the_details_for_later(vendor: Vendor) -> None:
    vendor.gate.held["tensordock:describe"] = 60.0
    vendor.listed(listed_row(), listed_row(OTHER_VM, OTHER_LABEL))
    assert [each.ssh_endpoints for each in vendor.client.list_instances().instances] == [(), ()]
    assert vendor.observer.seen.count(("tensordock", "describe", "gate_closed")) == 1


def test_the_lists_own_gate(vendor: Vendor) -> None:
    vendor.gate.held["tensordock:list_instances"] = 3.0
    error = vendor.refuses(GateClosed, vendor.client.list_instances)
    assert error.retry_after == 3.0
