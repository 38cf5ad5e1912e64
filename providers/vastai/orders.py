"""A :class:`LaunchOrder` as the body of a create call (Vast.ai contract, section 3.1)."""

from __future__ import annotations

import re
import shlex
from typing import Any

from providers.base import Access, LaunchOrder
from providers.vastai.instances import SSH_PORT

#: The vendor's own base image; the tag lets it pick the CUDA that fits the host. An image without a tag is refused.
DEFAULT_IMAGE = "vastai/base-image:@vastai-automatic-tag"
#: Direct SSH with the proxy beside it, in the spelling (sic) that the vendor's own client sends.
RUNTYPE_SSH = "ssh_direc ssh_proxy"
RUNTYPE_ARGS = "args"
MAX_PORTS = 64
_MAX_PORT = 65_535
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BadOrder(ValueError):
    """The order cannot be sent; the message says why."""


def create_body(order: LaunchOrder, *, with_keys: bool = False) -> dict[str, Any]:
    """The JSON to send. Raises :class:`BadOrder` for what would be misread rather than refused.

    * ``cancel_unavail`` is always true: without it a taken offer leaves a stopped instance whose disk is billed.
    * ``env`` is an object; variables and port flags share it, so a variable whose name could pass for a flag
      is not let through. A string there would be ignored by the vendor without a word.
    * ``args`` run the image as it is, with ``onstart`` as its entrypoint and without an SSH server.
    * A template brings its own image and way of launching; what the order names wins over it, so that
      ``access`` gets SSH even out of a template that runs its image as it is.
    * ``with_keys`` sends the SSH keys along: see :func:`_keys`.
    """
    if not order.label:
        raise BadOrder("an order without a label could never be found again")
    body: dict[str, Any] = {
        "client_id": "me",
        "label": order.label,
        "disk": order.disk_gb,
        "env": _environment(order),
        "cancel_unavail": True,
    }
    if order.template_id:
        body["template_hash_id"] = order.template_id
    if order.image or not order.template_id:
        body["image"] = order.image or DEFAULT_IMAGE
    if _as_it_is(order):
        body |= {"runtype": RUNTYPE_ARGS, "args": list(order.args), "user": "root"}
    elif not order.template_id or order.access == Access.SSH:
        body["runtype"] = RUNTYPE_SSH
    if order.onstart:
        body["onstart"] = order.onstart
    if with_keys and order.ssh_public_keys and not _as_it_is(order):
        body |= _keys(order)
    if order.bid_price is not None:
        if not order.bid_price.is_finite() or order.bid_price <= 0:
            raise BadOrder("a bid must be more than 0 dollars an hour")
        # Its mere presence makes the machine interruptible.
        body["price"] = order.bid_price
    return body


def _keys(order: LaunchOrder) -> dict[str, Any]:
    """The order's keys in both ways that a create knows: ``ssh_key``, which the vendor takes but does not always heed,
    and lines at the head of the start script, which last for hours (section 6, pitfall 13). Never on the account, where
    they would open everybody's machines. A template's own start script is left alone: ours would replace it."""
    keys = [key.strip() for key in order.ssh_public_keys]
    if any(not key or "\n" in key for key in keys):
        raise BadOrder("an SSH public key must be one line")
    found: dict[str, Any] = {"ssh_key": "\n".join(keys)}
    if not order.template_id:
        install = f"mkdir -p ~/.ssh && chmod 700 ~/.ssh && printf '%s\\n' {shlex.join(keys)} >> ~/.ssh/authorized_keys"
        found["onstart"] = f"{install}\n{order.onstart}" if order.onstart else install
    return found


def _as_it_is(order: LaunchOrder) -> bool:
    return order.access == Access.ENTRYPOINT or bool(order.args)


def _environment(order: LaunchOrder) -> dict[str, str]:
    environment: dict[str, str] = {}
    for name, value in order.env.items():
        if not _VARIABLE.fullmatch(name):
            raise BadOrder("an environment variable's name must be letters, digits and underscores")
        environment[name] = value
    ports = [port for port in dict.fromkeys(order.ports) if _as_it_is(order) or port != SSH_PORT]
    if len(ports) > MAX_PORTS:
        raise BadOrder(f"at most {MAX_PORTS} ports")
    for port in ports:
        if not 0 < port <= _MAX_PORT:
            raise BadOrder(f"{port} is no port")
        environment[f"-p {port}:{port}"] = "1"
    return environment
