"""What only some providers have, beyond the protocol that all share: the account's keys, books, templates, machines.

The broker asks by type (``isinstance(provider, KeepsBooks)``); a provider that has one of these only on some of its
transports raises ``NotSupported`` there. As in :mod:`providers.base`: dollars are ``Decimal``, times aware UTC, and
every method raises only :class:`providers.errors.ProviderError`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

from providers.base import Instance


@dataclass(frozen=True, slots=True)
class SSHKey:
    """A public key that the account or an instance holds."""

    key_id: str
    public_key: str


@dataclass(frozen=True, slots=True)
class ChargeItem:
    """A part of a charge: ``gpu``, ``disk``, ``bwd`` or ``bwu``; dollars."""

    kind: str
    description: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Charge:
    """What an instance cost over a time; dollars. ``instance_id`` is empty for other sources (volumes)."""

    source: str
    instance_id: str
    label: str
    description: str
    amount: Decimal
    starts_at: datetime | None
    ends_at: datetime | None
    items: tuple[ChargeItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Invoice:
    """One line of the account's statement; dollars, top-ups negative as the vendor writes them."""

    kind: str
    source: str
    description: str
    amount: Decimal
    starts_at: datetime | None
    ends_at: datetime | None
    invoice_id: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """An account's user; dollars. ``credit`` is what can be spent."""

    user_id: str
    username: str
    email: str
    credit: Decimal | None
    balance: Decimal | None


@dataclass(frozen=True, slots=True)
class TemplateRef:
    """A template as it now is: every edit changes the hash, the id stays."""

    template_id: int
    hash_id: str


@dataclass(frozen=True, slots=True)
class Bid:
    """An interruptible machine and what we offer for it, in dollars per hour. Its id is the machine's."""

    bid_id: str
    price_per_hour: Decimal | None
    instance: Instance


@dataclass(frozen=True, slots=True)
class HostMachine:
    """A computer that the account itself rents out; dollars per GPU and hour, ``None`` where it is not listed."""

    machine_id: str
    hostname: str
    gpu_name: str
    gpu_count: int
    gpu_price_per_hour: Decimal | None
    min_bid_per_hour: Decimal | None
    verified: bool
    raw: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class HoldsAccountKeys(Protocol):
    """Public keys on the account, which every machine made from now on accepts."""

    def ssh_keys(self) -> Sequence[SSHKey]: ...

    def add_ssh_key(self, public_key: str) -> SSHKey: ...

    def delete_ssh_key(self, key_id: str) -> None:
        """One that is not there is success."""


@runtime_checkable
class EditsTemplates(Protocol):
    """Launch templates of our own. ``content`` and ``changes`` are in the vendor's names."""

    def create_template(self, name: str, image: str, **content: Any) -> TemplateRef: ...

    def update_template(self, template_id: str, changes: Mapping[str, Any]) -> TemplateRef: ...

    def delete_template(self, template_id: str) -> str: ...


@runtime_checkable
class KeepsBooks(Protocol):
    """What was paid in and what was spent, by the vendor's own account."""

    def charges(self, since: datetime, until: datetime) -> Sequence[Charge]: ...

    def invoices(self, since: datetime, until: datetime) -> Sequence[Invoice]: ...


@runtime_checkable
class RentsOutMachines(Protocol):
    """The host's side: computers of the account that others rent. Prices are per GPU and hour."""

    def host_machines(self) -> Sequence[HostMachine]: ...

    def offer_machine(self, machine_id: str, price_per_gpu_hour: Decimal, **terms: Any) -> str: ...

    def update_machine_offer(self, machine_id: str, changes: Mapping[str, Any]) -> str: ...

    def set_min_bid(self, machine_id: str, price_per_gpu_hour: Decimal) -> str: ...

    def withdraw_machine_offer(self, machine_id: str) -> str: ...


@runtime_checkable
class TakesBids(Protocol):
    """Interruptible machines that we bid for."""

    def bids(self) -> Sequence[Bid]: ...


@runtime_checkable
class RentsByBid(Protocol):
    """``Capabilities.interruptible``: whoever bids less than another has the machine stopped, and its disk kept and
    billed, until the bid is the highest again. The bid is a create's :attr:`providers.base.LaunchOrder.bid_price`."""

    def biddable_offers(self) -> Collection[str]:
        """Ids of the offers on which bids are taken at present, all of them or an error."""

    def set_bid(self, instance_id: str, price_per_hour: Decimal) -> str:
        """Another bid, dollars per hour; the same one again is success. The vendor's answer in a few words."""

    def start(self, instance_id: str) -> str:
        """Have a stopped machine run again as soon as its bid wins; twice is success. The answer in a few words."""


@runtime_checkable
class TellsUser(Protocol):
    """Whose account it is."""

    def current_user(self) -> User: ...


@runtime_checkable
class Reboots(Protocol):
    """``Capabilities.reboot``: a machine that runs goes down and comes back, with its disk, and stays billed."""

    def reboot(self, instance_id: str) -> str:
        """Returns the vendor's answer in a few words."""


@runtime_checkable
class TellsLogs(Protocol):
    """``Capabilities.logs``: a machine's log is asked for, and is to be read somewhere some seconds later."""

    def request_logs(self, instance_id: str, *, tail: int) -> str:
        """Where the last ``tail`` lines will be; only :meth:`read_log` has a use for it."""

    def read_log(self, where: str) -> str | None:
        """``None`` while it is not there yet."""
