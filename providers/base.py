"""What every GPU provider must offer the broker: plain dataclasses and one protocol.

No Django here. Money is ``Decimal`` US dollars, memory per GPU is MB as the vendor reports it,
disk is GB, times are aware UTC ``datetime``. A provider object is thread-safe and built from
explicit credentials by :mod:`providers.registry`; it keeps no state that matters.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

#: What :meth:`Provider.destroy` returns when the provider did not know the machine (any more).
ALREADY_GONE = "already gone"


@dataclass(frozen=True, slots=True)
class OfferData:
    """One rentable machine slice, as listed. ``price_per_hour`` is on-demand, without disk."""

    provider: str
    provider_id: str
    gpu_name_raw: str
    gpu_count: int
    vram_mb: int
    price_per_hour: Decimal
    storage_price_per_gb_month: Decimal
    location: str
    reliability: float | None = None
    max_duration_hours: float | None = None
    cuda_version: float | None = None
    compute_capability: str = ""
    cpu_cores: float | None = None
    ram_gb: float | None = None
    disk_gb: float | None = None
    inet_down_mbps: float | None = None
    inet_up_mbps: float | None = None
    verified: bool = False
    datacenter: bool = False
    #: Bids are taken on it, so it can be had interruptible too.
    interruptible: bool = False
    #: The least bid for the whole offer; vendors tell it of offers on which none are taken as well.
    min_bid_per_hour: Decimal | None = None
    machine_id: str = ""
    host_id: str = ""
    #: The vendor's own row: templates evaluate their ``extra_filters`` over it.
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OfferListing:
    """All offers of a provider at ``listed_at``. An incomplete one is never built: it is raised."""

    offers: tuple[OfferData, ...]
    listed_at: datetime


class Access(enum.StrEnum):
    """What a machine is launched with."""

    SSH = "ssh"
    #: The image's own entrypoint, and no SSH server.
    ENTRYPOINT = "entrypoint"


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """What to rent. ``label`` is unique per attempt and must be readable back (rule I1)."""

    offer_id: str
    label: str
    image: str
    disk_gb: int
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    onstart: str = ""
    args: tuple[str, ...] = ()
    template_id: str = ""
    #: How the machine is to be reached; without a wish as its template says, and by SSH where there is none.
    access: Access | None = None
    #: OpenSSH public keys the machine must accept. Providers that cannot take them at create
    #: get them through :meth:`Provider.attach_ssh_key` afterwards.
    ssh_public_keys: tuple[str, ...] = ()
    #: Dollars per hour; its presence asks for an interruptible machine.
    bid_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """The provider made a contract. ``accepted`` False: it exists (and may bill) but is not ours to use;
    the caller owes its destruction at once (contracts, section 3.2: low bid)."""

    instance_id: str
    accepted: bool = True
    note: str = ""


class Phase(enum.StrEnum):
    """What an instance is doing, over all vendors' vocabularies."""

    BOOTING = "booting"
    RUNNING = "running"
    STOPPED = "stopped"
    #: It will not become usable by itself: the image failed, the container exited, the host is lost.
    FAILED = "failed"
    #: The vendor does not know, or said a word that we do not.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SSHEndpoint:
    host: str
    port: int
    user: str
    #: "direct" or "proxy"
    kind: str = "direct"


@dataclass(frozen=True, slots=True)
class Instance:
    """One machine that the provider has on our account."""

    instance_id: str
    label: str
    phase: Phase
    status: str
    status_message: str
    #: In the order in which to try them; empty until the vendor tells.
    ssh_endpoints: tuple[SSHEndpoint, ...] = ()
    #: container port -> (host, outside port)
    ports: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    gpu_name: str = ""
    gpu_count: int = 0
    vram_mb: int = 0
    #: Actual rates, dollars per hour; None where the vendor does not say.
    gpu_price_per_hour: Decimal | None = None
    storage_price_per_hour: Decimal | None = None
    #: When the vendor's contract (and with it the disk's bill) began.
    created_at: datetime | None = None
    #: How long it has been running, where the vendor says.
    running_for: timedelta | None = None
    #: When the vendor ends it by itself.
    ends_at: datetime | None = None
    machine_id: str = ""
    #: Of an interruptible machine, where the vendor tells: the least bid that keeps (or wins) it now, dollars per hour.
    min_bid_per_hour: Decimal | None = None


@dataclass(frozen=True, slots=True)
class InstanceListing:
    """Every instance on the account (all pages) at ``listed_at``; incomplete ones are raised, not built."""

    instances: tuple[Instance, ...]
    listed_at: datetime


