"""Which providers there are: how the broker is told of each, and where its account is in the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.sandbox import SandboxProcess, TensorDockSandbox

#: A fault as :meth:`SandboxProcess.fault` takes it.
Fault = Mapping[str, Any]


@dataclass(frozen=True)
class Face:
    """One provider, by one way. What differs between vendors by nature stands here: no test asks which it is."""

    name: str
    #: What the broker calls it.
    provider: str
    #: Whose side of the sandbox its accounts are on.
    sandbox: type[SandboxProcess]
    #: The broker's settings for it.
    configure: Callable[[SandboxProcess], dict[str, str]]
    #: The credential, which must show nowhere.
    secret: Callable[[SandboxProcess], str]
    #: Every form in which it says that calls come too often: settings of the sandbox, and parameters of the fault.
    too_many: tuple[tuple[Mapping[str, Any], Fault], ...]
    #: Every form in which it says that an offer is gone.
    gone: tuple[str, ...]
    #: Our seconds between two listings.
    list_seconds: float = 1.0
    #: How a machine that failed to start is told.
    failed_boots: tuple[Fault, ...] = field(
        default=({"kind": "boot_error", "mode": "oci"}, {"kind": "boot_exited"}),
    )


_VAST_TOO_MANY: tuple[tuple[Mapping[str, Any], Fault], ...] = (
    ({}, {"threshold": 4.5}),
    ({"retry_after": True}, {"threshold": 4.5}),
)

FACES = (
    Face(
        name="vastai",
        provider="vastai",
        sandbox=SandboxProcess,
        configure=lambda market: {"VASTAI_API_KEY": market.api_key, "VASTAI_BASE_URL": market.url},
        secret=lambda market: market.api_key,
        too_many=_VAST_TOO_MANY,
        gone=("400", "404", "410"),
        failed_boots=(
            {"kind": "boot_error", "mode": "oci"},
            {"kind": "boot_error", "mode": "pull"},
            {"kind": "boot_exited"},
        ),
    ),
    Face(
        name="lowcodeapi",
        provider="vastai",
        sandbox=SandboxProcess,
        configure=lambda market: {
            "VASTAI_TRANSPORT": "lowcodeapi",
            "LOWCODEAPI_API_TOKEN": f"at_{market.api_key}",
            "LOWCODEAPI_BASE_URL": f"{market.url}/lowcodeapi/vastai",
        },
        secret=lambda market: f"at_{market.api_key}",
        too_many=_VAST_TOO_MANY,
        gone=("400", "404", "410"),
    ),
    Face(
        name="tensordock",
        provider="tensordock",
        sandbox=TensorDockSandbox,
        configure=lambda market: {
            "TENSORDOCK_API_TOKEN": market.api_key,
            "TENSORDOCK_BASE_URL": f"{market.url}/tensordock/api/v2",
        },
        secret=lambda market: market.api_key,
        too_many=(({}, {"threshold": 4.5}), ({}, {"headers": False})),
        gone=("nodes", "hostnode", "ip", "ratio", "stock"),
        list_seconds=4.0,
    ),
)
