"""Machines that the account itself rents out (Vast.ai contract, section 5.5)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from providers import fields
from providers.errors import InvalidRequest, NotFound
from providers.vastai.caller import WHOLE, Caller, Part, read_note, rows_under
from providers.vastai.records import HostMachine
from providers.vastai.reply import Reply

#: "Me" in the words of the vendor's own client.
_MINE = {"owner": "me"}


class Hosting(Caller):
    """The host's side. Needs the key's permissions ``machine_read`` and ``machine_write``."""

    def host_machines(self, part: Part = WHOLE) -> tuple[HostMachine, ...]:
        """The account's own machines; most accounts have none."""
        if self._transport.supports("machine_page"):
            return self._transport.send("machine_page", self._read_machines, params=part.params())
        self._own_rows_only("machines", part)
        return part.of(self._transport.send("machines", self._read_machines, params=_MINE))

    def host_machine(self, machine_id: str) -> HostMachine:
        """One of them; ``NotFound`` when it is not ours."""
        known_id = self._id("machine", machine_id)
        for each in self._transport.send("machine", self._read_machines, known_id, params=_MINE):
            if each.machine_id == known_id:
                return each
        raise self._error(NotFound, "machine", "there is no such machine")

    def offer_machine(self, machine_id: str, price_per_gpu_hour: Decimal, **terms: Any) -> str:
        """Put a machine up for rent at dollars per GPU and hour; further ``terms`` in the vendor's names."""
        body = {"machine": self._number("offer_machine", machine_id), **terms}
        body["price_gpu"] = self._price("offer_machine", price_per_gpu_hour)
        return self._transport.send("offer_machine", read_note, json=body)

    def update_machine_offer(self, machine_id: str, changes: Mapping[str, Any]) -> str:
        """Change some of the terms that a machine is up for rent on, in the vendor's names (``price_gpu``, ...)."""
        if not changes:
            raise self._error(InvalidRequest, "update_machine", "nothing to change")
        number = self._number("update_machine", machine_id)
        return self._transport.send("update_machine", read_note, str(number), json={"machine": number, **changes})

    def set_min_bid(self, machine_id: str, price_per_gpu_hour: Decimal) -> str:
        """The least that an interruptible renter has to bid; on Vast.ai's own API only."""
        body = {"client_id": "me", "price": self._price("set_min_bid", price_per_gpu_hour)}
        return self._transport.send("set_min_bid", read_note, self._id("set_min_bid", machine_id), json=body)

    def withdraw_machine_offer(self, machine_id: str) -> str:
        """Take a machine off the market; who rents it now keeps it."""
        return self._transport.send("withdraw_machine", read_note, self._id("withdraw_machine", machine_id), json={})

    def _number(self, operation: str, machine_id: str) -> int:
        return int(self._id(operation, machine_id))

    def _price(self, operation: str, price: Decimal) -> Decimal:
        if not price.is_finite() or price <= 0:
            raise self._error(InvalidRequest, operation, "a price must be more than 0 dollars an hour")
        return price

    def _read_machines(self, reply: Reply) -> tuple[HostMachine, ...]:
        rows = rows_under(reply, "machines")
        read = [_machine(row) for row in rows]
        known = tuple(machine for machine in read if machine is not None)
        if len(known) < len(read):
            raise self._incomplete(reply.operation, f"{len(read) - len(known)} rows cannot be understood")
        return known


def _machine(row: object) -> HostMachine | None:
    if not isinstance(row, dict):
        return None
    machine_id = fields.identifier(row.get("id")) or fields.identifier(row.get("machine_id"))
    if not machine_id:
        return None
    return HostMachine(
        machine_id=machine_id,
        hostname=fields.text(row.get("hostname"), 300),
        gpu_name=fields.text(row.get("gpu_name"), 100),
        gpu_count=fields.count(row.get("num_gpus")),
        gpu_price_per_hour=fields.money(row.get("listed_gpu_cost")),
        min_bid_per_hour=fields.money(row.get("min_bid_price")),
        verified=row.get("verification") == "verified",
        raw=fields.json_safe(row),
    )
