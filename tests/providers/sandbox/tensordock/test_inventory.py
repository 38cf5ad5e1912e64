"""Locations and hostnodes (TensorDock contract, sections 1 and 4)."""

from __future__ import annotations

import re

from tests.providers.sandbox.tensordock.helpers import CHUBBUCK, RTX_3090, RTX_4090, gpu_row, hostnode_of, rent
from tests.sandbox import TENSORDOCK_PATH, TensorDockSandbox


def test_locations_are_open_and_look_real(dock: TensorDockSandbox) -> None:
    status, headers, _ = dock.raw("GET", f"{TENSORDOCK_PATH}/locations")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    places = dock.api("GET", "/locations")[1]["data"]["locations"]
    rows = [gpu for place in places for gpu in place["gpus"]]
    assert (len(places), len(rows)) == (24, 47)
    assert {place["tier"] for place in places} == {0, 1, 2, 3, 4}
    assert all(re.fullmatch(r"[a-z0-9]+-(?:pcie|sxm[245])-\d+gb", row["v0Name"]) for row in rows)
    assert {row["displayName"] for row in rows} >= {"H100 SXM5 80GB", "a40-pcie-48gb"}
    assert [place["city"] for place in places if place["stateprovince"] == place["city"] == "Texas"] == ["Texas"]


def test_a_row_says_what_the_contract_says(dock: TensorDockSandbox) -> None:
    assert gpu_row(dock) == {
        "v0Name": RTX_4090,
        "displayName": "NVIDIA GeForce RTX 4090 PCIe 24GB",
        "max_count": 4,
        "price_per_hr": 0.3966,
        "resources": {"max_vcpus": 56, "max_ram_gb": 331, "max_storage_gb": 8102},
        "pricing": {"per_vcpu_hr": 0.003, "per_gb_ram_hr": 0.002, "per_gb_storage_hr": 0.00005},
        "network_features": {
            "dedicated_ip_available": True,
            "port_forwarding_available": True,
            "network_storage_available": False,
        },
    }


def test_hostnodes_need_a_token(dock: TensorDockSandbox) -> None:
    path = f"{TENSORDOCK_PATH}/hostnodes"
    assert dock.raw("GET", path)[0] == 403
    assert dock.raw("GET", f"{path}?api_token=dock-token")[0] == 403
    assert dock.api("GET", "/hostnodes", key="wrong") == (403, {"error": "Forbidden"})
    assert dock.api("GET", "/hostnodes")[0] == 200


def test_hostnodes_have_fractions_and_gaps(dock: TensorDockSandbox) -> None:
    nodes = dock.api("GET", "/hostnodes")[1]["data"]["hostnodes"]
    assert len(nodes) == 59
    assert {"uptime_percentage" in node for node in nodes} == {True, False}
    assert {node["available_resources"]["ram_gb"] % 1 for node in nodes} == {0.0, 0.5, 0.75}
    node = hostnode_of(dock)
    assert dock.api("GET", f"/hostnodes/{node['id']}") == (200, {"data": node})
    assert node["location"]["uuid"] == CHUBBUCK
    assert node["location"]["network_speed_upload_gbps"] == 0.35
    resources = node["available_resources"]
    assert resources["gpus"] == [{"v0Name": RTX_4090, "availableCount": 4, "price_per_hr": 0.3966}]
    assert (resources["vcpu_count"], resources["ram_gb"], resources["storage_gb"]) == (56, 331.0, 8102.0)
    assert (resources["max_vcpus_per_gpu"], resources["max_ram_per_gpu"]) == (28, 165.5)
    assert 0 < len(resources["available_ports"]) <= 48
    assert resources["has_public_ip_available"] is True
    assert dock.api("GET", f"/hostnodes/{CHUBBUCK}") == (404, {"error": "Hostnode not found"})


def test_what_is_rented_is_missing_from_both(dock: TensorDockSandbox) -> None:
    node = hostnode_of(dock)
    rent(dock, hostnode_id=node["id"], location_id=None, port_forwards=[{"internal_port": 22, "external_port": 0}])
    _, left = dock.api("GET", f"/hostnodes/{node['id']}")
    resources = left["data"]["available_resources"]
    assert resources["gpus"][0]["availableCount"] == 3
    assert (resources["vcpu_count"], resources["ram_gb"], resources["storage_gb"]) == (48, 299.0, 8002.0)
    assert gpu_row(dock)["max_count"] == 4
    assert gpu_row(dock, RTX_3090)["max_count"] == 2


def test_somebody_else_takes_an_offer(dock: TensorDockSandbox) -> None:
    assert dock.take_offer(f"{CHUBBUCK}:{RTX_4090}:1")
    assert gpu_row(dock) == {}
    assert gpu_row(dock, RTX_3090)["max_count"] == 2
    assert not dock.take_offer(f"{CHUBBUCK}:{RTX_4090}:1")
    assert not dock.take_offer("nonsense")
    node = hostnode_of(dock, RTX_3090)
    assert dock.take_offer(node["id"])
    _, left = dock.api("GET", f"/hostnodes/{node['id']}")
    assert left["data"]["available_resources"]["gpus"][0]["availableCount"] == 0


def test_stale_locations_show_what_is_gone(dock: TensorDockSandbox) -> None:
    before = gpu_row(dock)
    dock.settings(stale_stock=True)
    dock.take_offer(f"{CHUBBUCK} {RTX_4090}")
    assert gpu_row(dock) == before


def test_hostnodes_can_be_empty(dock: TensorDockSandbox) -> None:
    dock.settings(hostnodes_empty=True)
    assert dock.api("GET", "/hostnodes") == (200, {"data": {"hostnodes": []}})
    assert gpu_row(dock)["max_count"] == 4


def test_inventory_lies_on_demand(dock: TensorDockSandbox) -> None:
    dock.fault("empty_listing", operation="search")
    assert dock.api("GET", "/locations") == (200, {"data": {"locations": []}})
    dock.fault("partial_listing", operation="search", keep=2)
    assert len(dock.api("GET", "/hostnodes")[1]["data"]["hostnodes"]) == 2
    assert len(dock.api("GET", "/hostnodes")[1]["data"]["hostnodes"]) == 59


def test_faults_can_be_meant_for_one_path(dock: TensorDockSandbox) -> None:
    dock.fault("auth_error", operation="search", path="/hostnodes", status=403)
    assert dock.api("GET", "/locations")[0] == 200
    assert dock.api("GET", "/hostnodes") == (403, {"error": "Forbidden"})


def test_paths_that_nobody_serves(dock: TensorDockSandbox) -> None:
    assert dock.api("GET", "/nothing") == (404, {"error": "Not found"})
    assert dock.api("POST", "/locations") == (405, {"error": "Method not allowed"})
