"""From an order to a contract: what is written down when somebody rents, before anything runs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from providers.sandbox.catalog import DAY, MONTH_HOURS
from providers.sandbox.instances import Contract, Span, hash_of
from providers.sandbox.market import Ask
from providers.sandbox.ports import PortPool

#: Length of a contract whose host does not say when it takes the machine back.
OPEN_END = 30 * DAY


@dataclass(slots=True)
class Order:
    """What a create asks for, in the sandbox's own words."""

    image: str
    runtype: str
    disk: float
    label: str | None = None
    env: list[list[str]] = field(default_factory=list)
    #: Inside ports to publish, e.g. ``8000/tcp``.
    ports: list[str] = field(default_factory=list)
    onstart: str | None = None
    args: list[str] = field(default_factory=list)
    template: dict[str, Any] = field(default_factory=dict)
    bid: float | None = None
    #: False: the contract is made, but nothing runs (a low bid, or so ordered).
    start: bool = True


def draft(
    order: Order, ask: Ask, offer: dict[str, Any], *, ids: tuple[int, int], now: float, ports: PortPool, host_key: str
) -> Contract:
    """A contract that is made but not started; ``ids`` are the account's and its own. Its disk is billed from now."""
    account_id, contract_id = ids
    end = offer["end_date"]
    contract = Contract(
        id=contract_id,
        account_id=account_id,
        ask_id=ask.id,
        machine_id=ask.machine.id,
        num_gpus=ask.num_gpus,
        label=order.label,
        created_at=now,
        ends_at=end if end and end > now else now + OPEN_END,
        offer={name: value for name, value in offer.items() if not name.startswith("_")},
        image=order.image,
        runtype=order.runtype,
        disk=order.disk,
        gpu_rate=order.bid if order.bid is not None else ask.machine.gpu_price * ask.num_gpus,
        disk_rate=order.disk * ask.machine.storage_price / MONTH_HOURS,
        ports=_map_ports(order, offer["direct_port_count"], ports),
        proxy_port=ports.reserve() - (1 if "jupyter" in order.runtype else 0),
        host_key=host_key,
        instance_key=secrets.token_hex(32),
        jupyter_token=secrets.token_hex(32),
        env=order.env,
        onstart=order.onstart,
        args=order.args,
        template=order.template,
        bid=order.bid,
        intended="stopped",
        current="stopped",
        holds_gpus=False,
        boot_at=now,
        visible_at=now,
    )
    contract.spans.append(Span("disk", now, contract.disk_rate))
    return contract


def _map_ports(order: Order, direct_ports: int, ports: PortPool) -> dict[str, int]:
    """Outside ports of what is published; the number inside is used outside too from 70000 on."""
    if not direct_ports:
        return {}
    mapped: dict[str, int] = {}
    for inside in order.ports:
        if inside == "22/tcp" or (order.runtype == "args" and inside.endswith("/tcp") and int(inside[:-4]) < 70_000):
            # Something of ours answers there: see ssh.py and http.py.
            mapped[inside] = ports.reserve()
            continue
        outside = 40_000 + hash_of(f"{inside}{secrets.token_hex(4)}") % 25_000
        number, _, protocol = inside.partition("/")
        mapped[f"{outside}/{protocol}" if int(number) >= 70_000 else inside] = outside
    return mapped
