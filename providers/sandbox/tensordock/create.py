"""Renting a virtual machine (TensorDock contract, section 5)."""

from __future__ import annotations

import logging
import math
import random
from typing import Any
from uuid import uuid4

from providers.sandbox.engine import Engine
from providers.sandbox.instances import Contract, Span, hash_of
from providers.sandbox.ledger import Account
from providers.sandbox.tensordock.cloudinit import files_of, keys_of
from providers.sandbox.tensordock.errors import TOO_POOR, Refused, embedded, issue
from providers.sandbox.tensordock.gateway import Call, Route
from providers.sandbox.tensordock.stock import ADDRESSES, Hostnode, NoRoom, Stock, Wanted
from providers.sandbox.tensordock.validate import WINDOWS, read

log = logging.getLogger("sandbox.tensordock")
#: Dollars that an account must have.
LEAST_CREDIT = 1.0
#: An account that has been below zero for so long loses its machines.
UNPAID_SECONDS = 96 * 3600.0
#: SSH answers later than "running", by this share of the boot.
SSH_AFTER_SHARE = 0.5
_NEVER = 100 * 365 * 86_400.0
_FORWARDS = ("data", "attributes", "port_forwards")
#: How many addresses a new machine tries before it gives up.
_ADDRESS_TRIES = 250


def create(call: Call) -> dict[str, Any]:
    """The answer names the machine and says nothing of where it is: that comes with looks at it."""
    engine, account = call.engine, call.account
    wanted = read(call.body, engine.settings.few_images)
    key = _login_key(call, wanted)
    if engine.credit(account) < LEAST_CREDIT:
        raise embedded(400, TOO_POOR)
    try:
        node = call.stock.find(wanted)
    except NoRoom as error:
        raise embedded(400, str(error)) from None
    facts = {"label": wanted.name, "api_key": account.api_key}
    quirks = engine.faults.take_quirks("create", **facts)
    lost_key = engine.faults.take({"ssh_attach_fail"}, "attach", **facts)
    contract = rent(engine, call.stock, account, node, wanted, [] if lost_key or not key else [key], quirks)
    log.info("machine %s made: %s x%s, name %r", contract.uid, node.row.v0, wanted.gpus, wanted.name)
    return {
        "data": {"type": "virtualmachine", "id": contract.uid, "name": wanted.name, "status": "creating"},
    }


def _login_key(call: Call, wanted: Wanted) -> str:
    if not wanted.ssh_key_id or wanted.image == WINDOWS:
        return wanted.ssh_key.strip()
    for secret in call.engine.ledger.secrets(call.account.id):
        if secret.id == wanted.ssh_key_id and secret.type == "SSHKEY":
            return secret.value.strip()
    raise Refused(400, [issue("custom", "SSH key secret not found", "data", "attributes", "ssh_key_id")])


def rates(node: Hostnode, gpus: int, vcpus: int, ram_gb: int, storage_gb: float) -> tuple[float, float]:
    """Dollars per hour: GPUs with processors and memory, and storage (section 8)."""
    place = node.place
    compute = node.row.price * gpus + place.per_vcpu * vcpus + place.per_ram_gb * ram_gb
    return round(compute, 6), round(place.per_storage_gb * storage_gb, 6)


def rent(
    engine: Engine,
    stock: Stock,
    account: Account,
    node: Hostnode,
    wanted: Wanted,
    keys: list[str],
    quirks: dict[str, dict[str, Any]] | None = None,
) -> Contract:
    """Make the contract on a host that has room: billed in full from now on."""
    now = engine.clock.now()
    gpu_rate, disk_rate = rates(node, wanted.gpus, wanted.vcpus, wanted.ram_gb, wanted.storage_gb)
    address = _own_address(engine) if wanted.dedicated else ""
    ports = _dedicated_ports(engine) if wanted.dedicated else _outside_ports(engine, stock, node, wanted)
    contract = Contract(
        id=engine.next_contract_id(),
        account_id=account.id,
        ask_id=0,
        machine_id=node.number,
        num_gpus=wanted.gpus,
        label=wanted.name,
        created_at=now,
        ends_at=now + _NEVER,
        offer=describe(node),
        image=wanted.image,
        runtype="windows" if wanted.image == WINDOWS else "ssh",
        disk=float(wanted.storage_gb),
        gpu_rate=gpu_rate,
        disk_rate=disk_rate,
        ports=ports,
        proxy_port=0,
        host_key=engine.new_host_key(),
        instance_key="",
        jupyter_token="",
        boot_at=now,
        visible_at=now,
        uid=str(uuid4()),
        user="user",
        more_keys=keys_of(wanted.cloud_init),
        address=address,
        bills_boot=True,
        ssh_after=engine.settings.boot_seconds * SSH_AFTER_SHARE,
        removed_after=UNPAID_SECONDS,
        details={
            "host": "ubuntu",
            "hostnode_id": node.id,
            "location_id": node.place.id,
            "v0Name": node.row.v0,
            "vcpus": wanted.vcpus,
            "ram_gb": wanted.ram_gb,
            "cloud_init": wanted.cloud_init,
            "files": files_of(wanted.cloud_init),
        },
    )
    contract.spans.append(Span("disk", now, disk_rate))
    installed = [*keys, *contract.more_keys.pop("user", [])]
    return engine.sign(contract, list(dict.fromkeys(installed)), quirks)


def describe(node: Hostnode) -> dict[str, Any]:
    """What the guest's own commands and the ledger say of the machine."""
    model = node.model
    return {
        "model": {
            "name": model.shown,
            "driver_name": model.driver_name,
            "memory_mb": model.memory_mb,
            "compute_cap": model.compute_cap,
        },
        "driver_version": "565.57.01" if model.compute_cap < 1000 else "570.133.20",
        "cuda_max_good": 12.7 if model.compute_cap < 1000 else 12.8,
    }


def _own_address(engine: Engine) -> str:
    port = engine.options.dedicated_port
    somewhere = random.randrange(60_000)  # noqa: S311 - two sandboxes should not begin at the same address
    for _ in range(_ADDRESS_TRIES):
        number = engine.ledger.next_number("dedicated_address", somewhere)
        address = f"{ADDRESSES}.{number // 250 % 250}.{number % 250 + 1}"
        if engine.ports.is_free(port, address) and engine.ports.hold(port, address):
            return address
    raise embedded(400, "No available public IPs")


def _dedicated_ports(engine: Engine) -> dict[str, int]:
    return {"22/tcp": engine.options.dedicated_port}


def _outside_ports(engine: Engine, stock: Stock, node: Hostnode, wanted: Wanted) -> dict[str, int]:
    """On a named host the outside ports are the ones asked for; at a location nobody listens to the wish."""
    mapped: dict[str, int] = {}
    free = stock.open_ports(node) if wanted.hostnode_id else []
    for inside, outside in wanted.forwards:
        if wanted.hostnode_id and outside and outside not in free:
            text = f"Port {outside} is not available on this hostnode"
            raise Refused(400, [issue("custom", text, *_FORWARDS)])
        if inside == 22:
            mapped["22/tcp"] = outside if wanted.hostnode_id and outside else engine.ports.reserve()
            engine.ports.hold(mapped["22/tcp"])
        else:
            chosen = 33_000 + math.floor(hash_of(f"{node.id}{inside}{engine.clock.now()}") % 27_000)
            mapped[f"{inside}/tcp"] = outside if wanted.hostnode_id and outside else chosen
    return mapped


ROUTES = [Route("POST", "/instances", "create", create)]
