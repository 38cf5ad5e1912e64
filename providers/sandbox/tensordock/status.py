"""What a machine shows of itself (TensorDock contract, sections 5.2, 6.2 and 9)."""

from __future__ import annotations

from typing import Any

from providers.sandbox.engine import Engine
from providers.sandbox.instances import Contract

_SPELLED = {"stoppeddisassociated": ("Stopped", "Disassociated")}
#: A status that was put on the machine from outside -> this vendor's word for it.
_HALTED = {"offline": "error", "exited": "stopped", "unknown": "unknown"}


def word_of(engine: Engine, contract: Contract) -> str:
    """Its status as one lower-case word."""
    if contract.dies_at is not None:
        return "deleting"
    if contract.halted:
        return _HALTED.get(contract.halted, contract.halted)
    if contract.current == "stopped":
        if engine.clock.now() < contract.details.get("stopping_until", 0.0):
            return "stopping"
        return "stopped" if contract.holds_gpus else "stoppeddisassociated"
    phase = engine.phase(contract)
    if phase.running:
        return "running"
    if phase.status == "exited":
        return "stopped"
    if phase.status == "created":
        return "error"
    if contract.details.get("started"):
        return "starting"
    return "queued" if phase.status is None else "creating"


def shown(engine: Engine, contract: Contract) -> str:
    """The word in the vendor's spelling of the day."""
    word, case = word_of(engine, contract), engine.settings.status_case
    if case == "lower":
        return word
    parts = _SPELLED.get(word, (word.capitalize(),))
    return "".join(parts) if case == "title" else "_".join(parts).upper()


def detail(engine: Engine, contract: Contract) -> dict[str, Any]:
    """All that a look tells. Where it is, only while it runs; who it was made for and of what, never."""
    running = word_of(engine, contract) == "running"
    nowhere = None if contract.current == "stopped" else ""
    address = contract.address or engine.options.address
    forwards = [
        {"internal_port": int(inside.partition("/")[0]), "external_port": outside}
        for inside, outside in contract.ports.items()
    ]
    dedicated = contract.address and not contract.details.get("moved")
    hidden = dedicated or engine.settings.ports_ignored or not running
    v0 = contract.details["v0Name"]
    return {
        "type": "virtualmachine",
        "id": contract.uid,
        "name": contract.label or "",
        "status": shown(engine, contract),
        "ipAddress": address if running else nowhere,
        "portForwards": [] if hidden else forwards,
        "resources": {
            "vcpu_count": contract.details["vcpus"],
            "ram_gb": contract.details["ram_gb"],
            "storage_gb": int(contract.disk),
            "gpus": {v0: {"count": contract.num_gpus, "v0Name": v0}} if contract.num_gpus else {},
        },
        "rateHourly": round(contract.disk_rate + (contract.gpu_rate if contract.holds_gpus else 0.0), 6),
    }
