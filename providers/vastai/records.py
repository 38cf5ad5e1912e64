"""What only Vast.ai has, beyond the protocol that all providers share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class SSHKey:
    """A public key that the account or an instance holds."""

    key_id: str
    public_key: str


@dataclass(frozen=True, slots=True)
class StateChange:
    """The answer to start or stop. ``queued``: the start waits for a GPU, and may begin (and bill) hours later."""

    queued: bool
    note: str


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