@dataclass(frozen=True, slots=True)
class TemplateData:
    """A provider's launch template."""

    provider_id: int
    hash_id: str
    name: str
    image: str
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Balance:
    """``credit``: dollars that can still be spent."""

    credit: Decimal
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class Capabilities:
    templates: bool = False
    interruptible: bool = False
    #: Stopping keeps the disk at disk price (so ``storage_policy: preserve`` makes sense).
    preserve_disk: bool = False
    attach_ssh_key: bool = False
    custom_image: bool = False
    #: Where ``custom_image`` is not: a regular expression of the provider's own images; empty takes any name.
    own_images: str = ""
    entrypoint: bool = False
    #: GB; less is rented, and billed, as this much.
    least_disk_gb: int = 0
    #: The GPU is billed from the order on, not from when the machine runs.
    bills_from_order: bool = False
    #: Most labels characters that survive the round trip.
    label_length: int = 60
    #: A running machine can be rebooted; its log can be read.
    reboot: bool = False
    logs: bool = False
    #: What an offer's ``price_per_hour`` pays for: of "gpu", "vcpu" and "ram". Disks have a price of their own.
    price_includes: tuple[str, ...] = ("gpu",)


class Gate(Protocol):
    """Spaces calls across all processes. ``interval`` is the vendor's published minimum, in seconds."""

    def acquire(self, key: str, interval: float, *, wait: float = 0.0) -> None:
        """Take the slot, waiting at most ``wait`` seconds, or raise :class:`GateHeld` (no slot taken)."""

    def push_out(self, key: str, seconds: float) -> None:
        """The vendor said 429: nobody calls ``key`` for this long."""


class GateHeld(Exception):
    """Raised by a :class:`Gate`; the HTTP wrapper turns it into ``GateClosed`` with provider and operation."""

    def __init__(self, retry_after: float, reason: str = "held back by our own gate", *, by: str = "pace") -> None:
        super().__init__(f"held for {retry_after:.3f} s")
        #: For metrics: the vendor's pace, the breaker, or the lanes.
        self.by = by
        self.retry_after = retry_after
        self.reason = reason


class Observer(Protocol):
    """Told of every call: for metrics. ``error`` is ``ProviderError.kind`` or an empty string."""

    def observe(self, provider: str, operation: str, seconds: float, error: str) -> None: ...


@runtime_checkable
class Provider(Protocol):
    """What the broker needs. Every method raises only :class:`providers.errors.ProviderError`."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def list_offers(self) -> OfferListing: ...

    def create(self, order: LaunchOrder) -> Created: ...

    def list_instances(self) -> InstanceListing: ...

    def find_by_label(self, label: str) -> Sequence[Instance]:
        """Instances whose label is exactly this, from a complete listing; an empty answer is evidence."""

    def get_instance(self, instance_id: str) -> Instance | None:
        """``None`` means that the provider says it does not have it: the proof of destruction."""

    def destroy(self, instance_id: str) -> str:
        """Ask for destruction; returns the vendor's answer in a few words, or :data:`ALREADY_GONE`: success too."""

    def attach_ssh_key(self, instance_id: str, public_key: str, *more: str) -> None:
        """Install one more key, or several; installing the same key twice is success. Where calls are spaced, those
        after the first wait for their slot, or an operation of two calls would never be done."""

    def list_templates(self) -> Sequence[TemplateData]: ...

    def balance(self) -> Balance: ...


@runtime_checkable
class RemovesKeys(Protocol):
    """A provider that can also take a key off a machine."""

    def remove_ssh_key(self, instance_id: str, public_key: str) -> bool:
        """``False``: the machine did not have it. Comments do not count."""


@runtime_checkable
class ShowsNewest(Protocol):
    """A provider whose complete listing takes many calls, and that shows its youngest machines in one."""

    def newest_instances(self) -> Sequence[Instance]:
        """Some of the youngest. No evidence that any other is not there."""


@runtime_checkable
class KeepsDisks(Protocol):
    """A provider that can stop a machine at the price of its disk alone (``Capabilities.preserve_disk``)."""

    def stop(self, instance_id: str) -> str:
        """Ask for the stop; returns the vendor's answer in a few words. Twice is success."""


#: Seconds for which the look for a lost create waits for its slot: beside listings that keep time with it, it would be
#: held for ever.
LOOK_WAIT = 2.0
#: Most machines that one call of :class:`DestroysMany` may name, at any provider.
MOST_TOGETHER = 64


@runtime_checkable
class DestroysMany(Protocol):
    """A provider that takes several destroys in one call."""

    def destroy_many(self, instance_ids: Sequence[str]) -> str:
        """Up to :data:`MOST_TOGETHER` ids; returns the vendor's answer in a few words. It does not tell the machines
        apart, so it is no evidence for any of them; a refusal may come after some were destroyed."""
