"""Offer rows, and the enumeration of a market that shows 64 rows at a time."""

import json
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import requests
import responses
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import OfferData
from providers.errors import ListingIncomplete, MalformedAnswer
from providers.vastai import OfferSearch
from providers.vastai.offers import read_offer
from providers.vastai.search import OfferWalk, incomplete_offers
from tests.providers.vastai.conftest import BASE, NOW, Vendor, offer_row

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, other: other == "any" or value == other,
    "neq": lambda value, other: value != other,
    "gt": lambda value, other: value > other,
    "gte": lambda value, other: value >= other,
    "lt": lambda value, other: value < other,
    "lte": lambda value, other: value <= other,
    "in": lambda value, other: value in other,
    "notin": lambda value, other: value not in other,
}
CONTROLS = {"type", "order", "limit", "allocated_storage", "verified", "external"}


class Market:
    """The vendor's search: filters, price order, never more than ``cap`` rows."""

    def __init__(self, rows: list[dict[str, Any]], cap: int = 64) -> None:
        self.rows = rows
        self.cap = cap
        self.bodies: list[dict[str, Any]] = []

    def search(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        self.bodies.append(body)
        fitting = [row for row in self.rows if self._fits(row, body)]
        random.Random(len(self.bodies)).shuffle(fitting)
        return sorted(fitting, key=lambda row: Decimal(str(row["dph_total"])))[: self.cap]

    def answer(self, request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        return 200, {}, json.dumps({"offers": self.search(json.loads(request.body or "{}"))})

    @staticmethod
    def _fits(row: dict[str, Any], body: dict[str, Any]) -> bool:
        return all(
            OPERATORS[operator](row[field], other)
            for field, conditions in body.items()
            if field not in CONTROLS
            for operator, other in conditions.items()
        )


def walk(market: Market, **search: Any) -> list[int]:
    """What a walk over the market finds, as ids."""

    def fetch(body: dict[str, Any], first: bool) -> list[Any]:
        return market.search(json.loads(json.dumps(body, default=float)))

    found = OfferWalk(OfferSearch(**search), fetch, lambda why: incomplete_offers("vastai", why)).rows()
    return [row["id"] for row in found]


def rows_at(prices: list[float], **changes: Any) -> list[dict[str, Any]]:
    return [offer_row(number, dph_total=price, **changes) for number, price in enumerate(prices, 1)]


# Enumeration


@pytest.mark.parametrize("count", [0, 1, 31, 32, 63, 64, 65, 128, 129, 700])
def test_every_offer_is_found_once(count: int) -> None:
    market = Market(rows_at([0.1 + number / 1000 for number in range(count)]))
    assert sorted(walk(market)) == list(range(1, count + 1))
    assert len(market.bodies) <= count // 63 + 2


def test_a_small_market_costs_one_call() -> None:
    market = Market(rows_at([0.1, 0.2, 0.3]))
    walk(market)
    assert len(market.bodies) == 1


def test_a_lower_cap_is_noticed() -> None:
    market = Market(rows_at([0.1 + number / 1000 for number in range(300)]), cap=50)
    assert len(walk(market)) == 300


@pytest.mark.parametrize("spread", ["num_gpus", "gpu_name", "machine_id"])
def test_more_than_a_page_at_one_price(spread: str) -> None:
    values: dict[str, list[Any]] = {
        "num_gpus": [1, 2, 4, 8],
        "gpu_name": ["RTX 4090", "RTX 3090", "A100 SXM4", "L40S", "H100 NVL"],
        "machine_id": list(range(1, 60)),
    }
    same = [offer_row(n, dph_total=0.5, **{spread: values[spread][n % len(values[spread])]}) for n in range(100, 300)]
    market = Market([*rows_at([0.2, 0.3]), *same, offer_row(900, dph_total=0.7), offer_row(901, dph_total=0.5000001)])
    assert sorted(walk(market)) == [1, 2, *range(100, 300), 900, 901]


def test_offers_that_cannot_be_told_apart_are_an_error_not_a_gap() -> None:
    with pytest.raises(ListingIncomplete, match="64"):
        walk(Market(rows_at([0.5] * 200)))


def test_a_vendor_that_ignores_filters_ends_in_an_error_or_a_list() -> None:
    class Deaf(Market):
        @staticmethod
        def _fits(row: dict[str, Any], body: dict[str, Any]) -> bool:
            return True

    assert len(walk(Deaf(rows_at([0.1 + number / 1000 for number in range(100)])))) == 64
    with pytest.raises(ListingIncomplete):
        walk(Deaf(rows_at([0.5] * 100)))


def test_the_number_of_pages_is_bounded() -> None:
    market = Market(rows_at([0.1 + number / 1000 for number in range(700)]))
    with pytest.raises(ListingIncomplete, match="more than 3 pages"):
        walk(market, max_pages=3)
    assert len(market.bodies) == 3


cents = st.integers(10, 14).map(lambda number: number / 100)
market_rows = st.lists(
    st.tuples(cents, st.sampled_from([1, 2, 4]), st.sampled_from(["RTX 4090", "L4"]), st.integers(1, 40)), max_size=400
)


@settings(max_examples=40, deadline=None)
@given(market_rows)
def test_any_market_is_enumerated(rows: list[tuple[float, int, str, int]]) -> None:
    market = Market(
        [
            offer_row(number, dph_total=price, num_gpus=gpus, gpu_name=name, machine_id=machine)
            for number, (price, gpus, name, machine) in enumerate(rows, 1)
        ]
    )
    assert sorted(walk(market)) == list(range(1, len(rows) + 1))


def test_a_search_as_sent(vendor: Vendor) -> None:
    vendor.answer("POST", "/v0/bundles/", {"offers": []})
    client = vendor.build(max_price_per_hour=Decimal("1.5"), filters={"gpu_ram": {"gte": 24000}})
    assert client.list_offers().offers == ()
    assert vendor.sent == [
        (
            "POST",
            "/api/v0/bundles/",
            {
                "rentable": {"eq": True},
                "rented": {"eq": False},
                "external": {"eq": False},
                "verified": {"eq": True},
                "gpu_ram": {"gte": 24000},
                "dph_total": {"lte": 1.5},
                "type": "on-demand",
                "order": [["dph_total", "asc"]],
                "limit": 64,
                "allocated_storage": 8,
            },
        )
    ]


def test_pages_are_spaced_by_the_gate_and_only_later_ones_wait(vendor: Vendor) -> None:
    market = Market(rows_at([0.1 + number / 1000 for number in range(100)]))
    vendor.wire.add_callback(responses.POST, f"{BASE}/api/v0/bundles/", market.answer)
    listing = vendor.client.list_offers()
    assert len(listing.offers) == 100
    assert listing.listed_at == NOW
    assert (
        vendor.gate.taken
        == [
            ("vastai:list_offers", 6.0, 0.0),
            ("vastai:list_offers", 6.0, 30.0),
            ("vastai:list_offers", 6.0, 30.0),
        ][: len(vendor.gate.taken)]
    )
    assert len(vendor.gate.taken) >= 2


@pytest.mark.parametrize(
    "changes",
    [
        {"rentable": False},
        {"rented": True},
        {"external": True},
        {"verification": "unverified"},
        {"verification": "deverified", "verified": True},
        {"verification": None, "vericode": 0},
        {"dph_total": 9.0},
        {"dph_total": None},
    ],
)
def test_filters_are_applied_again_on_our_side(vendor: Vendor, changes: dict[str, Any]) -> None:
    vendor.answer("POST", "/v0/bundles/", {"offers": [offer_row(1), offer_row(2, **changes)]})
    listing = vendor.build(max_price_per_hour=Decimal(2)).list_offers()
    assert [offer.provider_id for offer in listing.offers] == ["1"]


def test_unverified_ones_if_wanted(vendor: Vendor) -> None:
    vendor.answer("POST", "/v0/bundles/", {"offers": [offer_row(1, verification="unverified")]})
    listing = vendor.build(verified_only=False).list_offers()
    assert [offer.verified for offer in listing.offers] == [False]
    assert vendor.sent[0][2]["verified"] == {"eq": "any"}


# Rows


def test_a_row_is_read_exactly() -> None:
    row = json.loads(json.dumps(offer_row()), parse_float=Decimal)
    offer = read_offer(row, "vastai", NOW)
    assert offer is not None
    assert offer.raw == offer_row()
    assert offer == OfferData(
        provider="vastai",
        provider_id="7000001",
        gpu_name_raw="RTX 4090",
        gpu_count=2,
        vram_mb=24564,
        price_per_hour=Decimal("0.8"),
        storage_price_per_gb_month=Decimal("0.2"),
        location="Texas, US",
        reliability=0.991,
        max_duration_hours=240.0,
        cuda_version=12.4,
        compute_capability="8.9",
        cpu_cores=16.0,
        ram_gb=64.0,
        disk_gb=812.5,
        inet_down_mbps=1800.2,
        inet_up_mbps=900.1,
        verified=True,
        datacenter=True,
        interruptible=False,
        min_bid_per_hour=Decimal("0.31"),
        machine_id="501",
        host_id="77",
        raw=offer.raw,
    )


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"gpu_ram": 24563.7}, "vram_mb", 24563),
        ({"gpu_ram": None}, "vram_mb", 24564),
        ({"dph_base": None}, "price_per_hour", Decimal("0.8000")),
        ({"geolocation": ", US"}, "location", "US"),
        ({"geolocation": None}, "location", ""),
        ({"geolocation": 5}, "location", ""),
        ({"reliability2": None}, "reliability", 0.991),
        ({"reliability2": 1.7, "reliability": "x"}, "reliability", None),
        ({"duration": None, "end_date": NOW.timestamp() + 7200}, "max_duration_hours", 2.0),
        ({"duration": None, "end_date": NOW.timestamp() - 7200}, "max_duration_hours", 0.0),
        ({"duration": None}, "max_duration_hours", None),
        ({"cuda_max_good": "12.8"}, "cuda_version", 12.8),
        ({"cuda_max_good": None}, "cuda_version", None),
        ({"compute_cap": 1200}, "compute_capability", "12.0"),
        ({"compute_cap": None}, "compute_capability", ""),
        ({"cpu_cores": None}, "ram_gb", 256.0),
        ({"cpu_cores_effective": None}, "cpu_cores", 64.0),
        ({"cpu_ram": None}, "ram_gb", None),
        ({"hosting_type": 0}, "datacenter", False),
        ({"hosting_type": None}, "datacenter", False),
        ({"min_bid": None}, "min_bid_per_hour", None),
        ({"is_bid": True}, "interruptible", True),
        ({"storage_cost": None}, "storage_price_per_gb_month", Decimal(0)),
        ({"id": None}, "provider_id", "7000001"),
        ({"gpu_name": " RTX\x00 4090 "}, "gpu_name_raw", "RTX 4090"),
        ({"inet_up": -1}, "inet_up_mbps", None),
    ],
)
def test_odd_values(changes: dict[str, Any], field: str, value: Any) -> None:
    row = json.loads(json.dumps(offer_row(**changes)), parse_float=Decimal)
    offer = read_offer(row, "vastai", NOW)
    assert offer is not None
    assert getattr(offer, field) == value


