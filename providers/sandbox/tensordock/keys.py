"""Secrets, which SSH keys are kept as (TensorDock contract, section 6.6)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from providers.sandbox.ledger import Secret
from providers.sandbox.ssh import is_public_key
from providers.sandbox.tensordock.errors import Refused, issue, plain
from providers.sandbox.tensordock.gateway import Call, Route

SSHKEY = "SSHKEY"


def _brief(secret: Secret) -> dict[str, Any]:
    return {"id": secret.id, "name": secret.name, "type": secret.type}


def list_secrets(call: Call) -> dict[str, Any]:
    return {"data": {"secrets": [_brief(secret) for secret in call.engine.ledger.secrets(call.account.id)]}}


def create_secret(call: Call) -> dict[str, Any]:
    found, given = [], call.attributes
    for name in ("name", "type", "value"):
        if not isinstance(given.get(name), str) or not given[name]:
            found.append(issue("invalid_type", "Required", "data", "attributes", name, expected="string"))
    if not found and given["type"] == SSHKEY and not is_public_key(given["value"]):
        found.append(issue("custom", "Invalid SSH public key", "data", "attributes", "value"))
    if found:
        raise Refused(400, found)
    secret = Secret(str(uuid4()), given["name"], given["type"], given["value"])
    call.engine.ledger.add_secret(call.account.id, secret)
    return {"data": _brief(secret)}


def get_secret(call: Call) -> dict[str, Any]:
    for secret in call.engine.ledger.secrets(call.account.id):
        if secret.id == call.request.match_info["id"]:
            return {"data": {**_brief(secret), "value": secret.value}}
    raise plain(404, "Secret not found")


def delete_secret(call: Call) -> dict[str, Any]:
    if not call.engine.ledger.remove_secret(call.account.id, call.request.match_info["id"]):
        raise plain(404, "Secret not found")
    return {"data": {"type": "success", "attributes": {"message": "Secret deleted successfully"}}}


ROUTES = [
    Route("GET", "/secrets", "ssh_list", list_secrets),
    Route("POST", "/secrets", "ssh_add", create_secret),
    Route("GET", "/secrets/{id}", "ssh_list", get_secret),
    Route("DELETE", "/secrets/{id}", "ssh_delete", delete_secret),
]
