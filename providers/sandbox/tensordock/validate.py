"""Reading a create's body: every fault of it is told at once, as an array (TensorDock contract, section 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from providers.sandbox.ssh import is_public_key
from providers.sandbox.tensordock.errors import Refused, issue
from providers.sandbox.tensordock.stock import Wanted

PLAIN_IMAGES = (
    "ubuntu2204",
    "ubuntu2404",
    "ubuntu2404_ml_everything",
    "ubuntu2404_ml_pytorch",
    "ubuntu2404_ml_tensorflow",
    "windows10",
)
IMAGES = (
    *PLAIN_IMAGES,
    "ubuntu2204_nvidia_550",
    "ubuntu2204_nvidia_570",
    "ubuntu2404_nvidia_550",
    "ubuntu2404_nvidia_570",
    "ubuntu2204_base",
    "ubuntu2404_base",
)
WINDOWS = "windows10"
#: What memory may be, in GB.
RAM_GB = (2, 4, 6, 8, 10, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 512)
LEAST_STORAGE_GB = 100
CLOUD_INIT = {
    "packages": list,
    "package_update": bool,
    "package_upgrade": bool,
    "runcmd": list,
    "write_files": list,
}
_AT = ("data", "attributes")
#: How the validator calls what JSON has.
_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}

Issues = list[dict[str, Any]]


def read(body: Any, few_images: bool) -> Wanted:
    """The order that the body means, or everything that is wrong with it."""
    found: Issues = []
    attributes = _attributes(body, found)
    resources = _object(attributes, "resources", found)
    v0, gpus = _gpus(resources, found)
    image = attributes.get("image")
    images = PLAIN_IMAGES if few_images else IMAGES
    if image not in images:
        expected = " | ".join(f"'{name}'" for name in images)
        text = f"Invalid enum value. Expected {expected}, received '{image}'"
        found.append(issue("invalid_enum_value", text, *_AT, "image", received=image, options=list(images)))
    dedicated = attributes.get("useDedicatedIp") is True
    forwards = _forwards(attributes, found)
    if image != WINDOWS and not dedicated and 22 not in [inside for inside, _ in forwards]:
        text = "SSH port (22) must be forwarded when not using a dedicated IP"
        found.append(issue("custom", text, *_AT, "port_forwards"))
    _check_login(attributes, image, found)
    wanted = Wanted(
        name=_name(attributes, found),
        image=str(image),
        vcpus=_count(resources, "vcpu_count", lambda n: n >= 2 and n % 2 == 0, "must be an even number", found),
        ram_gb=_count(resources, "ram_gb", lambda n: n in RAM_GB, f"must be one of {RAM_GB}", found),
        storage_gb=_count(
            resources, "storage_gb", lambda n: n >= LEAST_STORAGE_GB, "must be greater than or equal to 100", found
        ),
        v0=v0,
        gpus=gpus,
        location_id=str(attributes.get("location_id") or ""),
        hostnode_id=str(attributes.get("hostnode_id") or ""),
        dedicated=dedicated,
        forwards=forwards,
        ssh_key=str(attributes.get("ssh_key") or ""),
        ssh_key_id=str(attributes.get("ssh_key_id") or ""),
        cloud_init=_cloud_init(attributes, found),
    )
    _check_place(wanted, found)
    if found:
        raise Refused(400, found)
    return wanted


def _wrong_type(expected: str, value: Any, *path: str) -> dict[str, Any]:
    received = "undefined" if value is None else _NAMES.get(type(value), "unknown")
    text = "Required" if value is None else f"Expected {expected}, received {received}"
    return issue("invalid_type", text, *path, expected=expected, received=received)


def _attributes(body: Any, found: Issues) -> dict[str, Any]:
    """``data.attributes``; without it there is nothing else to say."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict):
        raise Refused(400, [_wrong_type("object", data, "data")])
    attributes = data.get("attributes")
    if not isinstance(attributes, dict):
        raise Refused(400, [_wrong_type("object", attributes, *_AT)])
    for value, path in ((data.get("type"), ("data", "type")), (attributes.get("type"), (*_AT, "type"))):
        if value != "virtualmachine":
            text = 'Invalid literal value, expected "virtualmachine"'
            found.append(issue("invalid_literal", text, *path, expected="virtualmachine", received=value))
    return attributes


def _object(attributes: dict[str, Any], name: str, found: Issues) -> dict[str, Any]:
    value = attributes.get(name)
    if isinstance(value, dict):
        return value
    found.append(_wrong_type("object", value, *_AT, name))
    return {}


