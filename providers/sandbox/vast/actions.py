"""Changing instances: state, label, destroy, bid, reboot, logs (Vast.ai contract, sections 4.6 and 4.8)."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web

from providers.sandbox.instances import Contract
from providers.sandbox.vast.errors import VastError, no_such_instance
from providers.sandbox.vast.gateway import Call, Route

log = logging.getLogger("sandbox.vast")
_QUEUED = "Required resources are currently unavailable, state change queued."


def update(call: Call) -> dict[str, Any]:
    """Start, stop or label one instance."""
    contract, answer = call.contract(), {"success": True}
    if "label" in call.body:
        answer = _set_label(call, contract)
    if "state" in call.body:
        answer = _set_state(call, contract, call.body["state"])
    return answer


def update_many(call: Call) -> dict[str, Any]:
    for contract_id in call.ids("ids"):
        contract = call.engine.find(call.account, contract_id)
        if contract is None:
            raise no_such_instance(contract_id)
        _set_state(call, contract, call.body.get("state"))
    return {"success": True}


def _set_label(call: Call, contract: Contract) -> dict[str, Any]:
    label = call.body["label"]
    if label is not None and len(str(label)) > 1024:
        raise VastError(400, "label_too_long", "Label is longer than 1024 characters.")
    call.engine.relabel(contract, None if label is None else str(label))
    return {"success": True, "msg": f"label for {contract.id} set to '{label}'"}


def _set_state(call: Call, contract: Contract, state: Any) -> dict[str, Any]:
    if state == "stopped":
        call.engine.stop(contract)
        return {"success": True}
    if state != "running":
        raise VastError(400, "invalid_args", f"error 400/3467: Invalid args: state {state!r}")
    if call.engine.credit(call.account) <= 0:
        raise VastError(400, "missing_billing", "Your account lacks credit; see the billing page.")
    if call.engine.start(contract):
        return {"success": True}
    return {"success": False, "msg": _QUEUED}


def destroy(call: Call) -> web.Response | dict[str, Any]:
    """End a contract for good; the second time it is not there any more."""
    return _destroy(call, call.contract())


def _destroy(call: Call, contract: Contract) -> web.Response | dict[str, Any]:
    refused = call.engine.faults.take(
        {"refuse_destroy"}, "destroy", instance_id=contract.id, label=contract.label, api_key=call.account.api_key
    )
    if refused:
        log.info("contract %s kept alive by a fault", contract.id)
        if refused.params.get("mode") == "error":
            return VastError(500, "server_error", "Something went wrong on the server").answer()
        if refused.params.get("mode") == "slow":
            call.engine.destroy_later(contract, float(refused.params.get("seconds", 5.0)))
        return {"success": True}
    call.engine.destroy(contract)
    log.info("contract %s destroyed", contract.id)
    return {"success": True}


def destroy_many(call: Call) -> web.Response | dict[str, Any]:
    for contract_id in call.ids("instance_ids"):
        contract = call.engine.find(call.account, contract_id)
        if contract is None:
            raise no_such_instance(contract_id)
        answer = _destroy(call, contract)
        if isinstance(answer, web.Response):
            return answer
    return {"success": True}


def change_bid(call: Call) -> dict[str, Any]:
    """A new bid; none means the winning one. A bid that loses stops the machine, one that wins wakes it."""
    contract = call.contract(VastError(404, "no_such_instance", "Instance with that ID does not exist."))
    least = call.engine.winning_bid(contract)
    price = call.body.get("price")
    price = least if price is None else price
    if isinstance(price, bool) or not isinstance(price, int | float) or price < 0.001:
        raise VastError(400, "invalid_args", "Please set a bid price >= 0.001.")
    if price > 32 * contract.num_gpus:
        raise VastError(400, "invalid_args", f"Please set a bid price <= {32 * contract.num_gpus}.")
    call.engine.change_rate(contract, float(price))
    if price < least and contract.current == "running":
        call.engine.stop(contract)
    elif price >= least and contract.current == "stopped":
        call.engine.start(contract)
    return {"success": True}


def reboot(call: Call) -> dict[str, Any]:
    call.engine.reboot(call.contract(VastError(400, "invalid_args", "invalid instance_id")))
    return {"success": True}


def recycle(call: Call) -> dict[str, Any]:
    call.engine.reboot(call.contract(VastError(400, "invalid_id", "Invalid instance id.")), "recycling")
    return {"success": True}


def request_logs(call: Call) -> dict[str, Any]:
    contract = call.contract(VastError(404, "invalid_id", "Invalid instance id."))
    lines = _log_lines(call, contract)
    wanted = str(call.body.get("filter") or "")
    lines = [line for line in lines if wanted in line]
    tail = str(call.body.get("tail") or "1000")
    lines = lines[-int(tail) :] if tail.isdigit() and int(tail) else lines
    url = _upload(call, "\n".join(lines) + "\n")
    return {"success": True, "result_url": url, "msg": "Logs requested; they appear at result_url."}


def _upload(call: Call, text: str) -> str:
    return f"{call.request.scheme}://{call.request.host}{call.engine.uploads.put(text)}"


def _log_lines(call: Call, contract: Contract) -> list[str]:
    phase = call.engine.phase(contract)
    lines = [f"Pulling {contract.image}", f"status: {phase.status or 'provisioning'}"]
    if phase.message:
        lines.append(phase.message.strip())
    if phase.running:
        lines += ["Starting OpenBSD Secure Shell server: sshd.", f"onstart: {contract.onstart or '(none)'}"]
    return lines


def execute(call: Call) -> dict[str, Any]:
    """The three commands that the vendor runs on an instance from outside."""
    contract = call.contract(VastError(400, "invalid_container_id", "Invalid container id."))
    command = str(call.body.get("command") or "")
    if command.split(" ")[0] not in ("ls", "rm", "du") or len(command) > 512:
        raise VastError(400, "invalid_args", "Only ls, rm and du are allowed.")
    listing = "onstart.sh\nworkspace\n" if command.startswith("ls") else ""
    url = _upload(call, listing)
    path = f"/var/lib/docker/containers/{contract.id}/"
    return {"success": True, "writeable_path": path, "result_url": url, "msg": "Command sent."}


ROUTES = [
    Route("PUT", r"/api/v0/instances/{id:\d+}/", "update", update),
    Route("PUT", "/api/v0/instances/", "update", update_many),
    Route("DELETE", r"/api/v0/instances/{id:\d+}/", "destroy", destroy),
    Route("DELETE", "/api/v0/instances/", "destroy", destroy_many),
    Route("PUT", r"/api/v0/instances/bid_price/{id:\d+}/", "bid", change_bid),
    Route("PUT", r"/api/v0/instances/reboot/{id:\d+}/", "reboot", reboot),
    Route("PUT", r"/api/v0/instances/recycle/{id:\d+}/", "recycle", recycle),
    Route("PUT", r"/api/v0/instances/request_logs/{id:\d+}/", "logs", request_logs),
    Route("PUT", r"/api/v0/instances/command/{id:\d+}/", "execute", execute),
]
