"""Bids: offers of ours for machines that a higher one takes away (Vast.ai contract, section 4.8).

The vendor has no bids of their own. A bid is an instance with a price that we named; the gateway only calls it so.
Raising and lowering one is :meth:`providers.vastai.actions.Actions.set_bid`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from providers import fields
from providers.base import Created, Instance
from providers.errors import InvalidRequest
from providers.vastai.caller import WHOLE, Part, rows_under
from providers.vastai.created import read_created
from providers.vastai.instances import read_instance
from providers.vastai.machines import Machines
from providers.vastai.records import Bid


class Bids(Machines):
    """The account's interruptible machines."""

    def bids(self, part: Part = WHOLE) -> tuple[Bid, ...]:
        """Machines that we bid for, all or some."""
        if self._transport.supports("bids"):
            params = part.params()
            rows = self._transport.send("bids", lambda reply: rows_under(reply, "instances", "bids"), params=params)
            return self._read_bids(rows)
        self._own_rows_only("bids", part)
        rows = self._all_pages("list_instances", _of_a_bid)
        return part.of(self._read_bids([row for row in rows if row is not None]))

    def bid(self, bid_id: str) -> Instance | None:
        """The machine of a bid; ``None`` when the vendor has it no more."""
        operation = "bid" if self._transport.supports("bid") else "get_instance"
        return self._look(operation, bid_id)

    def create_bid(self, price_per_hour: Decimal, hours: int, gpu_count: int, label: str = "") -> Created:
        """Bid for any machine of that size, through the gateway only (``NotSupported`` on Vast.ai's own API, where
        :meth:`create` with ``bid_price`` names the offer). Without a label it can never be found again."""
        if not price_per_hour.is_finite() or price_per_hour <= 0 or hours <= 0 or gpu_count <= 0:
            raise self._error(InvalidRequest, "create_bid", "price, duration and number of GPUs must be more than 0")
        body: dict[str, Any] = {"price": price_per_hour, "duration": hours, "num_gpus": gpu_count}
        return self._transport.send("create_bid", read_created, json=body | ({"label": label} if label else {}))

    def delete_bid(self, bid_id: str) -> str:
        """Withdraw a bid and destroy its machine; not having it (any more) is success."""
        operation = "delete_bid" if self._transport.supports("delete_bid") else "destroy"
        return self._end(operation, bid_id)

    def _read_bids(self, rows: list[Any]) -> tuple[Bid, ...]:
        read = [(row, read_instance(row, self._transport.safe_text)) for row in rows]
        known = tuple(
            Bid(instance.instance_id, fields.money(row.get("dph_base")), instance) for row, instance in read if instance
        )
        if len(known) < len(read):
            raise self._incomplete("bids", f"{len(read) - len(known)} rows cannot be understood")
        return known


def _of_a_bid(row: object) -> dict[str, Any] | None:
    return row if isinstance(row, dict) and row.get("is_bid") is True else None
