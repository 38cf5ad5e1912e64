"""Locations and hostnodes as offers (TensorDock contract, sections 4 and 8)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from providers.errors import AuthError, MalformedAnswer, ProviderError, Unavailable
from providers.tensordock.slices import RAM_GB, Room, Slice
from tests.providers.tensordock.conftest import BOTH, GPU, NODE, PLACE, Vendor, gpu_row, hostnode, location


def lists(vendor: Vendor, locations: Any, hostnodes: Any = ()) -> list[Any]:
    vendor.answer("GET", "/locations", {"data": {"locations": locations}})
    vendor.answer("GET", "/hostnodes", {"data": {"hostnodes": list(hostnodes)}})
    return list(vendor.client.list_offers().offers)


def test_a_location_is_an_offer_for_each_number_of_gpus(vendor: Vendor) -> None:
    one, two = lists(vendor, [location()])
    assert one.provider == "tensordock"
    assert one.provider_id == BOTH
    assert two.provider_id == f"loc.{PLACE}.{GPU}.2x.16c.64g.dp"
    assert (one.gpu_name_raw, one.gpu_count, one.vram_mb) == (GPU, 1, 24_576)
    assert (one.cpu_cores, one.ram_gb, one.disk_gb) == (8.0, 32.0, 15_100.0)
    assert (two.cpu_cores, two.ram_gb, two.disk_gb) == (16.0, 64.0, 30_200.0)
    assert one.location == "Chubbuck, Idaho, United States"
    assert (one.host_id, one.machine_id, one.datacenter, one.interruptible) == (PLACE, "", False, False)
    assert one.raw["gpu"]["displayName"] == "NVIDIA GeForce RTX 4090 PCIe 24GB"
    assert "gpus" not in one.raw["location"]


def test_the_price_is_all_in_but_for_the_disk(vendor: Vendor) -> None:
    """The contract's worked example: 0.4896 an hour with 100 GB of disk."""
    one, two = lists(vendor, [location()])
    assert one.price_per_hour == Decimal("0.4846")
    assert two.price_per_hour == Decimal("0.9692")
    assert one.storage_price_per_gb_month == Decimal("0.036")
    assert one.price_per_hour + one.storage_price_per_gb_month * 100 / 720 == Decimal("0.4896")


def test_ids_are_the_same_every_time(vendor: Vendor) -> None:
    first = [offer.provider_id for offer in lists(vendor, [location()])]
    dearer = gpu_row(price_per_hr=0.5, displayName="RTX 4090")
    assert [offer.provider_id for offer in lists(vendor, [location(dearer, city="Elsewhere")])] == first


def test_a_hostnode_is_offered_rather_than_its_location(vendor: Vendor) -> None:
    other = gpu_row(v0Name="l4-pcie-24gb", max_count=1)
    offers = lists(vendor, [location(gpu_row(max_count=4), other)], [hostnode()])
    assert [offer.provider_id for offer in offers] == [
        f"host.{NODE}.{GPU}.1x.8c.32g",
        f"host.{NODE}.{GPU}.2x.16c.64g",
        f"loc.{PLACE}.l4-pcie-24gb.1x.8c.32g.dp",
    ]
    one = offers[0]
    assert (one.machine_id, one.host_id, one.datacenter) == (NODE, "org-77", True)
    assert one.reliability == pytest.approx(0.9987)
    assert (one.inet_down_mbps, one.inet_up_mbps) == (1_500.0, 750.0)
    assert one.disk_gb == pytest.approx(1_500.125)
    assert one.price_per_hour == Decimal("0.4846")


def test_a_hostnode_with_nothing_free_is_no_offer(vendor: Vendor) -> None:
    full = hostnode({"gpus": [{"v0Name": GPU, "availableCount": 0, "price_per_hr": 0.3966}]})
    assert lists(vendor, [location()], [full]) == []


def test_a_hostnode_that_does_not_tell_its_limits(vendor: Vendor) -> None:
    silent = hostnode()
    silent["available_resources"] = {"gpus": silent["available_resources"]["gpus"]}
    del silent["location"], silent["uptime_percentage"]
    one, _ = lists(vendor, [], [silent])
    assert (one.cpu_cores, one.ram_gb, one.disk_gb, one.reliability) == (8.0, 32.0, None, None)
    assert (one.location, one.host_id) == ("", PLACE)


@pytest.mark.parametrize(
    ("features", "networks"),
    [
        ({"dedicated_ip_available": True, "port_forwarding_available": True}, "dp"),
        ({"dedicated_ip_available": True, "port_forwarding_available": False}, "d"),
        ({"dedicated_ip_available": False, "port_forwarding_available": True}, "p"),
        ({}, "p"),
        (None, "p"),
    ],
)
def test_networks_are_part_of_the_id(vendor: Vendor, features: Any, networks: str) -> None:
    (one,) = lists(vendor, [location(gpu_row(max_count=1, network_features=features))])
    assert one.provider_id == f"loc.{PLACE}.{GPU}.1x.8c.32g.{networks}"


def test_a_place_that_nobody_could_reach_is_no_offer(vendor: Vendor) -> None:
    closed = {"dedicated_ip_available": False, "port_forwarding_available": False}
    assert lists(vendor, [location(gpu_row(network_features=closed))]) == []


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ({"city": "Texas", "stateprovince": "Texas"}, "Texas, United States"),
        ({"city": None, "stateprovince": ""}, "United States"),
    ],
)
def test_odd_places(vendor: Vendor, place: dict[str, Any], shown: str) -> None:
    assert {offer.location for offer in lists(vendor, [location(**place)])} == {shown}


