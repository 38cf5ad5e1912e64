"""The machines of the market, generated from a seed: the same seed and size give the same market."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from providers.sandbox.hardware import BOARDS, CPUS, DISKS, DRIVERS, MODELS, PLACES, GpuModel

MONTH_HOURS = 720.0
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Machine:
    """One host's computer with its prices. Prices are per GPU and hour, storage per GB and month."""

    id: int
    host_id: int
    model: GpuModel
    gpus: int
    #: Sizes of the slices that the host rents out, largest first.
    slices: tuple[int, ...]
    gpu_price: float
    bid_price: float
    storage_price: float
    datacenter: bool
    verification: str
    place: str | None
    #: Days from "now" until the host takes it back; None where the host does not say.
    days_left: float | None
    facts: dict[str, Any]

    @property
    def visible(self) -> bool:
        return self.verification == "verified"


def _slices(rng: random.Random, gpus: int) -> tuple[int, ...]:
    """Halves of the machine down to the smallest piece that its host lets go."""
    smallest = rng.choice([1, 1, 1, 2, gpus])
    found, size = [], gpus
    while size >= min(smallest, gpus):
        found.append(size)
        size //= 2
        if size == 0:
            break
    return tuple(found)


def _facts(rng: random.Random, model: GpuModel, gpus: int, datacenter: bool) -> dict[str, Any]:
    """What an offer row says of the machine beside its price."""
    newest = model.compute_cap >= 1000
    driver, cuda = rng.choice(DRIVERS[7:] if newest else DRIVERS)
    cpu, threads, ghz = rng.choice(CPUS)
    down = rng.choice([90.0, 240.0, 480.0, 820.0, 940.0, 2400.0, 5100.0, 8700.0]) * rng.uniform(0.85, 1.1)
    ports = rng.choice([0, 8, 20, 40, 99, 124, 249, 499, 999]) if not datacenter else rng.choice([99, 249, 999])
    traffic = rng.choice([0.0, 0.0, 0.001, 0.002, 0.003, 0.005, 0.012])
    lanes = rng.choice([8, 16, 16])
    return {
        "cpu_name": cpu,
        "cpu_cores": None if rng.random() < 0.06 else threads,
        "cpu_threads": threads,
        "cpu_ghz": ghz,
        "cpu_ram": rng.choice([32, 64, 128, 256, 512, 1024]) * 1008 * max(1, gpus // 4),
        "disk_space": round(rng.choice([180, 420, 860, 1700, 3400, 6800]) * rng.uniform(0.6, 1.1), 1),
        "disk_bw": round(rng.uniform(480, 7200), 1),
        "disk_name": rng.choice(DISKS),
        "mobo_name": rng.choice(BOARDS),
        "os_version": rng.choice(["20.04", "22.04", "22.04", "24.04"]),
        "driver_version": driver,
        "cuda_max_good": cuda,
        "inet_down": round(down, 1),
        "inet_up": round(down * rng.uniform(0.35, 1.0), 1),
        "inet_cost": traffic,
        "direct_port_count": ports,
        "static_ip": datacenter or rng.random() < 0.5,
        "pci_gen": 5.0 if newest else rng.choice([3.0, 4.0, 4.0]),
        "gpu_lanes": lanes,
        "pcie_bw": round(rng.uniform(5.5, 13.0) * lanes / 8, 1),
        "bw_nvlink": 300.0 if gpus > 1 and model.datacenter else 0.0,
        "reliability": round(min(0.9999, (0.985 if datacenter else 0.94) + rng.random() * 0.06), 7),
        "gpu_max_temp": rng.choice([83.0, 86.0, 90.0, 93.0]),
        "vms_enabled": datacenter and rng.random() < 0.4,
        "address": f"{rng.randint(23, 212)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}",
        "score_noise": rng.uniform(0.7, 1.3),
    }


def _machine(rng: random.Random, number: int, hosts: list[int]) -> Machine:
    model = rng.choices(MODELS, weights=[m.weight for m in MODELS])[0]
    gpus = rng.choice(model.sizes)
    datacenter = rng.random() < (0.55 if model.datacenter else 0.12)
    place = None if rng.random() < 0.03 else rng.choice(PLACES)
    price = rng.triangular(model.price_low, model.price_high, model.price_low * 1.2)
    verification = rng.choices(["verified", "unverified", "deverified"], weights=[78, 17, 5])[0]
    return Machine(
        id=1200 + number * 37 + rng.randint(0, 36),
        host_id=rng.choice(hosts),
        model=model,
        gpus=gpus,
        slices=_slices(rng, gpus),
        gpu_price=round(price, 4),
        bid_price=round(price * rng.uniform(0.35, 0.7), 4),
        storage_price=rng.choice([0.05, 0.08, 0.10, 0.13, 0.15, 0.20, 0.25, 0.33]),
        datacenter=datacenter,
        verification=verification,
        place=place,
        days_left=None if rng.random() < 0.04 else rng.choice([1.5, 4.0, 9.0, 21.0, 35.0, 62.0, 90.0, 180.0, 365.0]),
        facts=_facts(rng, model, gpus, datacenter),
    )


def machines(seed: int, offers: int) -> dict[int, Machine]:
    """Enough machines that ``offers`` of their slices are verified, by machine id."""
    rng = random.Random(seed)  # noqa: S311 - a repeatable market, not a secret
    hosts = [rng.randint(40_000, 420_000) for _ in range(60)]
    found: dict[int, Machine] = {}
    visible = 0
    while visible < offers:
        machine = _machine(rng, len(found), hosts)
        found[machine.id] = machine
        visible += len(machine.slices) if machine.visible else 0
    return found
