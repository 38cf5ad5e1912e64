"""Searching offers over the wire (Vast.ai contract, section 2)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.providers.sandbox.helpers import create, search
from tests.sandbox import SandboxProcess

ANY: dict[str, Any] = {"verified": {"eq": "any"}}
FIELDS = [
    "id",
    "ask_contract_id",
    "bundle_id",
    "machine_id",
    "host_id",
    "hosting_type",
    "resource_type",
    "rentable",
    "rented",
    "is_bid",
    "verification",
    "vericode",
    "verified",
    "external",
    "is_vm_deverified",
    "vms_enabled",
    "start_date",
    "end_date",
    "duration",
    "time_remaining",
    "time_remaining_isbid",
    "reliability",
    "reliability2",
    "expected_reliability",
    "reliability_mult",
    "score",
    "rn",
    "logo",
    "webpage",
    "hostname",
    "bundled_results",
    "gpu_name",
    "num_gpus",
    "gpu_frac",
    "gpu_ram",
    "gpu_total_ram",
    "gpu_arch",
    "compute_cap",
    "cuda_max_good",
    "driver_version",
    "driver_vers",
    "gpu_mem_bw",
    "bw_nvlink",
    "gpu_lanes",
    "pci_gen",
    "pcie_bw",
    "gpu_max_power",
    "gpu_max_temp",
    "gpu_display_active",
    "gpu_ids",
    "dlperf",
    "dlperf_per_dphtotal",
    "total_flops",
    "flops_per_dphtotal",
    "cpu_name",
    "cpu_arch",
    "cpu_ghz",
    "has_avx",
    "cpu_cores",
    "cpu_cores_effective",
    "cpu_ram",
    "disk_space",
    "disk_bw",
    "disk_name",
    "inet_up",
    "inet_down",
    "inet_up_cost",
    "inet_down_cost",
    "internet_up_cost_per_tb",
    "internet_down_cost_per_tb",
    "direct_port_count",
    "direct_port_start",
    "public_ipaddr",
    "static_ip",
    "geolocation",
    "geolocode",
    "os_version",
    "mobo_name",
    "cluster_id",
    "avail_vol_ask_id",
    "avail_vol_dph",
    "avail_vol_size",
    "dph_base",
    "storage_cost",
    "storage_total_cost",
    "dph_total",
    "dph_total_adj",
    "discount_rate",
    "discounted_hourly",
    "discounted_dph_total",
    "credit_discount_max",
    "min_bid",
    "search",
    "instance",
    "platform_fee",
    "vram_costperhour",
]


def everything(sandbox: SandboxProcess, **wanted: Any) -> list[dict[str, Any]]:
    """Enumerate as a client must: windows of growing price."""
    found: dict[int, dict[str, Any]] = {}
    floor = 0.0
    while True:
        page = search(sandbox, order=[["dph_total", "asc"]], **{**wanted, "dph_total": {"gte": floor}})
        fresh = [offer for offer in page if offer["id"] not in found]
        found.update({offer["id"]: offer for offer in page})
        if not fresh:
            return list(found.values())
        floor = page[-1]["dph_total"]


def test_a_row_has_every_field(sandbox: SandboxProcess) -> None:
    offer = search(sandbox, limit=1)[0]
    assert [name for name in FIELDS if name not in offer] == []
    assert offer["id"] == offer["ask_contract_id"]
    assert offer["gpu_total_ram"] == offer["gpu_ram"] * offer["num_gpus"]


def test_64_rows_whatever_the_limit_and_more_than_300_in_all(sandbox: SandboxProcess) -> None:
    assert len(search(sandbox, limit=3000)) == 64
    assert len(search(sandbox)) == 64
    assert len(search(sandbox, limit=5)) == 5
    offers = everything(sandbox)
    assert len(offers) >= 320
    assert {offer["verification"] for offer in offers} == {"verified"}
    assert {offer["gpu_ram"] for offer in offers} >= {24564, 81559}
    assert any(offer["cpu_cores"] is None for offer in offers)
    assert any(offer["end_date"] is None for offer in offers)
    assert any(offer["geolocation"] is None for offer in offers)
    assert all(offer["min_bid"] > 0 for offer in offers)


def test_three_ways_to_ask_and_both_slash_forms(sandbox: SandboxProcess) -> None:
    wanted = {"gpu_name": {"eq": "RTX 4090"}, "order": [["id", "asc"]]}
    ids = [offer["id"] for offer in search(sandbox, **wanted)]
    query = quote(json.dumps(wanted))
    assert ids != []
    for method, path, body in (
        ("POST", "/api/v0/bundles", wanted),
        ("GET", f"/api/v0/bundles/?q={query}", None),
        ("GET", f"/api/v0/bundles?q={query}", None),
        ("PUT", "/api/v0/search/asks/", {"select_cols": ["*"], "q": wanted}),
    ):
        status, answer = sandbox.api(method, path, body)
        assert (status, [offer["id"] for offer in answer["offers"]]) == (200, ids)
    _, answer = sandbox.api("PUT", "/api/v0/search/asks/", {"select_cols": ["id", "nothing"], "q": wanted})
    assert answer["offers"] == [{"id": id_, "nothing": None} for id_ in ids]


def test_searching_needs_no_key_but_a_wrong_one_fails(sandbox: SandboxProcess) -> None:
    status, _, text = sandbox.raw("POST", "/api/v0/bundles/", {"limit": 1})
    assert (status, len(json.loads(text)["offers"])) == (200, 1)
    status, answer = sandbox.api("POST", "/api/v0/bundles/", {}, key="wrong")
    assert (status, answer) == (404, {"success": False, "error": "auth_error", "msg": "Invalid user key"})


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        ({"gpu_name": {"eq": "RTX 4090"}}, lambda o: o["gpu_name"] == "RTX 4090"),
        ({"gpu_name": {"in": ["H100 SXM", "A100 SXM4"]}}, lambda o: o["gpu_name"] in ("H100 SXM", "A100 SXM4")),
        ({"gpu_ram": {"gte": 40000}, "num_gpus": {"eq": 2}}, lambda o: o["gpu_ram"] >= 40000 and o["num_gpus"] == 2),
        ({"gpu_ram_GB": {"gte": 40}}, lambda o: o["gpu_ram"] >= 40000),
        ({"reliability2": {"gt": 0.99}}, lambda o: o["reliability"] > 0.99),
        ({"datacenter": {"eq": True}}, lambda o: o["hosting_type"] == 1),
        ({"datacenter": {"eq": False}}, lambda o: o["hosting_type"] == 0),
        ({"geolocation": {"in": ["SE", "US"]}}, lambda o: o["geolocation"].rsplit(", ")[-1] in ("SE", "US")),
        ({"geolocation": {"eq": "SE"}}, lambda o: o["geolocation"].endswith(", SE")),
        ({"duration": {"gte": 86400 * 30}}, lambda o: o["duration"] >= 86400 * 30),
        ({"driver_version": {"gte": "550.54.15"}}, lambda o: o["driver_vers"] >= 550054015),
        ({"dphtotal": {"lte": 0.2}}, lambda o: o["dph_total"] <= 0.2),
        ({"allocated_storage": {"gte": 1000}}, lambda o: o["disk_space"] >= 1000),
        ({"target_reliability": 0.99}, lambda o: o["expected_reliability"] >= 0.99),
        ({"direct_port_count": {"eq": 0}}, lambda o: o["direct_port_count"] == 0),
        ({"verified": {"eq": False}}, lambda o: o["verification"] in ("unverified", "deverified")),
        ({"verification": {"eq": "deverified"}, **ANY}, lambda o: o["verification"] == "deverified"),
    ],
)
def test_filters_and_aliases(sandbox: SandboxProcess, wanted: dict[str, Any], holds: Any) -> None:
    offers = search(sandbox, **wanted)
    assert offers != []
    assert [offer["id"] for offer in offers if not holds(offer)] == []


def test_id_matches_nothing_but_ask_contract_id_does(sandbox: SandboxProcess) -> None:
    offer = search(sandbox, limit=1)[0]
    assert search(sandbox, id={"eq": offer["id"]}) == []
    assert [o["id"] for o in search(sandbox, ask_contract_id={"eq": offer["id"]})] == [offer["id"]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"gpu_color": {"eq": "red"}}, "gpu_color is not a valid search key"),
        ({"num_gpus": {"above": 1}}, "above is not a valid search op"),
        ({"num_gpus": 0}, "0 is not a valid search op"),
        ("{broken", "Invalid json body"),
        ([1], "Invalid json body"),
    ],
)
def test_what_cannot_be_read_is_400_without_success(sandbox: SandboxProcess, body: Any, message: str) -> None:
    status, answer = sandbox.api("POST", "/api/v0/bundles/", body)
    assert (status, answer) == (400, {"error": "invalid_request", "msg": message})


def test_the_price_includes_the_storage_of_the_query(sandbox: SandboxProcess) -> None:
    offer = search(sandbox, limit=1)[0]
    only = {"ask_contract_id": {"eq": offer["id"]}}
    big = search(sandbox, allocated_storage=720, **only)[0]
    assert offer["dph_total"] == pytest.approx(offer["dph_base"] + 8 * offer["storage_cost"] / 720)
    assert big["dph_total"] == pytest.approx(offer["dph_base"] + offer["storage_cost"])
    assert big["search"]["diskHour"] == pytest.approx(offer["storage_cost"])


@pytest.mark.parametrize("kind", ["on-demand", "ondemand", "reserved"])
def test_types_of_offers(sandbox: SandboxProcess, kind: str) -> None:
    offer = search(sandbox, type=kind, limit=1)[0]
    assert offer["is_bid"] is False
    bid = search(sandbox, type="bid", ask_contract_id={"eq": offer["id"]})[0]
    assert bid["is_bid"] is True
    assert bid["dph_total"] == pytest.approx(offer["min_bid"] + offer["storage_total_cost"])


def test_order_both_ways(sandbox: SandboxProcess) -> None:
    up = [offer["dph_total"] for offer in search(sandbox, order=[["dph_total", "asc"]])]
    down = [offer["dph_total"] for offer in search(sandbox, order=[["dph_total", "desc"]])]
    score = [offer["score"] for offer in search(sandbox)]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert score == sorted(score, reverse=True)


def test_a_taken_slice_deals_its_machine_anew_and_again_after_the_destroy(sandbox: SandboxProcess) -> None:
    whole = search(sandbox, num_gpus={"gte": 4}, gpu_frac={"eq": 1.0}, limit=1)[0]
    machine = {"machine_id": {"eq": whole["machine_id"]}}
    before = {offer["id"]: offer["num_gpus"] for offer in search(sandbox, **machine)}
    half = next((id_ for id_, gpus in before.items() if gpus == whole["num_gpus"] // 2), whole["id"])
    _, answer = create(sandbox, half)
    during = {offer["id"]: offer["num_gpus"] for offer in search(sandbox, **machine)}
    assert set(during).isdisjoint(before)
    assert max(during.values(), default=0) <= whole["num_gpus"] - before[half]
    sandbox.api("DELETE", f"/api/v0/instances/{answer['new_contract']}/", {})
    after = {offer["id"]: offer["num_gpus"] for offer in search(sandbox, **machine)}
    assert set(after).isdisjoint(before | during)
    assert sorted(after.values()) == sorted(before.values())


def test_background_churn_changes_the_market_when_switched_on(sandbox: SandboxProcess) -> None:
    ids = {offer["id"] for offer in everything(sandbox)}
    sandbox.advance(600)
    assert {offer["id"] for offer in everything(sandbox)} == ids
    sandbox.settings(churn_seconds=60)
    sandbox.advance(60)
    assert {offer["id"] for offer in everything(sandbox, **ANY)} - ids != set()


def test_names_of_gpus(sandbox: SandboxProcess) -> None:
    status, answer = sandbox.api("GET", "/api/v0/gpu_names/unique/")
    assert status == 200
    assert {"RTX 4090", "H100 SXM", "A100 PCIE", "RTX 6000Ada"} <= set(answer["gpu_names"])