BAD_ROWS: list[Any] = [
    None,
    7,
    "row",
    [],
    {},
    offer_row(id=None, ask_contract_id=None),
    offer_row(id=-4, ask_contract_id="x"),
    offer_row(gpu_name=""),
    offer_row(gpu_name=None),
    offer_row(num_gpus=0),
    offer_row(num_gpus="two"),
    offer_row(gpu_ram=None, gpu_total_ram=None),
    offer_row(dph_base=None, dph_total=None),
    offer_row(dph_base=0, storage_total_cost=None),
    offer_row(dph_base=-0.4, storage_total_cost=None),
    offer_row(dph_base=1e300, storage_total_cost=None),
]


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_skipped_and_the_rest_stays(vendor: Vendor, row: Any, caplog: pytest.LogCaptureFixture) -> None:
    vendor.answer("POST", "/v0/bundles/", {"offers": [offer_row(11), row, offer_row(12)]})
    assert [offer.provider_id for offer in vendor.client.list_offers().offers] == ["11", "12"]
    assert "skipped" in caplog.text


def test_only_bad_rows_are_no_empty_market(vendor: Vendor) -> None:
    vendor.answer(
        "POST", "/v0/bundles/", {"offers": [offer_row(1, gpu_name=None), offer_row(2, dph_base="?", dph_total="?")]}
    )
    vendor.refuses(MalformedAnswer, call=vendor.client.list_offers)


def test_only_rows_without_an_id_are_no_empty_market(vendor: Vendor) -> None:
    vendor.answer("POST", "/v0/bundles/", {"offers": [{"a": 1}, None]})
    vendor.refuses(MalformedAnswer, call=vendor.client.list_offers)


@pytest.mark.parametrize("body", [{}, [], "null", {"offers": None}, {"offers": {"id": 1}}, {"success": True}, "7"])
def test_wrong_envelopes(vendor: Vendor, body: Any) -> None:
    vendor.answer("POST", "/v0/bundles/", body)
    vendor.refuses(MalformedAnswer, call=vendor.client.list_offers)
