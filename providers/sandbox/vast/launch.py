"""Reading a create's body: checks, template merge, runtype, environment, ports (Vast.ai contract, section 3.1)."""

from __future__ import annotations

import re
import shlex
from typing import Any

from providers.sandbox.orders import Order
from providers.sandbox.vast.errors import VastError

MIN_DISK = 8.0
DEFAULT_DISK = 10.0
_PORT = re.compile(r"^-p\s+(?:\d+:)?(\d+)(?:/(tcp|udp))?$")
#: runtype as a client says it -> words that the instance row shows
_WORDS = {
    "ssh": "ssh ssh_proxy",
    "ssh_proxy": "ssh ssh_proxy",
    "ssh_direct": "ssh ssh_direc ssh_proxy",
    "jupyter": "jupyter jupyter_proxy ssh_proxy",
    "jupyter_proxy": "jupyter jupyter_proxy ssh_proxy",
    "jupyter_direct": "jupyter jupyter_direc ssh_direc ssh_proxy",
    "args": "args",
    # what the vendor's own command line sends
    "ssh_direc ssh_proxy": "ssh ssh_direc ssh_proxy",
    "jupyter_proxy ssh_proxy": "jupyter jupyter_proxy ssh_proxy",
    "jupyter_direc ssh_direc ssh_proxy": "jupyter jupyter_direc ssh_direc ssh_proxy",
}
_SCALARS = ("image", "onstart", "runtype", "label", "disk", "args_str")


def invalid_args(text: str, code: str = "invalid_args") -> VastError:
    return VastError(400, code, f"error 400/3467: Invalid args: {text}")


def read_order(body: dict[str, Any], template: dict[str, Any] | None, room: float) -> Order:
    """What the body asks for, over what the template says; ``room`` is the offer's disk in GB."""
    merged = {**_of_template(template), **{k: v for k, v in body.items() if k in _SCALARS and v not in (None, "")}}
    args = _args(body, merged)
    runtype = _runtype(merged.get("runtype"), bool(args))
    env = {**parse_flags((template or {}).get("env") or ""), **_env(body.get("env"))}
    onstart = merged.get("onstart")
    if len(str(onstart or "")) + sum(len(arg) for arg in args) > 4096:
        raise invalid_args("onstart and args are longer than 4096 characters")
    ports = _ports(env, runtype)
    return Order(
        image=_image(merged.get("image")),
        runtype=runtype,
        disk=_disk(merged.get("disk", DEFAULT_DISK), room),
        label=_label(merged.get("label")),
        env=[[name, value] for name, value in env.items()],
        ports=ports,
        onstart=onstart,
        args=args,
        template={name: (template or {}).get(name) for name in ("id", "hash_id", "name")} if template else {},
        bid=_price(body.get("price")),
        start=body.get("target_state", "running") != "stopped",
    )


def _of_template(template: dict[str, Any] | None) -> dict[str, Any]:
    """The template's scalars in the words of a create."""
    if template is None:
        return {}
    image, tag = template["image"], template.get("tag") or template.get("default_tag")
    if tag and ":" not in image.rsplit("/", 1)[-1]:
        image = f"{image}:{tag}"
    direct = template.get("jup_direct") if template.get("runtype") == "jupyter" else template.get("ssh_direct")
    runtype = template.get("runtype") or "args"
    if runtype in ("ssh", "jupyter") and direct:
        runtype += "_direct"
    found = {"image": image, "runtype": runtype, "onstart": template.get("onstart") or None}
    if template.get("recommended_disk_space"):
        found["disk"] = template["recommended_disk_space"]
    if template.get("args_str"):
        found["args_str"] = template["args_str"]
    return {name: value for name, value in found.items() if value is not None}


def _args(body: dict[str, Any], merged: dict[str, Any]) -> list[str]:
    args = body.get("args")
    if isinstance(args, list):
        return [str(arg) for arg in args]
    text = args if isinstance(args, str) else merged.get("args_str") or ""
    try:
        return shlex.split(text)
    except ValueError:
        raise invalid_args("args_str cannot be split") from None


def _runtype(wanted: Any, has_args: bool) -> str:
    if wanted is None:
        wanted = "args" if has_args else "ssh"
    words = _WORDS.get(" ".join(str(wanted).split()))
    if words is None:
        raise invalid_args(f"runtype {wanted!r} is not known")
    return words


def _image(image: Any) -> str:
    if not isinstance(image, str) or not image.strip():
        raise invalid_args("image is required")
    if len(image) > 1024:
        raise invalid_args("image is longer than 1024 characters")
    if ":" not in image.rsplit("/", 1)[-1] and "@" not in image:
        raise VastError(500, "server_error", "Something went wrong on the server")
    return image.strip()


def _disk(disk: Any, room: float) -> float:
    if isinstance(disk, bool) or not isinstance(disk, int | float):
        raise invalid_args("disk is not a number")
    if disk < MIN_DISK:
        raise invalid_args(f"disk must be at least {MIN_DISK:.0f} GB")
    if disk > room:
        raise invalid_args(f"disk {disk} is more than the offer's disk_space {room}")
    return float(disk)


def _label(label: Any) -> str | None:
    if label is None:
        return None
    if len(str(label)) > 256:
        raise VastError(400, "label_too_long", "Label is longer than 256 characters.")
    return str(label)


def _price(price: Any) -> float | None:
    if price is None:
        return None
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0.001 <= price <= 128:
        raise VastError(400, "invalid_price", "Please set a price between 0.001 and 128 dollars per hour.")
    return float(price)


def _env(env: Any) -> dict[str, str]:
    """An object becomes pairs; a string is ignored without a word, as the server does (section 6, pitfall 23)."""
    if not isinstance(env, dict):
        return {}
    pairs = {str(name): str(value) for name, value in env.items()}
    if any(len(name) > 256 for name in pairs) or sum(len(k) + len(v) for k, v in pairs.items()) > 32768:
        raise invalid_args("env is too long")
    return pairs


def parse_flags(text: str) -> dict[str, str]:
    """A template's environment, written as docker flags: ``-e A=1 -p 8000:8000 -h name``."""
    try:
        words = shlex.split(text)
    except ValueError:
        return {}
    found: dict[str, str] = {}
    while words:
        flag = words.pop(0)
        if flag == "-e" and words:
            name, _, value = words.pop(0).partition("=")
            found[name] = value
        elif flag in ("-p", "-v") and words:
            found[f"{flag} {words.pop(0)}"] = "1"
        elif flag == "-h" and words:
            found["-h"] = words.pop(0)
    return found


def _ports(env: dict[str, str], runtype: str) -> list[str]:
    """Inside ports to publish: those asked for, and those that the runtype opens by itself."""
    found = []
    for name in env:
        match = _PORT.match(name)
        if match:
            found.append(f"{match.group(1)}/{match.group(2) or 'tcp'}")
    if "jupyter_direc" in runtype:
        found.append("8080/tcp")
    if "ssh_direc" in runtype:
        found.append("22/tcp")
    if len(set(found)) > 64:
        raise invalid_args("more than 64 ports")
    return list(dict.fromkeys(found))
