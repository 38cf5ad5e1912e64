"""GET /inventory: every filter of the seed, refusals by name, and no database in the way."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gpubroker.common import clock
from offers import selectors
from offers.listed import freshness
from offers.selectors import InventoryQuery
from tests.harness import Api, MovableClock
from tests.offers.factory import apply, row

pytestmark = pytest.mark.django_db

ROWS = [
    row("1", price_per_hour=Decimal("0.50")),
    row("2", price_per_hour=Decimal("0.20"), gpu_name_raw="RTX 3090", vram_mb=24576, location="Texas, US"),
    row("3", price_per_hour=Decimal("1.80"), gpu_name_raw="A100 SXM4", vram_mb=81920, gpu_count=2, reliability=0.7),
    row("4", price_per_hour=Decimal("0.20"), cuda_version=None, reliability=None, location="Sweden, SE"),
    row("5", price_per_hour=Decimal("9.60"), gpu_name_raw="H100 SXM", vram_mb=81559, gpu_count=8, cuda_version=13.0),
]


@pytest.fixture(autouse=True)
def inventory() -> None:
    apply(ROWS)


def ids(answer: dict[str, Any]) -> list[str]:
    return [offer["id"].removeprefix("vastai-") for offer in answer["offers"]]


def test_the_seeds_fields_and_ours(api: Api) -> None:
    offer = api.get("/inventory", gpu_type="RTX 4090", max_price="0.5")["offers"][1]
    assert offer.pop("fetched_at").endswith("Z")
    assert offer == {
        "id": "vastai-1", "provider": "vastai", "provider_id": "1", "gpu_type": "RTX 4090", "gpu_count": 1,
        "vram_gb": 24, "price_per_hour": 0.5, "location": "Sweden, SE", "reliability": 0.98, "available": True,
        "max_duration_hours": 0, "cuda_version": 12.4, "gpu_vram_total_gb": 24, "gpu_name_raw": "RTX 4090",
        "compute_capability": None, "cpu_cores": None, "ram_gb": None, "disk_gb": 200.0,
        "storage_price_per_gb_month": 0.15, "inet_down_mbps": None, "inet_up_mbps": None, "verified": False,
        "datacenter": False, "interruptible": False, "min_bid_per_hour": None, "machine_id": "7",
        "availability_confidence": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, ["2", "4", "1", "3", "5"]),
        ({"provider": "vastai"}, ["2", "4", "1", "3", "5"]),
        ({"provider": "tensordock"}, []),
        ({"gpu_type": "rtx4090"}, ["4", "1"]),
        ({"gpu_type": "RTX 4090"}, ["4", "1"]),
        ({"gpu_type": "4090"}, []),
        ({"location": "sWeD"}, ["4", "1", "3", "5"]),
        ({"min_vram": "25"}, ["3", "5"]),
        ({"max_price": "0.2"}, ["2", "4"]),
        ({"min_gpu_count": "2"}, ["3", "5"]),
        ({"gpu_count": "3"}, ["5"]),
        ({"gpu_count": "1", "min_gpu_count": "8"}, ["5"]),
        ({"min_reliability": "0.9"}, ["2", "1", "5"]),
        ({"min_cuda": "12.5"}, ["5"]),
        ({"min_availability_confidence": "1"}, ["2", "4", "1", "3", "5"]),
        ({"gpu_type": "A100", "min_gpu_count": "3"}, []),
        ({"unknown": "ignored"}, ["2", "4", "1", "3", "5"]),
    ],
)
def test_filters_compose(api: Api, params: dict[str, str], expected: list[str]) -> None:
    answer = api.get("/inventory", 200, **params)
    assert ids(answer) == expected
    assert (answer["count"], answer["total"]) == (len(expected), len(expected))


def test_paging_keeps_the_total(api: Api) -> None:
    answer = api.get("/inventory", limit=2, offset=1)
    assert (ids(answer), answer["count"], answer["total"]) == (["4", "1"], 2, 5)
    assert ids(api.get("/inventory", offset=4)) == ["5"]
    assert ids(api.get("/inventory", offset=99)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("provider", "aws"), ("min_vram", "-1"), ("min_vram", "x"), ("max_price", "-0.1"), ("max_price", "NaN"),
        ("max_price", "inf"), ("min_gpu_count", "-2"), ("gpu_count", "1.5"), ("min_reliability", "1.2"),
        ("min_reliability", "nan"), ("min_availability_confidence", "-1"), ("min_cuda", "inf"), ("limit", "0"),
        ("limit", "-1"), ("limit", "ten"), ("offset", "-1"), ("gpu_type", "a\x00b"), ("min_vram", "9" * 30),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused_by_name(api: Api, name: str, value: str) -> None:
    answer = api.get("/inventory", 400, **{name: value})
    assert answer["field"] == name
    assert answer["error"].startswith(f"{name}: ")
    assert set(answer) == {"error", "field", "request_id"}


def test_one_offer_with_a_quote(api: Api) -> None:
    offer = api.get("/inventory/vastai-1", disk_gb=200)
    assert offer["quote"] == {
        "disk_gb": 200, "gpu_per_hour": 0.5, "storage_per_hour": 0.041667, "total_per_hour": 0.541667,
        "price_includes": [],
    }  # fmt: skip
    assert "quote" not in api.get("/inventory/vastai-1")
    assert api.get("/inventory/vastai-1", 400, disk_gb=201)["field"] == "disk_gb"
    assert api.get("/inventory/vastai-1", 400, disk_gb=7)["field"] == "disk_gb"


def test_a_withdrawn_offer_is_404(api: Api) -> None:
    apply(ROWS[1:])
    assert api.get("/inventory/vastai-1", 404)["error"] == "offer vastai-1 not found"
    assert "1" not in ids(api.get("/inventory"))


def test_confidence_falls_with_age(api: Api, time: MovableClock) -> None:
    apply(ROWS)
    time.advance(minutes=12.5)
    assert {offer["availability_confidence"] for offer in api.get("/inventory")["offers"]} == {0.5}
    assert api.get("/inventory", min_availability_confidence="0.6")["total"] == 0


def test_freshness_is_full_then_halves() -> None:
    now = clock.now()
    assert freshness(now, now) == 1.0
    assert freshness(now - timedelta(seconds=150), now) == 1.0
    assert freshness(now - timedelta(seconds=750), now) == 0.5
    assert freshness(now - timedelta(seconds=1350), now) == 0.25


def test_listing_costs_the_database_nothing(api: Api) -> None:
    api.get("/inventory")
    with CaptureQueriesContext(
        connection,
    ) as captured:
        for _ in range(5):
            api.get("/inventory", gpu_type="A100")
    assert len(captured) == 0


optional = st.none()
queries = st.builds(
    InventoryQuery,
    provider=optional | st.sampled_from(["vastai", "tensordock"]),
    gpu_type=optional | st.sampled_from(["RTX 4090", "rtx 3090", "A100", "H100", "T4"]),
    location=optional | st.sampled_from(["us", "Sweden", "x"]),
    min_vram=optional | st.integers(0, 100),
    max_price=optional | st.decimals(0, 10, places=2),
    min_gpu_count=optional | st.integers(0, 9),
    min_reliability=optional | st.floats(0, 1),
    min_cuda=optional | st.floats(11, 14),
    limit=optional | st.integers(1, 6),
    offset=st.integers(0, 6),
)


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=queries)
def test_search_agrees_with_the_plain_reading_of_the_contract(query: InventoryQuery) -> None:
    names = {"A100 SXM4": "a100", "H100 SXM": "h100"}
    expected = []
    for offer in sorted(ROWS, key=lambda item: (item.price_per_hour, f"vastai-{item.provider_id}")):
        key = names.get(offer.gpu_name_raw, offer.gpu_name_raw.lower().replace(" ", ""))
        checks = [
            query.provider in (None, "vastai"),
            query.gpu_type is None or query.gpu_type.lower().replace(" ", "") == key,
            query.location is None or query.location.lower() in offer.location.lower(),
            query.min_vram is None or {24564: 24, 24576: 24, 81920: 80, 81559: 80}[offer.vram_mb] >= query.min_vram,
            query.max_price is None or offer.price_per_hour <= query.max_price,
            query.min_gpu_count is None or offer.gpu_count >= query.min_gpu_count,
            query.min_reliability is None or (offer.reliability or 0.0) >= query.min_reliability,
            query.min_cuda is None or (offer.cuda_version is not None and offer.cuda_version >= query.min_cuda),
        ]
        if all(checks):
            expected.append(offer.provider_id)
    answer = json.loads(selectors.search(query))
    end = None if query.limit is None else query.offset + query.limit
    assert ids(answer) == expected[query.offset : end]
    assert answer["total"] == len(expected)
