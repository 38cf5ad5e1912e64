"""A :class:`LaunchOrder` as the body of a create call (TensorDock contract, sections 5 and 10).

The machine is a virtual machine with one of the vendor's own images: there is no Docker image to choose, no template
and no entrypoint. What is to happen inside goes along as ``cloud_init``, whose ``runcmd`` runs as root once, when the
user exists (``write_files`` would come before, and files for keys are known to be unreliable).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from providers.base import Access, LaunchOrder
from providers.tensordock.instances import SSH_PORT
from providers.tensordock.slices import HOSTNODE, Slice

DEFAULT_IMAGE = "ubuntu2404"
#: Tried in this order after the preferred one, as hosts differ in what they accept (section 5.1): those that carry
#: the GPU's driver first.
FALLBACK_IMAGES = (
    "ubuntu2404_ml_everything",
    "ubuntu2404_ml_pytorch",
    "ubuntu2404_nvidia_570",
    "ubuntu2404",
    "ubuntu2204",
)
#: Less is refused, and more is what the machine gets (and is billed for) when less is asked for.
MIN_DISK_GB = 100
MAX_PORTS = 64
#: Names of this length are known to come back whole (section 5).
LABEL_LENGTH = 60
_MAX_PORT = 65_535
#: Those on which people log in by SSH.
IMAGE_NAMES = r"ubuntu[0-9]{4}(?:_[a-z0-9]+)*"
_IMAGE = re.compile(IMAGE_NAMES)
#: The broker puts Docker's tag behind image names.
_TAG = ":latest"
_KEY = re.compile(r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What means itself both to PAM and to a shell within double quotes.
_PLAIN_VALUE = re.compile(r"[ !%-\[\]-_a-~]*")


class BadOrder(ValueError):
    """The order cannot be sent; the message says why."""


class CannotDo(BadOrder):
    """The order asks for what the provider does not have."""


@dataclass(frozen=True, slots=True)
class Network:
    """How the machine is reached: an address of its own, or forwarded ports (inside, outside)."""

    dedicated: bool = False
    forwards: tuple[tuple[int, int], ...] = ()


def is_image(name: str) -> bool:
    """Whether this is the name of an image on which people log in by SSH."""
    return _IMAGE.fullmatch(name) is not None


def images(order: LaunchOrder, preferred: str) -> list[str]:
    """What to try, in this order. An image that the order names is the only one."""
    wanted = order.image.removesuffix(_TAG)
    if not wanted:
        return list(dict.fromkeys((preferred, *FALLBACK_IMAGES)))
    if not is_image(wanted):
        raise BadOrder(f"no Docker images here, only the provider's own, such as {DEFAULT_IMAGE}")
    return [wanted]


def inside_ports(order: LaunchOrder) -> tuple[int, ...]:
    """22, and what the order exposes."""
    ports = tuple(dict.fromkeys((SSH_PORT, *order.ports)))
    if len(ports) > MAX_PORTS + 1:
        raise BadOrder(f"at most {MAX_PORTS} ports")
    if not all(0 < port <= _MAX_PORT for port in ports):
        raise BadOrder("a port must be 1 to 65535")
    return ports


def check(order: LaunchOrder) -> None:
    """Raises :class:`CannotDo` for what no machine of this provider can do, and :class:`BadOrder`."""
    if not 0 < len(order.label) <= LABEL_LENGTH:
        raise BadOrder(f"a label must have 1 to {LABEL_LENGTH} characters, to be found again")
    if order.access == Access.ENTRYPOINT or order.args:
        raise CannotDo("an image cannot be run by its entrypoint")
    if order.template_id:
        raise CannotDo("there are no launch templates")
    if order.bid_price is not None:
        raise CannotDo("there are no interruptible machines")
    if not order.ssh_public_keys:
        raise BadOrder("a machine without an SSH key could not be entered")


def create_body(order: LaunchOrder, part: Slice, image: str, network: Network) -> dict[str, Any]:
    """The JSON to send. The first key goes the native way; all of them go by ``cloud_init`` as well, because the
    native way takes one only and does not always land (section 10)."""
    keys = [_plain_key(key) for key in order.ssh_public_keys]
    attributes: dict[str, Any] = {
        "name": order.label,
        "type": "virtualmachine",
        "image": image,
        "resources": {
            "vcpu_count": part.vcpus,
            "ram_gb": part.ram_gb,
            "storage_gb": max(order.disk_gb, MIN_DISK_GB),
            "gpus": {part.gpu: {"count": part.count}},
        },
        "hostnode_id" if part.placement == HOSTNODE else "location_id": part.place,
        "ssh_key": keys[0],
        "cloud_init": {"runcmd": [*_install(keys), *_environment(order), *_start(order)]},
    }
    if network.dedicated:
        attributes["useDedicatedIp"] = True
    else:
        attributes["port_forwards"] = [
            {"internal_port": inside, "external_port": outside} for inside, outside in network.forwards
        ]
    return {"data": {"type": "virtualmachine", "attributes": attributes}}


def _plain_key(text: str) -> str:
    """Type and body of a public key, which hold nothing that a shell could take for its own. The comment is dropped."""
    key = " ".join(text.split()[:2])
    if "\n" in text.strip() or not _KEY.fullmatch(key):
        raise BadOrder("an SSH public key must be one line: type, body and perhaps a comment")
    return key


def _install(keys: Sequence[str]) -> list[str]:
    """For the image's own user, and for root, in case a host's image has another user (section 10)."""
    commands = []
    for home, owner in (("/home/user", "user"), ("/root", "root")):
        held = f"{home}/.ssh/authorized_keys"
        commands.append(f"install -d -m 700 -o {owner} -g {owner} {home}/.ssh")
        # A line of its own, even after a file that does not end with one.
        commands += [f"printf '\\n%s\\n' '{key}' >> {held}" for key in keys]
        commands.append(f"chown {owner}:{owner} {held} && chmod 600 {held}")
    return commands


def _environment(order: LaunchOrder) -> list[str]:
    """Into the file that PAM reads at every login."""
    commands = []
    for name, value in order.env.items():
        if not _VARIABLE.fullmatch(name):
            raise BadOrder("an environment variable's name must be letters, digits and underscores")
        if not _PLAIN_VALUE.fullmatch(value) or "'" in value:
            raise BadOrder(f"the value of {name} holds quotes or other signs that no login would read right")
        commands.append(f"printf '%s\\n' '{name}=\"{value}\"' >> /etc/environment")
    return commands


def _start(order: LaunchOrder) -> list[str]:
    """Last, so that whatever it does, the keys are installed."""
    return [f"set -a; . /etc/environment; set +a\n{order.onstart}"] if order.onstart else []
