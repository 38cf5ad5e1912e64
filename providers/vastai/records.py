"""The records of the Vast.ai client; those that other providers may have as well are in :mod:`providers.extras`."""

from __future__ import annotations

from dataclasses import dataclass

from providers.extras import Bid, Charge, ChargeItem, HostMachine, Invoice, SSHKey, TemplateRef, User

__all__ = [
    "Bid", "Charge", "ChargeItem", "HostMachine", "Invoice", "SSHKey", "StateChange", "TemplateRef", "User",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class StateChange:
    """The answer to start or stop. ``queued``: the start waits for a GPU, and may begin (and bill) hours later."""

    queued: bool
    note: str