@pytest.mark.parametrize(("tier", "datacenter"), [(0, False), (2, False), (3, True), (4, True), (None, False)])
def test_tiers(vendor: Vendor, tier: int | None, datacenter: bool) -> None:
    assert {offer.datacenter for offer in lists(vendor, [location(tier=tier)])} == {datacenter}


@pytest.mark.parametrize(
    "broken",
    [
        gpu_row(v0Name="geforcertx4090"),
        gpu_row(v0Name=None),
        gpu_row(price_per_hr=None),
        gpu_row(price_per_hr=0),
        gpu_row(pricing={"per_vcpu_hr": 0.003, "per_gb_storage_hr": 0.00005}),
        gpu_row(pricing=None),
        gpu_row(max_count="many"),
        gpu_row(resources=None),
        "a GPU",
    ],
)
def test_a_row_without_what_an_offer_needs_is_left_out(
    vendor: Vendor, broken: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = gpu_row(v0Name="l4-pcie-24gb", max_count=1)
    (offer,) = lists(vendor, [location(broken, good)])
    assert offer.gpu_name_raw == "l4-pcie-24gb"
    assert "1 rows skipped" in caplog.text


@pytest.mark.parametrize("locations", [[location(gpu_row(price_per_hr="dear"))], [location(id="")], ["x"], [{"id": 1}]])
def test_rows_none_of_which_can_be_understood_are_no_empty_market(vendor: Vendor, locations: Any) -> None:
    vendor.answer("GET", "/locations", {"data": {"locations": locations}})
    vendor.answer("GET", "/hostnodes", {"data": {"hostnodes": []}})
    vendor.refuses(MalformedAnswer, vendor.client.list_offers)


def test_an_empty_market(vendor: Vendor) -> None:
    assert lists(vendor, []) == []


ODD: list[tuple[Any, int, type[ProviderError]]] = [
    ({"data": []}, 200, MalformedAnswer),
    ({"data": {}}, 200, MalformedAnswer),
    ({"data": {"locations": None, "hostnodes": None}}, 200, MalformedAnswer),
    ([], 200, MalformedAnswer),
    ("", 200, MalformedAnswer),
    ("<html>", 200, MalformedAnswer),
    ({"status": 500, "error": "Internal"}, 200, Unavailable),
    ({"error": "Something went wrong"}, 200, Unavailable),
    ({"status": 401, "error": "Unauthorized"}, 200, AuthError),
    ({"error": "Unauthorized"}, 401, AuthError),
    ({"error": "Forbidden"}, 403, AuthError),
    ("<html>502</html>", 502, Unavailable),
]


@pytest.mark.parametrize(("body", "status", "kind"), ODD)
def test_odd_locations_are_an_error(vendor: Vendor, body: Any, status: int, kind: type[ProviderError]) -> None:
    vendor.answer("GET", "/locations", body, status)
    vendor.refuses(kind, vendor.client.list_offers)


@pytest.mark.parametrize(("body", "status", "kind"), ODD)
def test_odd_hostnodes_are_an_error(vendor: Vendor, body: Any, status: int, kind: type[ProviderError]) -> None:
    """Locations answer to anybody: only the hostnodes tell a wrong token."""
    vendor.answer("GET", "/locations", {"data": {"locations": [location()]}})
    vendor.answer("GET", "/hostnodes", body, status)
    vendor.refuses(kind, vendor.client.list_offers)


@pytest.mark.parametrize(
    ("room", "count", "vram", "bundle"),
    [
        (Room(4, 56, 331, None), 1, 24, (8, 32)),
        (Room(4, 56, 331, None), 4, 24, (32, 128)),
        (Room(8, 24, 64, None), 1, 24, None),
        (Room(8, 24, 256, None), 1, 24, (2, 32)),
        (Room(8, 24, 256, None), 8, 24, (24, 256)),
        (Room(2, 30, 100, None, 4, 20), 2, 48, (8, 32)),
        (Room(8, None, None, None), 8, 80, (64, 512)),
        (Room(8, None, None, None), 6, 80, (48, 256)),
        (Room(1, 7, 32, None), 1, 12, (6, 16)),
        (Room(1, 1, 32, None), 1, 12, None),
        (Room(1, 8, 12, None), 1, 12, None),
    ],
)
def test_what_goes_along_with_the_gpus(room: Room, count: int, vram: int, bundle: tuple[int, int] | None) -> None:
    assert room.bundle(count, vram) == bundle


def test_ram_comes_in_sizes_that_every_document_allows() -> None:
    assert all(size % 8 == 0 for size in RAM_GB)
    newest = {16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 512}
    assert set(RAM_GB) <= newest


@pytest.mark.parametrize(
    "offer_id",
    [
        "",
        "12345",
        f"loc.{PLACE}.{GPU}.1x.8c.32g",
        f"host.{NODE}.{GPU}.1x.8c.32g.p",
        f"loc.{PLACE}.{GPU}.0x.8c.32g.p",
        f"loc.{PLACE}/..{GPU}.1x.8c.32g.p",
        f"loc.{PLACE}.{GPU}.1x.8c.32g.pd",
        BOTH + "\n",
    ],
)
def test_what_is_no_offer_id(offer_id: str) -> None:
    assert Slice.of(offer_id) is None


def test_an_id_says_everything() -> None:
    part = Slice.of(BOTH)
    assert part == Slice("loc", PLACE, GPU, 1, 8, 32, "dp")
    assert part is not None
    assert part.offer_id == BOTH
