"""The columns that Vast.ai's server makes up for filters (contract, section 2.1), read from an offer's own row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from templates_app.values import number, same

#: (the row, when it was true) -> the column's value
Reader = Callable[[Mapping[str, Any], datetime], Any]


@dataclass(frozen=True, slots=True)
class Virtual:
    read: Reader
    #: Turns the filter's value into what ``read`` gives.
    wanted: Callable[[Any], Any] | None = None
    #: The vendor reads "equal" as "at least".
    at_least: bool = False


def plain(name: str) -> Reader:
    return lambda row, at: row.get(name)


def _first(*names: str) -> Reader:
    """The first of these columns that the row has."""
    return lambda row, at: next((row[name] for name in names if row.get(name) is not None), None)


def _thousands(*names: str) -> Reader:
    """A column of MB in GB; the vendor's factor is 1000."""
    read = _first(*names)

    def gigabytes(row: Mapping[str, Any], at: datetime) -> float | None:
        megabytes = number(read(row, at))
        return None if megabytes is None else megabytes / 1000

    return gigabytes


def _verified(row: Mapping[str, Any], at: datetime) -> bool | None:
    """``verification`` is the field to trust where it is told; the other two are its shadows."""
    word = row.get("verification")
    if isinstance(word, str):
        return word == "verified"
    told = [row[name] for name in ("verified", "vericode") if row.get(name) is not None]
    return any(same(value, True) for value in told) if told else None


def _datacenter(row: Mapping[str, Any], at: datetime) -> bool | None:
    kind = number(row.get("hosting_type"))
    return None if kind is None else kind == 1


def _duration(row: Mapping[str, Any], at: datetime) -> float | None:
    """Seconds that the machine can still be rented; from its end where that is told, else as it was listed."""
    ends_at = number(row.get("end_date"))
    return number(row.get("duration")) if ends_at is None else max(0.0, ends_at - at.timestamp())


def _country(place: Any) -> Any:
    """``Sweden, SE`` is SE; the code itself is itself."""
    return place.rpartition(",")[2].strip().upper() if isinstance(place, str) and place.strip() else None


def _wanted_country(place: Any) -> Any:
    return _country(place) if isinstance(place, str) else place


def _driver(version: Any) -> int | float | None:
    """``535.86.05`` as the vendor counts it: 535086005. A number that large is one already."""
    whole = number(version)
    if whole is not None and whole >= 1_000_000:
        return whole
    parts = str(version).strip().split(".") if isinstance(version, str | int | float) else []
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and len(part) <= 6 for part in parts):
        return None
    major, minor, patch = (*map(int, parts), 0, 0)[:3]
    return major * 1_000_000 + minor * 1_000 + patch


def _driver_of(row: Mapping[str, Any], at: datetime) -> int | float | None:
    counted = number(row.get("driver_vers"))
    return _driver(row.get("driver_version")) if counted is None else counted


def _wanted_driver(version: Any) -> Any:
    """A version that is none stays what it is, a text that no driver compares with."""
    counted = None if isinstance(version, bool) else _driver(version)
    return version if counted is None else counted


VIRTUAL: Mapping[str, Virtual] = {
    "verified": Virtual(_verified),
    "datacenter": Virtual(_datacenter),
    "duration": Virtual(_duration),
    "geolocation": Virtual(lambda row, at: _country(row.get("geolocation")), wanted=_wanted_country),
    "allocated_storage": Virtual(plain("disk_space"), at_least=True),
    "target_reliability": Virtual(_first("expected_reliability", "reliability", "reliability2"), at_least=True),
    "reliability": Virtual(_first("reliability", "reliability2")),
    "reliability2": Virtual(_first("reliability2", "reliability")),
    "dphtotal": Virtual(plain("dph_total")),
    "gpu_totalram": Virtual(_first("gpu_total_ram", "gpu_totalram")),
    "gpu_total_ram": Virtual(_first("gpu_total_ram", "gpu_totalram")),
    "ubuntu_version": Virtual(plain("os_version")),
    "cpu_ram_GB": Virtual(_thousands("cpu_ram")),
    "gpu_ram_GB": Virtual(_thousands("gpu_ram")),
    "gpu_totalram_GB": Virtual(_thousands("gpu_total_ram", "gpu_totalram")),
    "driver_version": Virtual(_driver_of, wanted=_wanted_driver),
}
