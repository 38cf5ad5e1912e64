"""What it costs: everything while a GPU is held, running or not (TensorDock contract, section 8)."""

from __future__ import annotations

import pytest

from tests.providers.sandbox.tensordock.helpers import (
    CHUBBUCK,
    RTX_3090,
    RTX_4090,
    create,
    gpu_row,
    listed,
    look,
    rent,
    running,
)
from tests.sandbox import TensorDockSandbox

HOUR = 3600.0
#: Seconds that a boot and the test itself may take.
SLACK = 120.0


def costs(dock: TensorDockSandbox) -> tuple[float, float]:
    contract = dock.ledger()[0]
    return float(contract["gpu_dollars"]), float(contract["disk_dollars"])


def hours(count: float) -> object:
    """So many hours of the usual machine: GPU with processors and memory, and disk."""
    slack = SLACK / HOUR
    return pytest.approx((0.4846 * count, 0.005 * count), abs=0.4846 * slack)


def test_the_bill_begins_with_the_order(dock: TensorDockSandbox) -> None:
    dock.settings(boot_seconds=2 * HOUR)
    machine = rent(dock)
    dock.advance(HOUR)
    assert look(dock, machine)["status"] == "creating"
    assert costs(dock) == hours(1)


def test_a_boot_that_never_ends_is_billed(dock: TensorDockSandbox) -> None:
    dock.fault("boot_never")
    rent(dock)
    dock.advance(HOUR)
    assert costs(dock) == hours(1)


def test_stopped_is_billed_in_full(dock: TensorDockSandbox) -> None:
    machine = running(dock)["id"]
    dock.api("POST", f"/instances/{machine}/stop")
    dock.advance(HOUR)
    assert costs(dock) == hours(1)
    assert look(dock, machine)["rateHourly"] == 0.4896
    assert gpu_row(dock)["max_count"] == 4
    dock.api("POST", f"/instances/{machine}/start")
    dock.advance(HOUR)
    assert costs(dock) == hours(2)


def test_without_its_gpu_only_the_disk_is_billed(dock: TensorDockSandbox) -> None:
    machine = running(dock)["id"]
    dock.advance(HOUR)
    dock.admin("POST", f"instances/{machine}/interrupt")
    dock.advance(9 * HOUR)
    gpu, disk = costs(dock)
    assert gpu == pytest.approx(0.4846, abs=0.02)
    assert disk == pytest.approx(0.05, abs=0.001)
    assert look(dock, machine)["rateHourly"] == 0.005


def test_a_machine_that_grew_costs_more_from_then_on(dock: TensorDockSandbox) -> None:
    machine = running(dock)["id"]
    dock.api("POST", f"/instances/{machine}/stop")
    dock.advance(HOUR)
    dock.api("PUT", f"/instances/{machine}/modify", {"cpuCores": 16, "diskGb": 200})
    dock.advance(HOUR)
    gpu, disk = costs(dock)
    assert gpu == pytest.approx(0.4846 + 0.5086, abs=0.03)
    assert disk == pytest.approx(0.015, abs=0.001)


def test_a_delete_is_billed_until_its_end(dock: TensorDockSandbox) -> None:
    dock.settings(delete_seconds=HOUR)
    machine = running(dock)["id"]
    dock.api("DELETE", f"/instances/{machine}")
    dock.advance(2 * HOUR)
    assert costs(dock) == hours(1)
    assert dock.ledger()[0]["alive"] is False


def test_an_empty_account_loses_its_gpus_and_after_four_days_its_machines(dock: TensorDockSandbox) -> None:
    first, second = running(dock)["id"], running(dock, resources={"gpus": {RTX_4090: {"count": 2}}})["id"]
    dock.api("POST", f"/instances/{second}/stop")
    dock.credit(0.001)
    dock.advance(HOUR)
    assert [row["status"] for row in listed(dock)] == ["stoppeddisassociated"] * 2
    assert {row["id"] for row in listed(dock)} == {first, second}
    dock.advance(90 * HOUR)
    assert len(listed(dock)) == 2
    dock.advance(10 * HOUR)
    assert listed(dock) == []
    assert dock.alive() == []


def test_prices_differ_by_place(dock: TensorDockSandbox) -> None:
    singapore = next(
        place for place in dock.api("GET", "/locations")[1]["data"]["locations"] if place["city"] == "Singapore"
    )
    rent(dock, location_id=singapore["id"])
    rent(dock, location_id=CHUBBUCK, resources={"gpus": {RTX_3090: {"count": 2}}})
    rates = [(contract["gpu_rate"], contract["disk_rate"]) for contract in dock.ledger()]
    assert rates == [(0.592, 0.01), (0.488, 0.005)]


def test_each_account_pays_for_itself(dock: TensorDockSandbox) -> None:
    create(dock)
    dock.advance(HOUR)
    accounts = {account["api_key"]: account for account in dock.admin("GET", "health")["accounts"]}
    assert {account["vendor"] for account in accounts.values()} == {"vastai", "tensordock"}
    assert accounts["other-token"]["credit"] == accounts["sandbox-key"]["credit"] == 100
    assert accounts["dock-token"]["credit"] == pytest.approx(99.5104, abs=0.02)
