"""Listing, looking, starting, stopping, changing and deleting (TensorDock contract, section 6)."""

from __future__ import annotations

import logging
from typing import Any

from providers.sandbox import billing
from providers.sandbox.engine import Engine
from providers.sandbox.instances import Contract, Span
from providers.sandbox.tensordock.create import LEAST_CREDIT, rates
from providers.sandbox.tensordock.errors import OUT_OF_STOCK, TOO_POOR, Refused, embedded, issue, plain
from providers.sandbox.tensordock.gateway import Call, Route
from providers.sandbox.tensordock.status import detail, shown, word_of
from providers.sandbox.tensordock.validate import RAM_GB

log = logging.getLogger("sandbox.tensordock")
#: A stop takes this share of a boot.
STOP_SHARE = 0.3
STOPPED = ("stopped", "stoppeddisassociated")


def list_instances(call: Call) -> dict[str, Any]:
    """All of the caller's machines in one answer; no pages, no total."""
    engine = call.engine
    now = engine.clock.now()
    rows = [_row(engine, c) for c in engine.ledger.live_of(call.account.id) if c.visible_at <= now]
    lie = engine.faults.take({"empty_listing", "partial_listing"}, "list", api_key=call.account.api_key)
    if lie:
        rows = rows[: int(lie.params.get("keep", 1))] if lie.kind == "partial_listing" else []
    if engine.settings.list_shape == "flat":
        return {"data": rows}
    wrapped = [{"type": row["type"], "id": row["id"], "attributes": row} for row in rows]
    for row in wrapped:
        row["attributes"] = {name: value for name, value in row["attributes"].items() if name not in ("id", "type")}
    if engine.settings.list_shape == "nested":
        return {"data": {"instances": wrapped}}
    return {"data": {"type": "list", "id": "instances", "attributes": {"instances": wrapped}}}


def _row(engine: Engine, contract: Contract) -> dict[str, Any]:
    row = detail(engine, contract)
    return row if engine.settings.list_detail else {name: row[name] for name in ("type", "id", "name", "status")}


def get_instance(call: Call) -> dict[str, Any]:
    return detail(call.engine, call.contract())


def start(call: Call) -> dict[str, Any]:
    return start_contract(call, call.contract())


def start_contract(call: Call, contract: Contract) -> dict[str, Any]:
    """Asynchronous. A machine whose GPUs were given away may have to wait for ever."""
    word = word_of(call.engine, contract)
    if word not in STOPPED:
        raise plain(409, f"Virtual machine must be stopped to be started; it is already {word}")
    if call.engine.credit(call.account) < LEAST_CREDIT:
        raise embedded(400, TOO_POOR)
    if not contract.holds_gpus and not _has_room(call, contract):
        raise plain(400, "The GPUs of this virtual machine are no longer available on its hostnode")
    contract.holds_gpus = True
    contract.details["started"] = True
    contract.quirks.pop("boot_exited", None)
    contract.current = "stopped"
    call.engine.start(contract)
    return _changing(contract, "starting")


def _has_room(call: Call, contract: Contract) -> bool:
    free = call.stock.free(call.stock.numbered(contract.machine_id), without=contract)
    details = contract.details
    return free.gpus >= contract.num_gpus and free.vcpus >= details["vcpus"] and free.ram_gb >= details["ram_gb"]


def stop(call: Call) -> dict[str, Any]:
    return stop_contract(call, call.contract())


def stop_contract(call: Call, contract: Contract) -> dict[str, Any]:
    """Asynchronous. Usually the GPUs stay reserved, and the full bill with them."""
    engine = call.engine
    word = word_of(engine, contract)
    if word != "running":
        raise plain(409, f"Virtual machine must be running to be stopped; it is {word}")
    contract.details["stopping_until"] = engine.clock.now() + engine.settings.boot_seconds * STOP_SHARE
    if engine.settings.stop_state == "stopped":
        engine.rest(contract)
    else:
        engine.stop(contract)
    return _changing(contract, "stopping")


def _changing(contract: Contract, status: str) -> dict[str, Any]:
    return {"data": {"type": "instance", "id": contract.uid, "attributes": {"status": status}}}


