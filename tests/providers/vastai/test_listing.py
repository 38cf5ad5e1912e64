"""The listing of instances: complete or an error (rule I5)."""

import json
from typing import Any

import pytest
import requests

from providers.base import ShowsNewest
from providers.errors import (
    AuthError,
    InsufficientCredit,
    ListingIncomplete,
    MalformedAnswer,
    ProviderError,
    Unavailable,
)
from tests.providers.vastai.conftest import NOW, Vendor, instance_row, listing

PATH = "/v1/instances/"


def rows(first: int, last: int, **changes: Any) -> list[dict[str, Any]]:
    return [instance_row(number, **changes) for number in range(first, last + 1)]


def test_no_instances(vendor: Vendor) -> None:
    vendor.answer("GET", PATH, listing([]))
    found = vendor.client.list_instances()
    assert (found.instances, found.listed_at) == ((), NOW)


def test_all_pages(vendor: Vendor) -> None:
    vendor.answer("GET", PATH, listing(rows(1, 25), total=60, token="eyJhIjoxfQ=="))
    vendor.answer("GET", PATH, listing(rows(26, 50), total=60, token="eyJhIjoyfQ=="))
    vendor.answer("GET", PATH, listing(rows(51, 60), total=60))
    found = vendor.client.list_instances().instances
    assert [instance.instance_id for instance in found] == [str(number) for number in range(1, 61)]
    first = {"limit": "25", "order_by": '[{"col":"id","dir":"asc"}]'}
    assert vendor.params == [first, first | {"after_token": "eyJhIjoxfQ=="}, first | {"after_token": "eyJhIjoyfQ=="}]
    assert vendor.gate.taken == [
        ("vastai:list_instances", 1.0, 0.0),
        ("vastai:list_instances", 1.0, 30.0),
        ("vastai:list_instances", 1.0, 30.0),
    ]


INCOMPLETE: dict[str, list[dict[str, Any]]] = {
    "fewer rows than promised": [listing(rows(1, 3), total=4)],
    "more rows than promised": [listing(rows(1, 3), total=2)],
    "a page that contradicts itself": [listing(rows(1, 3), instances_found=4)],
    "the last page is missing": [listing(rows(1, 25), total=30)],
    "fewer rows than there are in the end": [
        listing(rows(1, 25), total=30, token="a"),
        listing(rows(26, 28), total=29),
    ],
    "the total changes, and a page is not full": [
        listing(rows(1, 25), total=60, token="a"),
        listing(rows(26, 49), total=59, token="b"),
        listing(rows(51, 60), total=59),
    ],
    "the total changes, and the last page is longer": [
        listing(rows(1, 4), total=11, token="a"),
        listing(rows(5, 10), total=10),
    ],
    "the total changes, and the order is not kept": [
        listing(rows(1, 25), total=30, token="a"),
        listing([*rows(27, 30), *rows(26, 26)], total=29),
    ],
    "the total changes, and a row has no number": [
        listing(rows(1, 25), total=30, token="a"),
        listing([*rows(26, 29), instance_row(30, id=None)], total=29),
    ],
    "the token comes again": [listing(rows(1, 2), total=9, token="a"), listing(rows(3, 4), total=9, token="a")],
    "an empty page in the middle": [listing(rows(1, 2), total=9, token="a"), listing([], total=9, token="b")],
    "an instance twice": [listing(rows(1, 2), total=4, token="a"), listing(rows(2, 3), total=4)],
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_what_does_not_add_up_is_asked_again_and_then_raised(vendor: Vendor, case: str) -> None:
    for page in INCOMPLETE[case] * 2:
        vendor.answer("GET", PATH, page)
    vendor.refuses(ListingIncomplete, call=vendor.client.list_instances)
    assert len(vendor.sent) == 2 * len(INCOMPLETE[case])


@pytest.mark.parametrize("case", INCOMPLETE)
def test_the_second_time_may_be_good(vendor: Vendor, case: str) -> None:
    for page in [*INCOMPLETE[case], listing(rows(1, 2))]:
        vendor.answer("GET", PATH, page)
    assert len(vendor.client.list_instances().instances) == 2


@pytest.mark.parametrize(
    "row", [None, 5, "x", [], {}, {"id": None}, {"id": 0}, {"id": "abc"}, {"id": True}, instance_row(9, label={"a": 1})]
)
def test_a_row_that_cannot_be_understood_spoils_the_listing(vendor: Vendor, row: Any) -> None:
    vendor.answer("GET", PATH, listing([instance_row(1), row]))
    vendor.refuses(ListingIncomplete, call=vendor.client.list_instances)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "null",
        "7",
        {"success": True},
        {"instances": []},
        {"instances": [], "instances_found": 0},
        {"instances": None, "total_instances": 0, "next_token": None},
        {"instances": {}, "total_instances": 0, "next_token": None},
        {"instances": [], "total_instances": "0", "next_token": None},
        {"instances": [], "total_instances": True, "next_token": None},
        {"instances": [], "total_instances": -1, "next_token": None},
        {"instances": [], "total_instances": 0, "next_token": 5},
    ],
)
def test_wrong_envelopes(vendor: Vendor, body: Any) -> None:
    vendor.answer("GET", PATH, body)
    vendor.refuses(MalformedAnswer, call=vendor.client.list_instances)


