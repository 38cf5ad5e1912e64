"""Listed rows and details into :class:`Instance` (TensorDock contract, sections 6.1, 6.2, 8 and 9)."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from providers import fields
from providers.base import Instance, Phase, SSHEndpoint
from providers.tensordock.reply import Reply

SSH_PORT = 22
#: The login of the vendor's images, and the one that :mod:`providers.tensordock.orders` installs the keys for as well.
_USERS = ("user", "root")
#: Dollars per GB and hour, the vendor's published price. A detail tells only the machine's total (``rateHourly``): the
#: total is kept exactly, and this divides it between GPU and disk.
STORAGE_PER_GB_HOUR = Decimal("0.00005")
_MAX_PORT = 65_535
#: What may be handed to an SSH client as a host: never something that begins like an option.
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]{0,252}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SEPARATORS = re.compile(r"[\s_-]+")
_TOTALS = ("total", "count", "total_count", "totalCount")

_PHASES = {
    **dict.fromkeys(("queued", "pending", "creating", "deploying", "provisioning", "starting"), Phase.BOOTING),
    "running": Phase.RUNNING,
    "stopped": Phase.FAILED,
    "stoppeddisassociated": Phase.STOPPED,
    **dict.fromkeys(("outbid", "relocating", "error", "failed", "deleted", "terminated"), Phase.FAILED),
}
_NOTES = {
    "stopped": "stopped at the provider, and billed in full until it is deleted",
    "stoppeddisassociated": "stopped, and its GPU was given away; the disk is billed until it is deleted",
}


def instance_id_of(value: object) -> str:
    """An instance's id; "" for what cannot be one."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else fields.text(value, 100)
    return text if _ID.fullmatch(text) else ""


def listed_rows(reply: Reply) -> list[dict[str, Any]]:
    """The rows of a complete listing in any of its three shapes (section 6.1), each flat: ``id``, ``name``, ``status``
    and what else there is. Raises for every other shape, so that an odd listing never reads as empty (I5)."""
    holder = reply.object().get("data")
    for key in ("attributes", "instances"):
        if isinstance(holder, dict) and key in holder:
            holder = holder[key]
    if not isinstance(holder, list):
        raise reply.malformed("no list of instances under 'data'")
    rows = [flat(row) for row in holder]
    told = [row for row in rows if instance_id_of(row.get("id")) and _tells_name(row)]
    if len(told) < len(rows):
        raise reply.incomplete(f"{len(rows) - len(told)} of {len(rows)} rows have no id or no name")
    if len({instance_id_of(row["id"]) for row in told}) < len(told):
        raise reply.incomplete("an instance is listed twice")
    if (promised := _promised(reply.json)) > len(told):
        raise reply.incomplete(f"{len(told)} rows arrived of {promised}")
    return told


def flat(row: object) -> dict[str, Any]:
    """A row, with what stands under ``attributes`` beside the rest."""
    if not isinstance(row, dict):
        return {}
    inner = row.get("attributes")
    return {**inner, **row, **_without_id(inner)} if isinstance(inner, dict) else row


def detail_of(body: dict[str, Any]) -> dict[str, Any]:
    """The instance in an answer to a detail call: bare, or wrapped in ``data``."""
    data = body.get("data")
    return flat(data if isinstance(data, dict) else body)


def tells_all(row: dict[str, Any]) -> bool:
    """Whether a listed row holds what else only the detail does."""
    return "ipAddress" in row and "rateHourly" in row


def read_instance(row: dict[str, Any]) -> Instance:
    """A row (or detail) that has an id as an :class:`Instance`. Everything else may be absent: there is no address
    before the machine runs, and listings tell only id, name and status. Dollars per hour.

    The phase goes by what is billed: ``stopped`` keeps its GPU and its full price and never comes back by itself, so
    it is ``FAILED`` and not ``STOPPED``; ``stoppeddisassociated`` pays for its disk only. ``deleting`` is ``UNKNOWN``,
    like every word that we do not know: only a look that finds nothing proves it gone.
    """
    status = _SEPARATORS.sub("", fields.text(row.get("status"), 60).lower())
    phase = _PHASES.get(status, Phase.UNKNOWN)
    host = fields.text(row.get("ipAddress"), 300)
    host = host if _HOST.fullmatch(host) else ""
    ports = _ports(row.get("portForwards"), host)
    gpu_name, gpu_count = _gpus(row)
    label, (total, storage) = row.get("name"), _rates(row)
    return Instance(
        instance_id=instance_id_of(row.get("id")),
        label=fields.storable(label) if isinstance(label, str) else "",
        phase=phase,
        status=status,
        status_message=_NOTES.get(status, f"the provider says {status}" if phase is Phase.FAILED else ""),
        ssh_endpoints=_ssh_endpoints(host, ports),
        ports=ports,
        gpu_name=gpu_name,
        gpu_count=gpu_count,
        gpu_price_per_hour=None if total is None or storage is None else total - storage,
        storage_price_per_hour=storage,
    )


def _without_id(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in ("id", "type")}


def _tells_name(row: dict[str, Any]) -> bool:
    """A row that does not tell its name at all could be the one that a lost create is looking for."""
    return "name" in row and (row["name"] is None or isinstance(row["name"], str))


def _ports(forwards: object, host: str) -> dict[int, tuple[str, int]]:
    """Port inside -> (address, port outside), as the detail tells it; what was asked for is often not honoured.
    Empty for an address of its own, where every port is itself."""
    ports: dict[int, tuple[str, int]] = {}
    for forward in forwards if host and isinstance(forwards, list) else []:
        if isinstance(forward, dict):
            inside, outside = (fields.count(forward.get(f"{side}_port")) for side in ("internal", "external"))
            if 0 < inside <= _MAX_PORT and 0 < outside <= _MAX_PORT:
                ports[inside] = (host, outside)
    return ports


def _ssh_endpoints(host: str, ports: dict[int, tuple[str, int]]) -> tuple[SSHEndpoint, ...]:
    if not host or (ports and SSH_PORT not in ports):
        return ()
    address, port = ports.get(SSH_PORT, (host, SSH_PORT))
    return tuple(SSHEndpoint(address, port, user) for user in _USERS)


def _gpus(row: dict[str, Any]) -> tuple[str, int]:
    """Name and number of the GPUs; a machine has one model only."""
    resources = row.get("resources")
    gpus = resources.get("gpus") if isinstance(resources, dict) else None
    for key, gpu in gpus.items() if isinstance(gpus, dict) else []:
        if isinstance(gpu, dict):
            return fields.text(gpu.get("v0Name"), 100) or fields.text(key, 100), fields.count(gpu.get("count"))
    return "", 0


def _rates(row: dict[str, Any]) -> tuple[Decimal | None, Decimal | None]:
    """The machine's total and its disk's part, dollars an hour; ``None`` where the vendor does not say. A total without
    a size has no part for the disk, so that nothing is counted twice."""
    total = fields.money(row.get("rateHourly"))
    if not total:
        return None, None
    resources = row.get("resources")
    size = fields.money(resources.get("storage_gb")) if isinstance(resources, dict) else None
    return total, min((size or Decimal(0)) * STORAGE_PER_GB_HOUR, total)


def _promised(body: object) -> int:
    """The greatest number of instances that an envelope speaks of. None does today; should listings come in pages one
    day, the first page must not pass for the whole."""
    promised = 0
    while isinstance(body, dict):
        meta = body.get("meta")
        for holder in (body, meta if isinstance(meta, dict) else {}):
            promised = max([promised, *(fields.count(holder.get(key)) for key in _TOTALS)])
        body = body.get("data") or body.get("attributes")
    return promised
