"""SSH keys of the account and of single instances (Vast.ai contract, section 4.7)."""

from __future__ import annotations

import json
from time import gmtime, strftime
from typing import Any

from aiohttp import web

from providers.sandbox.ledger import Key
from providers.sandbox.replies import json_reply
from providers.sandbox.ssh import is_public_key, key_body
from providers.sandbox.vast.errors import VastError, no_such_instance
from providers.sandbox.vast.gateway import Call, Route


def _view(key: Key, owner: int, column: str = "key") -> dict[str, Any]:
    when = strftime("%Y-%m-%dT%H:%M:%S", gmtime(key.created_at))
    return {"id": key.id, "user_id": owner, column: key.text, "created_at": when, "deleted_at": None}


def _wanted_key(call: Call) -> str:
    text = str(call.body.get("ssh_key") or "").strip()
    if not text:
        raise VastError(400, "no_ssh_key", "No SSH key was given.")
    if not is_public_key(text):
        raise VastError(400, "invalid_request", "Invalid SSH key.")
    return text


def list_account_keys(call: Call) -> web.Response:
    """A bare array; an account without keys is a 404."""
    keys = call.engine.ledger.account_keys(call.account.id)
    if not keys:
        raise VastError(404, "no_ssh_key", "No SSH keys found for the user.")
    return json_reply([_view(key, call.account.id) for key in keys])


def add_account_key(call: Call) -> dict[str, Any]:
    text = _wanted_key(call)
    key = call.engine.ledger.add_account_key(call.account.id, text, call.engine.clock.now())
    return {"success": True, "key": _view(key, call.account.id, "public_key")}


def change_account_key(call: Call) -> dict[str, Any]:
    if not call.engine.ledger.change_account_key(call.account.id, call.number(), _wanted_key(call)):
        raise VastError(404, "no_such_ssh_key", "SSH key not found.")
    return {"success": True}


def remove_account_key(call: Call) -> dict[str, Any]:
    if not call.engine.ledger.remove_account_key(call.account.id, call.number()):
        raise VastError(400, "no_ssh_key", "SSH key not found.")
    return {"success": True}


def list_instance_keys(call: Call) -> dict[str, Any]:
    """The keys as a JSON text inside the JSON."""
    contract = call.contract()
    keys = call.engine.ledger.instance_keys(contract.id)
    return {"success": True, "ssh_keys": json.dumps([_view(key, call.account.id, "public_key") for key in keys])}


def attach(call: Call) -> dict[str, Any]:
    """One more key for a machine; it opens the door a moment later. The same key again changes nothing."""
    contract, text = call.contract(), _wanted_key(call)
    present = {key_body(key.text) for key in call.engine.ledger.instance_keys(contract.id)}
    if key_body(text) not in present:
        call.engine.attach_key(contract, text)
    return {"success": True, "msg": "SSH key attached successfully"}


def detach(call: Call) -> dict[str, Any]:
    contract = call.contract(no_such_instance(call.number()))
    if not call.engine.ledger.remove_instance_key(contract.id, call.number("key")):
        raise VastError(404, "no_such_ssh_key", "SSH key not found on this instance.")
    return {"success": True, "msg": "SSH key removed from instance."}


ROUTES = [
    Route("GET", "/api/v0/ssh/", "ssh_list", list_account_keys),
    Route("POST", "/api/v0/ssh/", "ssh_add", add_account_key),
    Route("PUT", r"/api/v0/ssh/{id:\d+}/", "ssh_update", change_account_key),
    Route("DELETE", r"/api/v0/ssh/{id:\d+}/", "ssh_delete", remove_account_key),
    Route("GET", r"/api/v0/instances/{id:\d+}/ssh/", "instance_keys", list_instance_keys),
    Route("POST", r"/api/v0/instances/{id:\d+}/ssh/", "attach", attach),
    Route("DELETE", r"/api/v0/instances/{id:\d+}/ssh/{key:\d+}/", "detach", detach),
]
