"""How TensorDock says no: in four ways (TensorDock contract, section 7)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from providers.sandbox.replies import json_reply

NO_NODES = "No available nodes found for the requested configuration"
NODE_GONE = "Hostnode unavailable"
NO_ADDRESS = "No available public IPs on this hostnode"
RATIO = "RAM per GPU exceeds ratio limit for this hostnode"
DEPLOY_FAILED = "An unexpected error during deployment occurred; the deployment failed"
OUT_OF_STOCK = "resource_error: not enough capacity"
TOO_POOR = "You need at least $1.00 in your account balance to deploy a virtual machine"
#: ``shape`` of an ``offer_gone`` fault -> what it says
GONE_TEXTS = {
    "nodes": NO_NODES,
    "hostnode": NODE_GONE,
    "ip": NO_ADDRESS,
    "ratio": RATIO,
    "deploy": DEPLOY_FAILED,
    "stock": OUT_OF_STOCK,
}


class Refused(Exception):
    """Ends a call with this status and JSON."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body

    def answer(self) -> web.Response:
        return json_reply(self.body, status=self.status)


def plain(status: int, text: str) -> Refused:
    return Refused(status, {"error": text})


def embedded(status: int, text: str) -> Refused:
    """HTTP 200, and the refusal in the body."""
    return Refused(200, {"status": status, "error": text})


def unauthorized(status: int = 401) -> Refused:
    return plain(status, "Unauthorized" if status != 403 else "Forbidden")


def no_such_instance(as_200: bool) -> Refused:
    text = "Virtual machine instance not found"
    return embedded(404, text) if as_200 else plain(404, text)


def issue(code: str, message: str, *path: str, **more: Any) -> dict[str, Any]:
    """One entry of a validation array, in the way of the library that the vendor uses."""
    return {"code": code, **more, "path": list(path), "message": message}


def framework_error(status: int) -> web.Response:
    """What a path that nobody serves answers."""
    text = {404: "Not found", 405: "Method not allowed", 413: "Payload too large"}.get(status, "Internal server error")
    return plain(status, text).answer()
