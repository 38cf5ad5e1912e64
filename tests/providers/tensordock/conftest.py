"""A client on a faked wire, and rows as the vendor writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import responses

from providers.base import LaunchOrder
from providers.errors import ProviderError
from providers.http import HTTPClient
from providers.tensordock import TensorDock, Wire
from tests.providers.wire import RecordingGate, RecordingObserver
from tests.sandbox import TensorDockSandbox

BASE = "https://dashboard.tensordock.com/api/v2"
TOKEN = "tdtoken0123456789abcdef"
AUTH_ID = "0f0e0d0c-1111-2222-3333-444455556666"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LABEL = "gpb-prod-abcdefghijklmn27-1"
GPU = "geforcertx4090-pcie-24gb"
PLACE = "8dd95ff0-6f5e-4f3b-9f0e-5c1c0b8f7a11"
NODE = "3f2b8c1e-0d9a-4c55-8a77-b1f0c9d2e3a4"
VM = "5b0c7a52-9a0e-4a6b-9a53-0d5b6c1f2e3d"
OTHER_VM = "6c1d8b63-0b1f-4b7c-8b64-1e6c7d2f3e4c"
BOTH = f"loc.{PLACE}.{GPU}.1x.8c.32g.dp"
PORTS_ONLY = f"loc.{PLACE}.{GPU}.1x.8c.32g.p"
ON_HOST = f"host.{NODE}.{GPU}.2x.16c.64g"
KEY_ONE = "ssh-rsa " + "AAAAB3NzaC1yc2EAAAADAQABAAABgQ" + "c" * 40 + "=="
KEY_TWO = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
MISSING = {"error": "Virtual machine instance not found"}


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return self.seconds


class Vendor:
    """The client under test, and what was sent and observed."""

    def __init__(self, wire: responses.RequestsMock) -> None:
        self.wire = wire
        self.gate = RecordingGate()
        self.observer = RecordingObserver()
        self.clock = HandClock()
        self.client = self.build()

    def build(self, image: str = "ubuntu2404") -> TensorDock:
        http = HTTPClient("tensordock", BASE, TOKEN, self.gate, self.observer, self.clock, secrets=(AUTH_ID,))
        return TensorDock(Wire(http, http, self.gate), image)

    def answer(self, method: str, path: str, body: Any = None, status: int = 200, **more: Any) -> None:
        """Queue an answer. Text goes out as it is, everything else as JSON."""
        form: dict[str, Any] = {"body": body} if isinstance(body, str | bytes | Exception) else {"json": body}
        self.wire.add(method, f"{BASE}{path}", status=status, **form, **more)

    def listed(self, *rows: dict[str, Any]) -> None:
        self.answer("GET", "/instances", {"data": list(rows)})

    @property
    def sent(self) -> list[tuple[str, str]]:
        calls = [call.request for call in self.wire.calls]
        return [(str(each.method), str(each.url).removeprefix(BASE)) for each in calls]

    @property
    def created(self) -> list[dict[str, Any]]:
        """The attributes of every create that was sent."""
        bodies = [json.loads(call.request.body or "null") for call in self.wire.calls if call.request.method == "POST"]
        return [body["data"]["attributes"] for body in bodies]

    @staticmethod
    def refuses(kind: type[ProviderError], call: Callable[..., Any], *args: Any) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            call(*args)
        assert type(caught.value) is kind, repr(caught.value)
        return caught.value


@pytest.fixture(scope="session")
def tensordock_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TensorDockSandbox]:
    """One marketplace for all tests of this folder, seen from TensorDock's side."""
    with TensorDockSandbox(tmp_path_factory.mktemp("tensordock"), credit=1000, offers=1) as process:
        yield process


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with responses.RequestsMock(assert_all_requests_are_fired=True) as wire:
        yield Vendor(wire)


def order(offer_id: str = BOTH, **changes: Any) -> LaunchOrder:
    plain: dict[str, Any] = {"image": "", "disk_gb": 120, "ssh_public_keys": (KEY_ONE, KEY_TWO)}
    return LaunchOrder(offer_id=offer_id, label=LABEL, **plain | changes)


def made(instance_id: str = VM, status: str = "creating") -> dict[str, Any]:
    return {"data": {"type": "virtualmachine", "id": instance_id, "name": LABEL, "status": status}}


def embedded(error: str, status: int = 400) -> dict[str, Any]:
    return {"status": status, "error": error}


def issue(code: str, message: str, *path: str) -> dict[str, Any]:
    return {"code": code, "message": message, "path": ["data", "attributes", *path]}


def gpu_row(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "v0Name": GPU,
        "displayName": "NVIDIA GeForce RTX 4090 PCIe 24GB",
        "max_count": 2,
        "price_per_hr": 0.3966,
        "resources": {"max_vcpus": 56, "max_ram_gb": 331, "max_storage_gb": 30200},
        "pricing": {"per_vcpu_hr": 0.003, "per_gb_ram_hr": 0.002, "per_gb_storage_hr": 0.00005},
        "network_features": {
            "dedicated_ip_available": True,
            "port_forwarding_available": True,
            "network_storage_available": False,
        },
    }
    return row | changes


def location(*gpus: Any, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": PLACE,
        "city": "Chubbuck",
        "stateprovince": "Idaho",
        "country": "United States",
        "tier": 1,
        "gpus": list(gpus) or [gpu_row()],
    }
    return row | changes


def hostnode(resources: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": NODE,
        "location_id": PLACE,
        "engine": "narwhal",
        "uptime_percentage": 99.87,
        "available_resources": {
            "gpus": [{"v0Name": GPU, "availableCount": 2, "price_per_hr": 0.3966}],
            "vcpu_count": 28.0,
            "ram_gb": 165.5,
            "storage_gb": 3000.25,
            "max_vcpus_per_gpu": 14,
            "max_ram_per_gpu": 82.75,
            "available_ports": [20456, 20457, 20458],
            "has_public_ip_available": True,
        }
        | (resources or {}),
        "pricing": {"per_vcpu_hr": 0.003, "per_gb_ram_hr": 0.002, "per_gb_storage_hr": 0.00005},
        "location": {
            "uuid": PLACE,
            "city": "Chubbuck",
            "stateprovince": "Idaho",
            "country": "United States",
            "network_speed_gbps": 1.5,
            "network_speed_upload_gbps": 0.75,
            "organization": "org-77",
            "tier": 3,
        },
    }
    return row | changes


def listed_row(instance_id: str = VM, name: str | None = LABEL, status: str = "running") -> dict[str, Any]:
    return {"id": instance_id, "name": name, "status": status}


def detail(instance_id: str = VM, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "type": "virtualmachine",
        "id": instance_id,
        "name": LABEL,
        "status": "running",
        "ipAddress": "174.94.145.71",
        "portForwards": [{"internal_port": 22, "external_port": 20456}],
        "resources": {
            "vcpu_count": 8,
            "ram_gb": 32,
            "storage_gb": 100,
            "gpus": {GPU: {"count": 1, "v0Name": GPU}},
        },
        "rateHourly": 0.4896,
    }
    return row | changes
