"""A client on a faked wire, and rows as the vendor writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import responses

from providers.errors import ProviderError
from providers.http import HTTPClient
from providers.vastai import NativeTransport, OfferSearch, VastAI
from tests.providers.wire import RecordingGate, RecordingObserver

BASE = "https://console.vast.ai"
KEY = "0a1b2c3d" * 8
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class Vendor:
    """The client under test, and what was sent and observed."""

    def __init__(self, wire: responses.RequestsMock) -> None:
        self.wire = wire
        self.gate = RecordingGate()
        self.observer = RecordingObserver()
        self.client = self.build()

    def build(self, **search: Any) -> VastAI:
        http = HTTPClient("vastai", BASE, KEY, self.gate, self.observer, FixedClock())
        return VastAI(NativeTransport(http), OfferSearch(**search))

    def answer(self, method: str, path: str, body: Any = None, status: int = 200) -> None:
        """Queue an answer for ``/api`` + path. Text goes out as it is, everything else as JSON."""
        form: dict[str, Any] = {"body": body} if isinstance(body, str | bytes | Exception) else {"json": body}
        self.wire.add(method, f"{BASE}/api{path}", status=status, **form)

    @property
    def sent(self) -> list[tuple[str, str, Any]]:
        """Method, path and JSON body of every request."""
        calls = [call.request for call in self.wire.calls]
        return [
            (str(each.method), str(each.path_url).partition("?")[0], json.loads(each.body) if each.body else None)
            for each in calls
        ]

    @property
    def params(self) -> list[dict[str, str]]:
        return [dict(call.request.params) for call in self.wire.calls]  # type: ignore[attr-defined]

    def refuses(self, kind: type[ProviderError], *args: Any, call: Any, **more: Any) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            call(*args, **more)
        assert type(caught.value) is kind, repr(caught.value)
        return caught.value


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with responses.RequestsMock(assert_all_requests_are_fired=True) as wire:
        yield Vendor(wire)


def offer_row(offer_id: int = 7_000_001, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": offer_id,
        "ask_contract_id": offer_id,
        "bundle_id": 1,
        "machine_id": 501,
        "host_id": 77,
        "hosting_type": 1,
        "rentable": True,
        "rented": False,
        "is_bid": False,
        "verification": "verified",
        "vericode": 1,
        "external": None,
        "gpu_name": "RTX 4090",
        "num_gpus": 2,
        "gpu_ram": 24564,
        "gpu_total_ram": 49128,
        "compute_cap": 890,
        "cuda_max_good": 12.4,
        "cpu_cores": 64,
        "cpu_cores_effective": 16.0,
        "cpu_ram": 262144,
        "disk_space": 812.5,
        "inet_up": 900.1,
        "inet_down": 1800.2,
        "geolocation": "Texas, US",
        "reliability": 0.991,
        "reliability2": 0.991,
        "duration": 864_000.0,
        "end_date": None,
        "dph_base": 0.8,
        "dph_total": 0.8022,
        "storage_cost": 0.2,
        "storage_total_cost": 0.0022,
        "min_bid": 0.31,
        "direct_port_count": 100,
    }
    return row | changes


def instance_row(instance_id: int = 9_000_001, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": instance_id,
        "machine_id": 501,
        "label": "gpb-prod-abcdefghijklmn27-1",
        "actual_status": "running",
        "cur_state": "running",
        "next_state": "running",
        "intended_status": "running",
        "status_msg": "success, running nvidia/cuda:12.4.1/ssh",
        "image_runtype": "ssh ssh_direc ssh_proxy",
        "ssh_host": "ssh5.vast.ai",
        "ssh_port": 31234,
        "public_ipaddr": "203.0.113.9\n",
        "ports": {"22/tcp": [{"HostIp": "198.51.100.7", "HostPort": "40022"}, {"HostIp": "::", "HostPort": "40022"}]},
        "start_date": 1_772_366_400.25,
        "end_date": 1_773_000_000.0,
        "gpu_name": "RTX 4090",
        "num_gpus": 2,
        "gpu_ram": 24564,
        "disk_space": 50.0,
        "dph_base": 0.8,
        "dph_total": 0.8138888,
        "storage_cost": 0.2,
        "storage_total_cost": 0.0138888,
    }
    return row | changes


def listing(rows: list[Any], total: int | None = None, token: Any = None, **changes: Any) -> dict[str, Any]:
    page: dict[str, Any] = {
        "success": True,
        "instances_found": len(rows),
        "total_instances": len(rows) if total is None else total,
        "next_token": token,
        "instances": rows,
    }
    return page | changes
