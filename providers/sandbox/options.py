"""How a sandbox is started, and what may be changed while it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

DEFAULT_KEY = "sandbox-key"
DEFAULT_TENSORDOCK_TOKEN = "sandbox-tensordock-token"  # noqa: S105 - opens the sandbox only


@dataclass(frozen=True, slots=True)
class Options:
    """What ``python -m providers.sandbox`` takes. ``data_dir`` holds the ledger and survives restarts."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8900
    boot_seconds: float = 3.0
    #: Factor on the vendor's published minimum intervals; 0 switches rate limits off.
    pace: float = 1.0
    #: At least so many offers that a default search can see.
    offers: int = 320
    seed: int = 7
    api_keys: tuple[str, ...] = (DEFAULT_KEY,)
    #: Dollars that each new account begins with.
    credit: float = 100.0
    speed: float = 1.0
    #: Sandbox seconds until an attached key is accepted.
    key_delay: float = 0.5
    #: The address that clients are told for SSH; empty: the one that is listened on.
    public_host: str = ""
    #: One account of the TensorDock face per token.
    tensordock_tokens: tuple[str, ...] = (DEFAULT_TENSORDOCK_TOKEN,)
    #: Sandbox seconds from a TensorDock delete to its end.
    delete_seconds: float = 1.0
    #: Where machines with an address of their own listen for SSH; 0: there are none.
    dedicated_port: int = 22

    @property
    def address(self) -> str:
        """Where machines say that they are."""
        if self.public_host:
            return self.public_host
        return "127.0.0.1" if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104 - a comparison


CHOICES: Mapping[str, tuple[str, ...]] = {
    "list_shape": ("flat", "nested", "list"),
    "status_case": ("lower", "title", "upper"),
    "stop_state": ("stopped", "stoppeddisassociated"),
    "limits_clock": ("wall", "sandbox"),
}


@dataclass(slots=True)
class Settings:
    """Behaviour that tests switch at run time through ``/_sandbox/settings``."""

    boot_seconds: float = 3.0
    pace: float = 1.0
    key_delay: float = 0.5
    #: Answer of a create on a taken offer: "400", "404", "410", or "auto" (by offer id).
    gone_shape: str = "auto"
    #: Status of an unknown API key: 404 as seen lately, 401 as older documents have it.
    bad_key_status: int = 404
    #: Send ``Retry-After`` and its companions with a 429; the vendor says that it does not.
    retry_after: bool = False
    #: What the limits are measured by: the wall's time, or the sandbox's, for tests that move that.
    limits_clock: str = "wall"
    #: Sandbox seconds between two background changes of the market; 0 is a quiet market.
    churn_seconds: float = 0.0
    #: HTTP status of a create whose bid is too low (the contract exists all the same).
    low_bid_status: int = 200
    # From here on, what only the TensorDock face does; its contract has seen each of these.
    delete_seconds: float = 1.0
    #: Factor on the vendor's real latencies (locations 4.5 s, create 20 s, delete 15 s); 0: at once.
    latency: float = 0.0
    #: Shape of the instance list: flat, nested or list; ``list_detail``: its rows carry all that a look does.
    list_shape: str = "flat"
    list_detail: bool = False
    #: How status words are written: lower, title or upper.
    status_case: str = "lower"
    #: What a stop leads to: stopped (billed in full) or stoppeddisassociated (the GPU is given away).
    stop_state: str = "stopped"
    #: A machine that is not there: HTTP 404, or 200 with the 404 in its body.
    gone_as_200: bool = False
    hostnodes_empty: bool = False
    #: ``/locations`` goes on to show what is taken.
    stale_stock: bool = False
    #: Port forwards are accepted and dropped.
    ports_ignored: bool = False
    #: Hosts take only the images without ``_nvidia_`` and ``_base``.
    few_images: bool = False
    #: The old API answers 404.
    v0_gone: bool = False

    def update(self, changes: Mapping[str, Any]) -> None:
        """Change by name; a wrong name or type is a ``ValueError`` and changes nothing."""
        kinds = {f.name: type(getattr(self, f.name)) for f in fields(self)}
        wanted: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in kinds:
                raise ValueError(f"unknown setting {name!r}; known: {', '.join(sorted(kinds))}")
            wanted[name] = kinds[name](value)
            if name in CHOICES and value not in CHOICES[name]:
                raise ValueError(f"{name} is one of {', '.join(CHOICES[name])}, not {value!r}")
        for name, value in wanted.items():
            setattr(self, name, value)


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """One command line option and its environment variable."""

    name: str
    kind: type
    default: Any
    help: str
    env: str = field(default="")


SPECS: tuple[OptionSpec, ...] = (
    OptionSpec("host", str, "127.0.0.1", "address to listen on"),
    OptionSpec("port", int, 8900, "port to listen on; 0 picks a free one"),
    OptionSpec("data-dir", Path, Path("var/sandbox"), "where the ledger lives; it survives restarts"),
    OptionSpec("boot-seconds", float, 3.0, "sandbox seconds from create to running"),
    OptionSpec("pace", float, 1.0, "factor on the vendor's minimum intervals; 0 = no rate limits"),
    OptionSpec("offers", int, 320, "at least so many offers in a default search"),
    OptionSpec("seed", int, 7, "the market is generated from it"),
    OptionSpec("credit", float, 100.0, "dollars that a new account begins with"),
    OptionSpec("speed", float, 1.0, "sandbox seconds per wall second"),
    OptionSpec("public-host", str, "", "address that clients are told for SSH, if not the one listened on"),
    OptionSpec("key-delay", float, 0.5, "sandbox seconds until an attached SSH key is accepted"),
    OptionSpec("delete-seconds", float, 1.0, "sandbox seconds that a TensorDock delete takes"),
    OptionSpec("dedicated-port", int, 22, "SSH port of TensorDock machines with an address of their own; 0 = none"),
)


def env_name(option: str) -> str:
    return "SANDBOX_" + option.upper().replace("-", "_")


def default_of(spec: OptionSpec, environ: Mapping[str, str] | None = None) -> Any:
    """The environment's value, else the built-in one. A value of the wrong type is a ``ValueError``."""
    text = (os.environ if environ is None else environ).get(env_name(spec.name), "")
    if not text:
        return spec.default
    try:
        return spec.kind(text)
    except ValueError:
        kind = "a whole number" if spec.kind is int else "a number"
        raise ValueError(f"{env_name(spec.name)} must be {kind}, not {text!r}") from None
