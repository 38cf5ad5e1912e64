"""What is on sale: hostnodes at locations, and what of each is free (TensorDock contract, sections 4 and 5)."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, field
from uuid import NAMESPACE_URL, uuid5

from providers.sandbox.engine import Engine
from providers.sandbox.instances import Contract
from providers.sandbox.ports import FIRST, LAST
from providers.sandbox.tensordock.errors import NO_ADDRESS, NO_NODES, NODE_GONE, RATIO
from providers.sandbox.tensordock.gpus import MODELS, Model
from providers.sandbox.tensordock.places import PLACES, Place, Row

#: Hostnodes are machines of the ledger from this number on, far above those of other faces.
FIRST_NODE = 900_001
#: A port that was let go a minute ago counts as taken still, so there are more than a test file uses up meanwhile.
PORTS_PER_NODE = 48
#: A virtual machine may have so many times its GPUs' even share of the host's memory and processors.
SHARE_LIMIT = 2
#: Machines with an address of their own are here; 127.0.0.0/8 is all loopback on Linux.
ADDRESSES = "127.77"
_TAKEN = "tensordock_taken"
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Hostnode:
    """One host. All its GPUs are of one model."""

    id: str
    number: int
    place: Place
    row: Row
    gpus: int
    ports: tuple[int, ...]

    @property
    def model(self) -> Model:
        return MODELS[self.row.v0]

    @property
    def vcpus(self) -> int:
        return self.model.vcpus * self.gpus

    @property
    def ram_gb(self) -> float:
        return self.model.ram_gb * self.gpus

    @property
    def storage_gb(self) -> float:
        return 1800.5 * self.gpus + 900


@dataclass(frozen=True, slots=True)
class Free:
    """What of a hostnode nobody has."""

    gpus: int
    vcpus: int
    ram_gb: float
    storage_gb: float
    addresses: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a create asks for, checked."""

    name: str
    image: str
    vcpus: int
    ram_gb: int
    storage_gb: int
    v0: str
    gpus: int
    location_id: str = ""
    hostnode_id: str = ""
    dedicated: bool = False
    #: inside port, outside port (0: any)
    forwards: list[tuple[int, int]] = field(default_factory=list)
    ssh_key: str = ""
    ssh_key_id: str = ""
    cloud_init: dict[str, object] = field(default_factory=dict)


class NoRoom(Exception):
    """Nothing suits; the text is the vendor's."""


class Stock:
    """The hostnodes. What is rented stands in the ledger; what other people took is kept there too."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.nodes = _build()
        self._by_id = {node.id: node for node in self.nodes}
        self._taken: dict[str, int] = json.loads(engine.ledger.get_meta(_TAKEN) or "{}")
        self.has_addresses = self._can_bind_addresses()

    def reset(self) -> None:
        self._taken.clear()
        self._engine.ledger.set_meta(_TAKEN, "{}")

    def _can_bind_addresses(self) -> bool:
        """Not on every system, not for every user, and of use on this machine only."""
        ports, port, probe = self._engine.ports, self._engine.options.dedicated_port, f"{ADDRESSES}.255.254"
        can = bool(port) and ports.host.startswith("127.") and ports.hold(port, probe)
        ports.release(port, probe)
        return can

    # -- looking -------------------------------------------------------------------------------------

    def node(self, node_id: str) -> Hostnode | None:
        return self._by_id.get(node_id)

    def numbered(self, number: int) -> Hostnode:
        return self.nodes[number - FIRST_NODE]

    def free(self, node: Hostnode, without: Contract | None = None) -> Free:
        """What is left on a host, as if the contract ``without`` were not there."""
        live = self._engine.ledger.live.values()
        here = [c for c in live if c.machine_id == node.number and c is not without]
        holding = [c for c in here if c.holds_gpus]
        gpus = node.gpus - sum(c.num_gpus for c in holding) - self._taken.get(node.id, 0)
        return Free(
            gpus=max(0, gpus),
            vcpus=node.vcpus - sum(c.details["vcpus"] for c in holding),
            ram_gb=node.ram_gb - sum(c.details["ram_gb"] for c in holding),
            storage_gb=node.storage_gb - sum(c.disk for c in here),
            addresses=(node.place.addresses if self.has_addresses else 0) - sum(bool(c.address) for c in here),
        )

    def open_ports(self, node: Hostnode) -> list[int]:
        return [port for port in node.ports if self._engine.ports.is_free(port)]

    # -- placing -------------------------------------------------------------------------------------

    def find(self, wanted: Wanted) -> Hostnode:
        """The host that takes it: the one named, else the fullest of the location that has room."""
        if wanted.hostnode_id:
            node = self._by_id.get(wanted.hostnode_id)
            if node is None or (wanted.gpus and node.row.v0 != wanted.v0):
                raise NoRoom(NODE_GONE)
            self._check(node, wanted, NODE_GONE)
            return node
        nodes = [n for n in self.nodes if n.place.id == wanted.location_id and n.row.v0 == wanted.v0]
        nodes.sort(key=lambda node: self.free(node).gpus)
        reason = NO_NODES
        for node in nodes:
            try:
                self._check(node, wanted, NO_NODES)
            except NoRoom as error:
                reason = reason if str(error) == NO_NODES else str(error)
            else:
                return node
        raise NoRoom(reason)

    def _check(self, node: Hostnode, wanted: Wanted, full: str) -> None:
        free = self.free(node)
        if free.gpus < wanted.gpus or free.vcpus < wanted.vcpus or free.storage_gb < wanted.storage_gb:
            raise NoRoom(full)
        if wanted.gpus and wanted.ram_gb > node.model.ram_gb * SHARE_LIMIT * wanted.gpus:
            raise NoRoom(RATIO)
        if free.ram_gb < wanted.ram_gb:
            raise NoRoom(full)
        if wanted.dedicated and free.addresses < 1:
            raise NoRoom(NO_ADDRESS)

    # -- other people ----------------------------------------------------------------------------------

    def take(self, offer: str) -> bool:
        """Somebody else rents all that is free of it: a location's or hostnode's id, and a GPU name if one follows."""
        found = _ID.search(offer)
        named = found.group() if found else ""
        taken = False
        for node in self.nodes:
            if named not in (node.id, node.place.id) or not _means(node, offer):
                continue
            free = self.free(node).gpus
            self._taken[node.id] = self._taken.get(node.id, 0) + free
            taken = taken or free > 0
        self._engine.ledger.set_meta(_TAKEN, json.dumps(self._taken))
        return taken


def _means(node: Hostnode, offer: str) -> bool:
    """Whether the GPU that the offer names, if any, is this host's."""
    names = [v0 for v0 in MODELS if v0 in offer]
    return not names or node.row.v0 in names


def _build() -> list[Hostnode]:
    """The same hosts in every sandbox; only their free ports differ, as sandboxes share one machine."""
    places = [(place, row, gpus) for place in PLACES for row in place.rows for gpus in row.nodes]
    ports = random.sample(range(FIRST, LAST), PORTS_PER_NODE * len(places))
    return [
        Hostnode(
            id=str(uuid5(NAMESPACE_URL, f"tensordock:hostnode:{index}")),
            number=FIRST_NODE + index,
            place=place,
            row=row,
            gpus=gpus,
            ports=tuple(sorted(ports[index * PORTS_PER_NODE : (index + 1) * PORTS_PER_NODE])),
        )
        for index, (place, row, gpus) in enumerate(places)
    ]
