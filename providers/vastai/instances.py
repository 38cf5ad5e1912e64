"""Instance rows into :class:`Instance` (Vast.ai contract, sections 4.3 to 4.5)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from providers import fields
from providers.base import Instance, Phase, SSHEndpoint

SSH_PORT = 22
_SSH_USER = "root"
#: The vendor's month: 30 days of 24 hours.
_HOURS_PER_MONTH = 720
_MAX_PORT = 65_535
#: What may be handed to an SSH client as a host: never something that begins like an option.
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]{0,252}")
_PORT_KEY = re.compile(r"([0-9]{1,5})(?:/tcp)?")

#: Words in ``status_msg`` that mean trouble while an image is pulled or a container started. Some pass by
#: themselves (a pull is retried), so they are shown, and only a deadline acts on them.
_TROUBLE = re.compile(
    r"error|failed|failure|exception|traceback|oci runtime|permission denied|manifest unknown|pull access denied"
    r"|unauthorized:|no space left",
    re.IGNORECASE,
)
#: ... and those that no waiting mends: the image is not to be had, the disk is full, the container cannot be made.
_FATAL_WHILE_LOADING = re.compile(
    r"manifest unknown|pull access denied|repository does not exist|no such image|invalid reference format"
    r"|unauthorized:|no space left on device|out of disk|oci runtime create failed",
    re.IGNORECASE,
)
#: Words after which a container that was created is never started: the row stays ``created`` for ever.
_FATAL_WHEN_CREATED = re.compile(r"oci runtime|error response from daemon", re.IGNORECASE)

_PHASES = {
    "": Phase.BOOTING,
    "created": Phase.BOOTING,
    "loading": Phase.BOOTING,
    "rebooting": Phase.BOOTING,
    "recycling": Phase.BOOTING,
    "running": Phase.RUNNING,
    "stopped": Phase.STOPPED,
    "exited": Phase.FAILED,
    "offline": Phase.FAILED,
    "unknown": Phase.UNKNOWN,
}


def read_instance(row: object, safe_text: Callable[[object], str]) -> Instance | None:
    """The instance in a row, or ``None`` where the row cannot be understood: no id, or a label that is no text.

    Everything else may be absent: a machine has no address before it runs and no metrics before its first
    heartbeat. Dollars per hour, MB, aware UTC. The rates are those of a running machine.
    """
    if not isinstance(row, dict):
        return None
    instance_id = fields.identifier(row.get("id"))
    label = row.get("label")
    if not instance_id or not (label is None or isinstance(label, str)):
        return None
    status = _word(row.get("actual_status"))
    message = safe_text(fields.text(row.get("status_msg")))
    phase, note = phase_of(row)
    storage = _storage_rate(row)
    return Instance(
        instance_id=instance_id,
        label=fields.storable(label or ""),
        phase=phase,
        status=status,
        status_message=f"{note}: {message}" if note and message else note or message,
        ssh_endpoints=ssh_endpoints(row),
        ports=port_map(row),
        gpu_name=fields.text(row.get("gpu_name"), 100),
        gpu_count=fields.count(row.get("num_gpus")),
        vram_mb=fields.count(row.get("gpu_ram")),
        gpu_price_per_hour=_gpu_rate(row, storage),
        storage_price_per_hour=storage,
        created_at=fields.moment(row.get("start_date")),
        running_for=_uptime(row),
        ends_at=fields.moment(row.get("end_date")),
        machine_id=fields.identifier(row.get("machine_id")),
        min_bid_per_hour=(fields.money(row.get("min_bid")) or None) if row.get("is_bid") is True else None,
    )


def _uptime(row: dict[str, Any]) -> timedelta | None:
    """``uptime_mins``, where it is a number that a machine can have run."""
    minutes = fields.number(row.get("uptime_mins"))
    return timedelta(minutes=minutes) if minutes is not None and 0 <= minutes < 10_000_000 else None


def phase_of(row: dict[str, Any]) -> tuple[Phase, str]:
    """The phase, and a word about it where the vendor's own status would mislead.

    The contract's state outranks the container's: three times ``stopped`` is a stop by the user, a lost bid or an
    empty account; wanted running while the contract is stopped is a start that waits for a GPU and may bill
    later. ``created`` with a runtime error never gets further, nor does ``loading`` with an error that no waiting mends
    (section 4.4; other pulls are tried again, and only a deadline acts on them). ``exited`` is final here,
    though right after a start or a reboot it may still be the old word: the caller, who knows of its start, grants the
    grace. ``frozen`` keeps its full bill and its memory, so it is neither stopped nor failed: ``UNKNOWN``, like every
    word that we do not know.
    """
    actual, current, wanted, following = (
        _word(row.get(key)) for key in ("actual_status", "cur_state", "intended_status", "next_state")
    )
    if current == wanted == following == "stopped":
        return Phase.STOPPED, ""
    if wanted == "running" and current == "stopped":
        return Phase.STOPPED, "start queued until a GPU is free"
    message = fields.text(row.get("status_msg"))
    if actual == "created" and _FATAL_WHEN_CREATED.search(message):
        return Phase.FAILED, ""
    if actual in ("", "created", "loading") and _FATAL_WHILE_LOADING.search(message):
        return Phase.FAILED, ""
    return _PHASES.get(actual, Phase.UNKNOWN), ""


def start_failure(status: str, message: str) -> str:
    """Why a machine that is still starting may never get up, from its status and status message; "" if
    nothing points to it. Only a hint while ``loading``: pulls are retried, so combine it with a deadline."""
    starting = status in ("", "created", "loading")
    return message if starting and _TROUBLE.search(message) else ""


def ssh_endpoints(row: dict[str, Any]) -> tuple[SSHEndpoint, ...]:
    """Direct first, then the vendor's proxy, whose port is one higher on Jupyter machines. Both are kept, as
    proxies lag and direct ports may be blocked."""
    found: list[SSHEndpoint] = []
    if direct := port_map(row).get(SSH_PORT):
        found.append(SSHEndpoint(direct[0], direct[1], _SSH_USER, "direct"))
    host = _host(row.get("ssh_host"))
    port = fields.count(row.get("ssh_port"))
    if host and port:
        port += 1 if "jupyter" in fields.text(row.get("image_runtype")) else 0
        if port <= _MAX_PORT:
            found.append(SSHEndpoint(host, port, _SSH_USER, "proxy"))
    return tuple(found)


def port_map(row: dict[str, Any]) -> dict[int, tuple[str, int]]:
    """TCP ports: container port -> (public address, outside port). Empty until the machine runs."""
    host = _host(row.get("public_ipaddr"))
    ports = row.get("ports")
    if not host or not isinstance(ports, dict):
        return {}
    mapped: dict[int, tuple[str, int]] = {}
    for key, bindings in ports.items():
        match = _PORT_KEY.fullmatch(key)
        outside = _outside_port(bindings)
        if match and outside and 0 < int(match[1]) <= _MAX_PORT:
            mapped[int(match[1])] = (host, outside)
    return mapped


def _outside_port(bindings: object) -> int:
    """The first usable ``HostPort``, IPv4 before its IPv6 double; 0 where there is none."""
    usable: list[tuple[bool, int]] = []
    for binding in bindings if isinstance(bindings, list) else []:
        if isinstance(binding, dict):
            port = fields.count(binding.get("HostPort"))
            if 0 < port <= _MAX_PORT:
                usable.append((":" in fields.text(binding.get("HostIp")), port))
    return min(usable, key=lambda each: each[0])[1] if usable else 0


def _word(value: object) -> str:
    return fields.text(value, 40).lower()


def _host(value: object) -> str:
    """An address without the line ends that the vendor leaves on it; "" for what cannot be one."""
    address = fields.text(value, 300)
    return address if _HOST.fullmatch(address) else ""


def _storage_rate(row: dict[str, Any]) -> Decimal | None:
    total = fields.money(row.get("storage_total_cost"))
    if total is not None:
        return total
    per_month, size = fields.money(row.get("storage_cost")), fields.money(row.get("disk_space"))
    return None if per_month is None or size is None else per_month * size / _HOURS_PER_MONTH


def _gpu_rate(row: dict[str, Any], storage: Decimal | None) -> Decimal | None:
    base = fields.money(row.get("dph_base"))
    if base is not None:
        return base
    total = fields.money(row.get("dph_total"))
    return None if total is None or storage is None else max(total - storage, Decimal(0))