def delete(call: Call) -> dict[str, Any]:
    return delete_contract(call, call.contract())


def delete_contract(call: Call, contract: Contract) -> dict[str, Any]:
    """Gone after a while, and billed until then; before that, asking again is no mistake."""
    engine = call.engine
    facts = {"instance_id": contract.uid, "label": contract.label, "api_key": call.account.api_key}
    refused = engine.faults.take({"refuse_destroy"}, "destroy", **facts)
    if refused:
        log.info("machine %s kept alive by a fault", contract.uid)
        mode = refused.params.get("mode")
        if mode == "error":
            raise plain(500, "Failed to delete virtual machine")
        if mode == "slow":
            engine.destroy_later(contract, float(refused.params.get("seconds", 5.0)))
    elif engine.settings.delete_seconds <= 0:
        engine.destroy(contract)
    elif contract.dies_at is None:
        engine.destroy_later(contract, engine.settings.delete_seconds)
    if not refused:
        log.info("machine %s deleted", contract.uid)
    return {"data": {"type": "success", "attributes": {"message": "Virtual machine deleted successfully"}}}


def modify(call: Call) -> dict[str, Any]:
    """Other sizes for a stopped machine."""
    contract = call.contract()
    if word_of(call.engine, contract) not in STOPPED:
        raise plain(409, "Virtual machine must be stopped to be modified")
    body = call.body if isinstance(call.body, dict) else {}
    details = contract.details
    gpus = body.get("gpus") or {}
    if not isinstance(gpus, dict):
        raise Refused(400, [issue("invalid_type", "Expected object", "gpus", expected="object")])
    vcpus, ram_gb = body.get("cpuCores", details["vcpus"]), body.get("ramGb", details["ram_gb"])
    disk, count = body.get("diskGb", int(contract.disk)), gpus.get("count", contract.num_gpus)
    found = [
        issue("custom", text, *path)
        for wrong, text, path in (
            (type(vcpus) is not int or vcpus < 2 or vcpus % 2, "cpuCores must be an even number", ("cpuCores",)),
            (ram_gb not in RAM_GB, f"ramGb must be one of {RAM_GB}", ("ramGb",)),
            (type(disk) is not int or disk < contract.disk, "diskGb can only be increased", ("diskGb",)),
            (type(count) is not int or count < contract.num_gpus, "GPUs cannot be removed", ("gpus", "count")),
            (gpus.get("gpuV0Name", details["v0Name"]) != details["v0Name"], "Only one GPU model", ("gpus",)),
        )
        if wrong
    ]
    if found:
        raise Refused(400, found)
    _resize(call, contract, vcpus, ram_gb, disk, count)
    name, status = contract.label or "", shown(call.engine, contract)
    return {"data": {"type": "virtualmachine", "id": contract.uid, "name": name, "status": status}}


def _resize(call: Call, contract: Contract, vcpus: int, ram_gb: int, disk: int, count: int) -> None:
    node = call.stock.numbered(contract.machine_id)
    free = call.stock.free(node, without=contract)
    if free.gpus < count or free.vcpus < vcpus or free.ram_gb < ram_gb or free.storage_gb < disk:
        raise embedded(400, OUT_OF_STOCK)
    now = call.engine.clock.now()
    contract.details.update(vcpus=vcpus, ram_gb=ram_gb)
    contract.disk, contract.num_gpus = float(disk), count
    contract.gpu_rate, contract.disk_rate = rates(node, count, vcpus, ram_gb, disk)
    for kind, rate in (("gpu", contract.gpu_rate), ("disk", contract.disk_rate)):
        if any(span.kind == kind and span.end is None for span in contract.spans):
            billing.close_spans(contract, (kind,), now)
            contract.spans.append(Span(kind, now, rate))
    call.engine.ledger.save(contract)


ROUTES = [
    Route("GET", "/instances", "list", list_instances),
    Route("GET", "/instances/{id}", "get", get_instance),
    Route("POST", "/instances/{id}/start", "update", start),
    Route("POST", "/instances/{id}/stop", "update", stop),
    Route("PUT", "/instances/{id}/modify", "update", modify),
    Route("DELETE", "/instances/{id}", "destroy", delete),
]
