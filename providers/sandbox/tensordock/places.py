"""Where the hosts are, and what each has (TensorDock contract, section 4.1: odd names are as they were seen)."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import NAMESPACE_URL, uuid5


@dataclass(frozen=True, slots=True)
class Row:
    """One GPU model of a place: dollars per GPU and hour, and the GPUs of each hostnode."""

    v0: str
    price: float
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A location. ``tier`` 0: people's homes; 3 and 4: data centres. Unit prices are dollars per hour."""

    id: str
    city: str
    state: str
    country: str
    tier: int
    organization: str
    rows: tuple[Row, ...]
    per_vcpu: float = 0.003
    per_ram_gb: float = 0.002
    per_storage_gb: float = 0.00005
    #: Public addresses on each of its hostnodes.
    addresses: int = 0
    network_storage: bool = False


_US = "United States"
_SEEN = {
    "Chubbuck": "8dd95ff0-6f5e-4f3b-9f0e-5c1c0b8f7a11",
    "Joplin": "071132ae-8c07-4d6b-9c37-041a55a85047",
    "Frankfurt": "64d4a7fe-5953-426d-bc73-3b7a13463fb0",
}


def _at(
    city: str,
    state: str,
    country: str,
    tier: int,
    *rows: tuple[str, float, tuple[int, ...]],
    units: tuple[float, float, float] = (0.003, 0.002, 0.00005),
    addresses: int = 0,
    storage: bool = False,
) -> Place:
    place_id = _SEEN.get(city) or str(uuid5(NAMESPACE_URL, f"tensordock:{city},{state},{country}"))
    owner = f"{city} Compute" if tier < 3 else f"{city} Data Centers"
    made = tuple(Row(*row) for row in rows)
    return Place(
        place_id, city, state, country, tier, owner, made, *units, addresses=addresses, network_storage=storage
    )


_4090, _3090, _5090 = "geforcertx4090-pcie-24gb", "geforcertx3090-pcie-24gb", "geforcertx5090-pcie-32gb"
_A4000, _A5000, _A6000 = "rtxa4000-pcie-16gb", "rtxa5000-pcie-24gb", "rtxa6000-pcie-48gb"
_H100, _H100P, _A100, _A100P = "h100-sxm5-80gb", "h100-pcie-80gb", "a100-sxm4-80gb", "a100-pcie-80gb"
_L40S, _L40, _L4, _A40, _V100 = "l40s-pcie-48gb", "l40-pcie-48gb", "l4-pcie-24gb", "a40-pcie-48gb", "v100-sxm2-16gb"
_ADA6, _ADA5, _A100S = "rtx6000ada-pcie-48gb", "rtx5000ada-pcie-32gb", "a100-pcie-40gb"
_DEAR = (0.004, 0.0025, 0.0001)

PLACES: tuple[Place, ...] = (
    _at("Chubbuck", "Idaho", _US, 1, (_4090, 0.3966, (4, 4)), (_3090, 0.2, (2,)), addresses=1),
    _at("Joplin", "Missouri", _US, 1, (_A4000, 0.105, (4,)), (_A6000, 0.4, (2, 4)), addresses=2),
    _at("Manassas", "Virginia", _US, 3, (_H100, 2.25, (8, 8)), (_L40S, 0.79, (8,)), addresses=4, storage=True),
    _at("Wilmington", "Delaware", _US, 2, (_4090, 0.377, (8,)), (_A5000, 0.24, (4,)), addresses=1),
    _at("Texas", "Texas", _US, 0, (_3090, 0.21, (1, 2)), (_4090, 0.44, (1,))),
    _at("Dallas", "Texas", _US, 3, (_H100P, 1.99, (4, 8)), (_A100P, 1.12, (4,)), (_L40, 0.72, (4,)), addresses=3),
    _at("Orlando", "Florida", _US, 2, (_5090, 0.54, (4, 8)), (_4090, 0.41, (4,)), addresses=1),
    _at("Las Vegas", "Nevada", _US, 2, (_A100S, 0.68, (2, 4)), (_V100, 0.19, (8,)), (_3090, 0.225, (4,))),
    _at("San Jose", "California", _US, 4, (_H100, 2.49, (8,)), (_A100, 1.45, (8,)), units=_DEAR, addresses=4),
    _at("Ashburn", "Virginia", _US, 4, (_L40S, 0.86, (4, 8)), (_ADA6, 0.75, (4,)), addresses=4, storage=True),
    _at("Kansas City", "Missouri", _US, 1, (_A6000, 0.42, (4,)), (_ADA5, 0.48, (2,))),
    _at("New York City", "New York", _US, 2, (_A4000, 0.11, (8,)), (_5090, 0.57, (2,)), units=_DEAR, addresses=1),
    _at("Chicago", "Illinois", _US, 3, (_A40, 0.385, (8,)), (_A100P, 1.05, (8,)), addresses=2),
    _at("Delaware", "Wilmington", _US, 0, (_3090, 0.2, (1,))),
    _at("Montreal", "Quebec", "Canada", 3, (_A100, 1.35, (8,)), (_L4, 0.31, (8,)), addresses=3),
    _at("Toronto", "Ontario", "Canada", 1, (_4090, 0.42, (2, 4))),
    _at("Frankfurt", "Hesse", "Germany", 3, (_L4, 0.225, (4, 8)), (_H100, 2.35, (8,)), addresses=2, storage=True),
    _at("Amsterdam", "North Holland", "Netherlands", 4, (_ADA6, 0.78, (4, 4)), (_L40S, 0.88, (4,)), addresses=4),
    _at("London", "England", "United Kingdom", 3, (_A100P, 1.2, (4,)), (_A5000, 0.27, (4,)), units=_DEAR, addresses=2),
    _at("Paris", "Île-de-France", "France", 2, (_V100, 0.21, (4,)), (_4090, 0.45, (4,)), addresses=1),
    _at("Stockholm", "Stockholm", "Sweden", 1, (_5090, 0.55, (1, 2)), (_A6000, 0.43, (4,))),
    _at("Mumbai", "Maharashtra", "India", 2, (_L4, 0.29, (4,)), (_A40, 0.41, (4,)), addresses=1),
    _at("Singapore", "", "Singapore", 3, (_H100P, 2.3, (4,)), (_4090, 0.48, (4,)), units=_DEAR, addresses=2),
    _at("Tokyo", "Tokyo", "Japan", 0, (_3090, 0.24, (1,))),
)
