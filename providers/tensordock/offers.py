"""Locations and hostnodes into :class:`OfferData` (TensorDock contract, sections 4 and 8).

``price_per_hour`` of an offer is ``price_per_hr`` x GPUs + vCPUs x ``per_vcpu_hr`` + GB RAM x ``per_gb_ram_hr``: all
that runs except the disk, whose ``per_gb_storage_hr`` x 720 is ``storage_price_per_gb_month``. (The row's own price is
for one GPU alone, which under-quotes by a quarter.) The vCPUs and the RAM are those in the offer's id: see
:mod:`providers.tensordock.slices`. What a dedicated address costs, if anything, no source says; ``rateHourly`` will.

Hostnodes know their stock, so where they list a GPU, the location's own (older) row for it is not offered as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from providers import fields
from providers.base import OfferData
from providers.tensordock.slices import DEDICATED, FORWARDED, HOSTNODE, LOCATION, Room, Slice

#: The broker's month, 30 days; the vendor prices disks by the hour.
HOURS_PER_MONTH = 720
#: Nobody sells more in one machine.
MOST_GPUS = 16
#: Tiers 0 to 4: 0 is somebody's home, from 3 on it is a data centre (section 4.1).
_DATACENTRE_TIER = 3
_MB_PER_GB = 1024
_MBPS_PER_GBPS = 1_000
_PLACE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_GPU = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
_VRAM = re.compile(r"(?:^|[-_])([1-9][0-9]{0,3})gb$", re.IGNORECASE)


@dataclass
class Reading:
    """The offers in an answer, and how many rows could not be understood."""

    offers: list[OfferData] = field(default_factory=list)
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class _Prices:
    """Dollars an hour."""

    gpu: Decimal
    vcpu: Decimal
    ram_gb: Decimal
    storage_gb: Decimal

    def of(self, part: Slice) -> Decimal:
        return self.gpu * part.count + self.vcpu * part.vcpus + self.ram_gb * part.ram_gb


def read_offers(locations: Sequence[Any], hostnodes: Sequence[Any], provider: str) -> Reading:
    """Every slice of every place. Rows that lack what an offer cannot be without (a place, a GPU with its memory in its
    name, all four prices) are counted, not offered; those that nothing is free of are left out."""
    reading = Reading()
    covered: set[tuple[str, str]] = set()
    for row in hostnodes:
        _read_hostnode(row, provider, reading, covered)
    for row in locations:
        _read_location(row, provider, reading, covered)
    return reading


def _read_location(row: object, provider: str, reading: Reading, covered: set[tuple[str, str]]) -> None:
    place, gpus = _place(row, "id"), _gpus(row)
    if not isinstance(row, dict) or not place or gpus is None:
        reading.unreadable += 1
        return
    for gpu in gpus:
        name, prices, room = _gpu_name(gpu), _prices(gpu, gpu), _room(gpu)
        if not name or prices is None or room is None:
            reading.unreadable += 1
            continue
        networks = _networks(gpu)
        if (place, name) in covered or not networks:
            continue
        facts = {"placement": LOCATION, "location": _without(row, "gpus"), "gpu": gpu}
        common = _common(row, provider, facts)
        for part in _slices(LOCATION, place, name, room, networks):
            reading.offers.append(_offer(part, prices, room, {**common, "host_id": place}))


def _read_hostnode(row: object, provider: str, reading: Reading, covered: set[tuple[str, str]]) -> None:
    place = _place(row, "id")
    resources = row.get("available_resources") if isinstance(row, dict) else None
    gpus = _gpus(resources)
    if not isinstance(row, dict) or not isinstance(resources, dict) or not place or gpus is None:
        reading.unreadable += 1
        return
    told = row.get("location")
    location: dict[str, Any] = told if isinstance(told, dict) else {}
    at = _place(row, "location_id") or _place(location, "uuid")
    for gpu in gpus:
        name, prices = _gpu_name(gpu), _prices(gpu, row)
        if not name or prices is None:
            reading.unreadable += 1
            continue
        covered.add((at, name))
        room = hostnode_room(resources, gpu)
        facts = {"placement": HOSTNODE, "hostnode": {**row, "available_resources": _without(resources, "gpus")}}
        common = _common(location, provider, {**facts, "gpu": gpu})
        uptime = fields.number(row.get("uptime_percentage"))
        common |= {
            "machine_id": place,
            "host_id": fields.text(location.get("organization"), 64) or at,
            "reliability": uptime / 100 if uptime is not None and uptime <= 100 else None,
            "inet_down_mbps": _mbps(location.get("network_speed_gbps")),
            "inet_up_mbps": _mbps(location.get("network_speed_upload_gbps")),
        }
        for part in _slices(HOSTNODE, place, name, room, ""):
            reading.offers.append(_offer(part, prices, room, common))


def hostnode_room(resources: dict[str, Any], gpu: dict[str, Any]) -> Room:
    """What is free on a hostnode together with its free GPUs of one kind."""

    def number(*keys: str) -> float | None:
        told = [value for key in keys if (value := fields.number(resources.get(key))) is not None]
        return min(told) if told else None

    return Room(
        gpus=fields.count(gpu.get("availableCount")),
        vcpus=number("vcpu_count", "max_vcpus"),
        ram_gb=number("ram_gb", "max_ram_gb"),
        storage_gb=number("storage_gb", "max_storage_gb"),
        vcpus_per_gpu=number("max_vcpus_per_gpu"),
        ram_per_gpu=number("max_ram_per_gpu"),
    )


def _room(gpu: dict[str, Any]) -> Room | None:
    resources = gpu.get("resources")
    if not isinstance(resources, dict) or fields.number(gpu.get("max_count")) is None:
        return None
    return Room(
        gpus=fields.count(gpu.get("max_count")),
        vcpus=fields.number(resources.get("max_vcpus")),
        ram_gb=fields.number(resources.get("max_ram_gb")),
        storage_gb=fields.number(resources.get("max_storage_gb")),
    )


def _slices(placement: str, place: str, gpu: str, room: Room, networks: str) -> Iterator[Slice]:
    for count in range(1, min(room.gpus, MOST_GPUS) + 1):
        bundle = room.bundle(count, _vram_gb(gpu))
        if bundle is not None:
            part = Slice(placement, place, gpu, count, *bundle, networks)
            if part.is_nameable:
                yield part


def _offer(part: Slice, prices: _Prices, room: Room, common: dict[str, Any]) -> OfferData:
    return OfferData(
        provider_id=part.offer_id,
        gpu_name_raw=part.gpu,
        gpu_count=part.count,
        vram_mb=_vram_gb(part.gpu) * _MB_PER_GB,
        price_per_hour=prices.of(part),
        storage_price_per_gb_month=prices.storage_gb * HOURS_PER_MONTH,
        cpu_cores=float(part.vcpus),
        ram_gb=float(part.ram_gb),
        disk_gb=room.disk_gb(part.count),
        **common,
    )


def _common(place: dict[str, Any], provider: str, raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "provider": provider,
        "location": _where(place),
        "datacenter": (fields.number(place.get("tier")) or 0) >= _DATACENTRE_TIER,
        "raw": fields.json_safe(raw),
    }


def _where(place: dict[str, Any]) -> str:
    """``City, State, Country`` without what is said twice."""
    words = [fields.text(place.get(key), 60) for key in ("city", "stateprovince", "country")]
    return ", ".join(dict.fromkeys(word for word in words if word))


def _networks(gpu: dict[str, Any]) -> str:
    """An address of its own before forwarded ports, which some places accept and then drop (section 5)."""
    features = gpu.get("network_features")
    if not isinstance(features, dict):
        return FORWARDED
    dedicated = DEDICATED if features.get("dedicated_ip_available") is True else ""
    return dedicated + ("" if features.get("port_forwarding_available") is False else FORWARDED)


def _prices(gpu: dict[str, Any], priced: dict[str, Any]) -> _Prices | None:
    table = priced.get("pricing")
    if not isinstance(table, dict):
        return None
    each = fields.money(gpu.get("price_per_hr"))
    vcpu, ram, storage = (fields.money(table.get(f"per_{what}_hr")) for what in ("vcpu", "gb_ram", "gb_storage"))
    if not each or vcpu is None or ram is None or storage is None:
        return None
    return _Prices(each, vcpu, ram, storage)


def _gpu_name(gpu: dict[str, Any]) -> str:
    """``v0Name``, which names the GPU's memory as well; "" for one that does not."""
    name = fields.text(gpu.get("v0Name"), 100)
    return name if _GPU.fullmatch(name) and _VRAM.search(name) else ""


def _vram_gb(name: str) -> int:
    match = _VRAM.search(name)
    return int(match[1]) if match else 0


def _gpus(holder: object) -> list[dict[str, Any]] | None:
    gpus = holder.get("gpus") if isinstance(holder, dict) else None
    if not isinstance(gpus, list):
        return None
    return [gpu if isinstance(gpu, dict) else {} for gpu in gpus]


def _place(row: object, key: str) -> str:
    place = fields.text(row.get(key), 100) if isinstance(row, dict) else ""
    return place if _PLACE.fullmatch(place) else ""


def _mbps(gbps: object) -> float | None:
    speed = fields.number(gbps)
    return None if speed is None else speed * _MBPS_PER_GBPS


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}