def _name(attributes: dict[str, Any], found: Issues) -> str:
    name = attributes.get("name")
    if not isinstance(name, str):
        found.append(_wrong_type("string", name, *_AT, "name"))
    elif not name:
        found.append(issue("too_small", "String must contain at least 1 character(s)", *_AT, "name", minimum=1))
    return str(name)


def _count(resources: dict[str, Any], name: str, right: Callable[[int], bool], text: str, found: Issues) -> int:
    value = resources.get(name)
    path = (*_AT, "resources", name)
    if isinstance(value, bool) or not isinstance(value, int):
        found.append(_wrong_type("number", value, *path))
        return 0
    if not right(value):
        kind = "too_small" if name == "storage_gb" else "custom"
        found.append(issue(kind, f"{name} {text}", *path))
    return value


def _gpus(resources: dict[str, Any], found: Issues) -> tuple[str, int]:
    """``{"<v0Name>": {"count": N}}``; none at all is a machine without a GPU."""
    gpus = resources.get("gpus")
    path = (*_AT, "resources", "gpus")
    if gpus is None or gpus == {}:
        return "", 0
    if not isinstance(gpus, dict):
        found.append(_wrong_type("object", gpus, *path))
        return "", 0
    if len(gpus) > 1:
        found.append(issue("custom", "Only one GPU model is allowed", *path))
    v0, value = next(iter(gpus.items()))
    if not isinstance(value, dict):
        found.append(_wrong_type("object", value, *path, v0))
        return "", 0
    count = value.get("count")
    if isinstance(count, bool) or not isinstance(count, int):
        found.append(_wrong_type("number", count, *path, v0, "count"))
        return "", 0
    if count < 1:
        found.append(issue("too_small", "Number must be greater than or equal to 1", *path, v0, "count", minimum=1))
    return v0, count


def _check_place(wanted: Wanted, found: Issues) -> None:
    if bool(wanted.location_id) == bool(wanted.hostnode_id):
        text = "Exactly one of location_id and hostnode_id must be provided"
        found.append(issue("custom", text, *_AT, "location_id"))
    elif wanted.location_id and not wanted.gpus:
        text = "At least one GPU is required when deploying to a location"
        found.append(issue("custom", text, *_AT, "resources", "gpus"))


def _forwards(attributes: dict[str, Any], found: Issues) -> list[tuple[int, int]]:
    rows = attributes.get("port_forwards", [])
    path = (*_AT, "port_forwards")
    if not isinstance(rows, list):
        found.append(_wrong_type("array", rows, *path))
        return []
    forwards = []
    for index, row in enumerate(rows):
        ports = [row.get(name) if isinstance(row, dict) else None for name in ("internal_port", "external_port")]
        if not all(type(port) is int and 0 <= port <= 65_535 for port in ports) or not ports[0]:
            found.append(issue("custom", "Ports are numbers between 1 and 65535", *path, str(index)))
            continue
        forwards.append((int(ports[0]), int(ports[1] or 0)))
    return forwards


def _check_login(attributes: dict[str, Any], image: Any, found: Issues) -> None:
    key, key_id = attributes.get("ssh_key"), attributes.get("ssh_key_id")
    if image == WINDOWS:
        if len(str(attributes.get("password") or "")) < 8:
            text = "Password must be at least 8 characters"
            found.append(issue("too_small", text, *_AT, "password", minimum=8))
        return
    if bool(key) == bool(key_id):
        text = "Exactly one of ssh_key and ssh_key_id must be provided"
        found.append(issue("custom", text, *_AT, "ssh_key"))
    elif key and ("\n" in str(key).strip() or not is_public_key(str(key))):
        found.append(issue("custom", "Invalid SSH public key", *_AT, "ssh_key"))


def _cloud_init(attributes: dict[str, Any], found: Issues) -> dict[str, Any]:
    value = attributes.get("cloud_init")
    if value is None:
        return {}
    if not isinstance(value, dict):
        found.append(_wrong_type("object", value, *_AT, "cloud_init"))
        return {}
    for name, part in value.items():
        path = (*_AT, "cloud_init", name)
        kind = CLOUD_INIT.get(name)
        if kind is None:
            text = f"Unrecognized key(s) in object: '{name}'"
            found.append(issue("unrecognized_keys", text, *_AT, "cloud_init", keys=[name]))
        elif not isinstance(part, kind):
            found.append(_wrong_type(_NAMES[kind], part, *path))
    return value
