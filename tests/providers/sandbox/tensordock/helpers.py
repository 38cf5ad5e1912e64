"""What most tests of the TensorDock face do: write an order, rent, wait, look."""

from __future__ import annotations

from typing import Any

from tests.providers.sandbox.helpers import KeyPair
from tests.sandbox import TensorDockSandbox

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl first@test"
SECOND_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNrGi3fOH2gvuZ7KzPS3Yt4u0r0VZQ8v3mC5dXkT9pQ second@test"
CHUBBUCK = "8dd95ff0-6f5e-4f3b-9f0e-5c1c0b8f7a11"
RTX_4090, RTX_3090 = "geforcertx4090-pcie-24gb", "geforcertx3090-pcie-24gb"
SSH_FORWARD = {"internal_port": 22, "external_port": 22}


def order(name: str = "test", **changes: Any) -> dict[str, Any]:
    """One RTX 4090 in Chubbuck with 8 vCPUs, 32 GB and 100 GB. A change to None leaves the attribute out."""
    resources = {"vcpu_count": 8, "ram_gb": 32, "storage_gb": 100, "gpus": {RTX_4090: {"count": 1}}}
    attributes: dict[str, Any] = {
        "name": name,
        "type": "virtualmachine",
        "image": "ubuntu2404",
        "resources": {**resources, **changes.pop("resources", {})},
        "location_id": CHUBBUCK,
        "port_forwards": [SSH_FORWARD],
        "ssh_key": KEY,
        **changes,
    }
    kept = {key: value for key, value in attributes.items() if value is not None}
    return {"data": {"type": "virtualmachine", "attributes": kept}}


def create(dock: TensorDockSandbox, name: str = "test", **changes: Any) -> tuple[int, Any]:
    return dock.api("POST", "/instances", order(name, **changes))


def rent(dock: TensorDockSandbox, name: str = "test", **changes: Any) -> str:
    """The id of a new machine."""
    status, answer = create(dock, name, **changes)
    assert status == 200, answer
    return str(answer["data"]["id"])


def look(dock: TensorDockSandbox, machine: str) -> dict[str, Any]:
    status, answer = dock.api("GET", f"/instances/{machine}")
    assert status == 200, answer
    found: dict[str, Any] = answer
    return found


def listed(dock: TensorDockSandbox) -> list[dict[str, Any]]:
    status, answer = dock.api("GET", "/instances")
    assert status == 200, answer
    rows: list[dict[str, Any]] = answer["data"]
    return rows


def boot(dock: TensorDockSandbox) -> None:
    dock.advance(30)


def running(dock: TensorDockSandbox, name: str = "test", **changes: Any) -> dict[str, Any]:
    machine = rent(dock, name, **changes)
    boot(dock)
    found = look(dock, machine)
    assert found["status"] == "running"
    return found


def hostnode_of(dock: TensorDockSandbox, v0: str = RTX_4090, location: str = CHUBBUCK) -> dict[str, Any]:
    status, answer = dock.api("GET", "/hostnodes")
    assert status == 200, answer
    rows: list[dict[str, Any]] = answer["data"]["hostnodes"]
    return next(
        row for row in rows if row["location_id"] == location and row["available_resources"]["gpus"][0]["v0Name"] == v0
    )


def gpu_row(dock: TensorDockSandbox, v0: str = RTX_4090, location: str = CHUBBUCK) -> dict[str, Any]:
    """A location's row of a GPU; empty where it has none on sale."""
    _, answer = dock.api("GET", "/locations")
    place = next(place for place in answer["data"]["locations"] if place["id"] == location)
    return next((gpu for gpu in place["gpus"] if gpu["v0Name"] == v0), {})


def ssh_port(detail: dict[str, Any]) -> int:
    return next(int(row["external_port"]) for row in detail["portForwards"] if row["internal_port"] == 22)


def with_key(keypair: KeyPair) -> dict[str, Any]:
    return {"ssh_key": keypair.public}