def test_a_fault_on_a_later_page_fails_the_whole(vendor: Vendor) -> None:
    vendor.answer("GET", PATH, listing(rows(1, 25), total=30, token="a"))
    vendor.answer("GET", PATH, "<html>", 502)
    vendor.refuses(Unavailable, call=vendor.client.list_instances)


def test_a_cut_off_listing(vendor: Vendor) -> None:
    vendor.answer("GET", PATH, json.dumps(listing(rows(1, 3)))[:-40])
    vendor.refuses(MalformedAnswer, call=vendor.client.list_instances)


def test_an_endless_listing_ends(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.vastai.listing.MAX_INSTANCE_PAGES", 3)
    for number in range(6):
        vendor.answer("GET", PATH, listing([instance_row(number + 1)], total=99, token=f"t{number}"))
    vendor.refuses(ListingIncomplete, call=vendor.client.list_instances)


@pytest.mark.parametrize(
    ("last", "total"),
    [
        (54, 54),  # made meanwhile: at the end, as the newest
        (49, 49),  # destroyed before its page came
        (50, 47),  # destroyed after its page came
        (53, 50),  # made, and others destroyed
        (52, 51),  # one made and one destroyed, between the same two pages
    ],
)
def test_an_account_that_changes_while_it_is_listed(vendor: Vendor, last: int, total: int) -> None:
    """Where thousands of machines come and go, no two pages ever have the same total."""
    vendor.answer("GET", PATH, listing(rows(1, 25), total=51, token="a"))
    vendor.answer("GET", PATH, listing(rows(26, 50)[: last - 25], total=total, token="b" if last > 50 else None))
    if last > 50:
        vendor.answer("GET", PATH, listing(rows(51, last), total=total))
    found = vendor.client.list_instances().instances
    assert [instance.instance_id for instance in found] == [str(number) for number in range(1, last + 1)]


def test_ten_thousand_machines(vendor: Vendor) -> None:
    for first in range(1, 11_000, 25):
        token = f"t{first}" if first < 10_976 else None
        vendor.answer("GET", PATH, listing(rows(first, first + 24), total=11_000, token=token))
    assert len(vendor.client.list_instances().instances) == 11_000


# By label

LABEL = "gpb-prod-abcdefghijklmn27-1"


def test_by_label(vendor: Vendor) -> None:
    vendor.answer("GET", PATH, listing(rows(1, 2), label_counts={LABEL: 2}))
    assert [instance.instance_id for instance in vendor.client.find_by_label(LABEL)] == ["1", "2"]
    assert json.loads(vendor.params[0]["select_filters"]) == {"label": {"eq": LABEL}}
    # It waits for its slot: beside listings that keep time with it, it would be held for ever.
    assert vendor.gate.taken == [("vastai:list_instances", 1.0, 2.0)]
    assert vendor.observer.seen == [("vastai", "find_by_label", "")]


def test_by_label_all_pages(vendor: Vendor) -> None:
    vendor.answer("GET", PATH, listing(rows(1, 25), total=26, token="a"))
    vendor.answer("GET", PATH, listing(rows(26, 26), total=26))
    assert len(vendor.client.find_by_label(LABEL)) == 26
    assert [page.get("after_token") for page in vendor.params] == [None, "a"]


@pytest.mark.parametrize("other", ["gpb-prod-abcdefghijklmn27-10", LABEL.upper(), f"{LABEL} ", "", None])
def test_a_vendor_that_ignores_the_filter_does_not_fool_us(vendor: Vendor, other: str | None) -> None:
    vendor.answer("GET", PATH, listing([instance_row(1), instance_row(2, label=other)]))
    assert [instance.instance_id for instance in vendor.client.find_by_label(LABEL)] == ["1"]


def test_nothing_by_that_label_although_the_account_has_others(vendor: Vendor) -> None:
    vendor.answer("GET", PATH, listing([], total=7, label_counts={"else": 7}))
    assert vendor.client.find_by_label(LABEL) == ()


def test_a_label_that_is_counted_but_not_listed(vendor: Vendor) -> None:
    for _ in range(2):
        vendor.answer("GET", PATH, listing([], total=1, label_counts={LABEL: 1}))
    vendor.refuses(ListingIncomplete, LABEL, call=vendor.client.find_by_label)


# One


def test_one(vendor: Vendor) -> None:
    vendor.answer("GET", "/v0/instances/9000001/", {"instances": instance_row()})
    found = vendor.client.get_instance("9000001")
    assert found is not None
    assert found.instance_id == "9000001"
    assert vendor.gate.taken == [("vastai:get_instance", 2.0, 0.0)]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"instances": None}),
        (200, {"success": True, "instances": None}),
        (404, {"success": False, "error": "no_such_instance", "msg": "Instance 9000001 not found."}),
        (404, {"success": False, "error": "not_found", "msg": "Instance not found"}),
        (404, {"success": False, "msg": "Instance 9000001 not found."}),
    ],
)
def test_gone(vendor: Vendor, status: int, body: Any) -> None:
    vendor.answer("GET", "/v0/instances/9000001/", body, status)
    assert vendor.client.get_instance("9000001") is None


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"success": False, "error": "auth_error", "msg": "Invalid user key"}, AuthError),
        (404, {"success": False, "error": "auth_error", "msg": "Instance 9000001 not found."}, AuthError),
        (400, {"success": False, "error": "insufficient_credit", "msg": "no_such_instance"}, InsufficientCredit),
        (404, {"message": "The resource could not be found.", "code": "404 Not Found"}, MalformedAnswer),
        (404, "<html>404 Not Found</html>", MalformedAnswer),
        (404, "", MalformedAnswer),
        (200, {}, MalformedAnswer),
        (200, [], MalformedAnswer),
        (200, "null", MalformedAnswer),
        (200, {"instances": {}}, MalformedAnswer),
        (200, {"instances": []}, MalformedAnswer),
        (200, {"instances": False}, MalformedAnswer),
        (200, {"instances": instance_row(9000002)}, MalformedAnswer),
        (200, {"instance": None}, MalformedAnswer),
        (200, "", MalformedAnswer),
        (502, "<html>", Unavailable),
        (200, requests.ReadTimeout("x"), Unavailable),
    ],
)
def test_what_proves_nothing(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("GET", "/v0/instances/9000001/", body, status)
    vendor.refuses(kind, "9000001", call=vendor.client.get_instance)


# The youngest


def test_the_youngest_in_one_call(vendor: Vendor) -> None:
    vendor.answer("GET", PATH, listing([*rows(60, 60), *rows(59, 59)], total=60, token="more"))
    assert isinstance(vendor.client, ShowsNewest)
    assert [instance.instance_id for instance in vendor.client.newest_instances()] == ["60", "59"]
    assert vendor.params == [{"limit": "25", "order_by": '[{"col":"id","dir":"desc"}]'}]
    assert vendor.gate.taken == [("vastai:list_instances", 1.0, 2.0)]


def test_of_the_youngest_one_that_cannot_be_understood_is_left_out(vendor: Vendor) -> None:
    vendor.answer("GET", PATH, listing([instance_row(3), {"id": None}, instance_row(1)]))
    assert isinstance(vendor.client, ShowsNewest)
    assert [instance.instance_id for instance in vendor.client.newest_instances()] == ["3", "1"]
