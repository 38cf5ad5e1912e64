"""A rentable slice and its id. TensorDock lists places with GPUs, not offers: what is rented of a place is our choice.

The choice is part of the id, so that exactly what was priced is what a create asks for, without keeping anything:
``loc.<location>.<gpu>.<count>x.<vCPUs>c.<RAM>g.<networks>`` or ``host.<hostnode>.<gpu>.<count>x.<vCPUs>c.<RAM>g``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LOCATION, HOSTNODE = "loc", "host"
#: Letters of the networks that a location offers: an address of its own, forwarded ports.
DEDICATED, FORWARDED = "d", "p"

#: What both generations of the vendor's documents accept (section 5); the greatest last.
RAM_GB = (16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 512)
VCPUS_PER_GPU = 8
_RAM_STEP = 16
_MOST_ID = 96

_ID = re.compile(
    r"(?P<placement>loc|host)\.(?P<place>[A-Za-z0-9_-]{1,64})\.(?P<gpu>[A-Za-z0-9][A-Za-z0-9._-]{0,60}?)"
    r"\.(?P<count>[1-9][0-9]{0,2})x\.(?P<vcpus>[1-9][0-9]{0,3})c\.(?P<ram>[1-9][0-9]{0,4})g(?:\.(?P<networks>dp|d|p))?"
)


@dataclass(frozen=True, slots=True)
class Slice:
    """``count`` GPUs of one kind at one place, with the vCPUs and the RAM (GB) that go along. ``networks`` is only
    for locations: a hostnode is asked at create, as it knows its free addresses and ports."""

    placement: str
    place: str
    gpu: str
    count: int
    vcpus: int
    ram_gb: int
    networks: str = ""

    @property
    def offer_id(self) -> str:
        parts = [self.placement, self.place, self.gpu, f"{self.count}x", f"{self.vcpus}c", f"{self.ram_gb}g"]
        return ".".join([*parts, self.networks] if self.networks else parts)

    @classmethod
    def of(cls, offer_id: str) -> Slice | None:
        """What an id says; ``None`` for one that is not of ours."""
        match = _ID.fullmatch(offer_id)
        if match is None or len(offer_id) > _MOST_ID or (match["placement"] == LOCATION) is not bool(match["networks"]):
            return None
        return cls(
            match["placement"], match["place"], match["gpu"], int(match["count"]), int(match["vcpus"]),
            int(match["ram"]), match["networks"] or "",
        )  # fmt: skip

    @property
    def is_nameable(self) -> bool:
        """Whether the id can be read back as it was written."""
        return Slice.of(self.offer_id) == self


@dataclass(frozen=True, slots=True)
class Room:
    """The most that a VM with ``gpus`` GPUs may have; ``None`` where the vendor does not say."""

    gpus: int
    vcpus: float | None
    ram_gb: float | None
    storage_gb: float | None
    vcpus_per_gpu: float | None = None
    ram_per_gpu: float | None = None

    def bundle(self, count: int, vram_gb: int) -> tuple[int, int] | None:
        """vCPUs (even) and RAM in GB for ``count`` of the GPUs: 8 vCPUs each and as much RAM as video memory, in steps
        of 16, or less where there is less. A part of the GPUs gets no more than that part of the rest: hosts do not
        sell all their RAM with some of their GPUs (section 11). ``None``: too little is left for a machine."""
        vcpus = _least(VCPUS_PER_GPU * count, _share(self.vcpus, count, self.gpus), _times(self.vcpus_per_gpu, count))
        wanted = -(-max(vram_gb, 1) // _RAM_STEP) * _RAM_STEP * count
        ram = _least(wanted, _share(self.ram_gb, count, self.gpus), _times(self.ram_per_gpu, count))
        sizes = [size for size in RAM_GB if size <= ram]
        vcpus -= vcpus % 2
        return (vcpus, sizes[-1]) if vcpus >= 2 and sizes else None

    def disk_gb(self, count: int) -> float | None:
        return _share(self.storage_gb, count, self.gpus)


def _share(most: float | None, count: int, gpus: int) -> float | None:
    return None if most is None else most * count / gpus


def _times(each: float | None, count: int) -> float | None:
    return None if each is None else each * count


def _least(wanted: int, *limits: float | None) -> int:
    return int(min([wanted, *(limit for limit in limits if limit is not None)]))
