"""One rented machine: what is stored of it, and what it is doing at a moment (derived from the clock)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

#: Shares of the boot time after which the next thing is seen.
NULL_UNTIL = 0.15
CREATED_ERROR_AT = 0.5
#: A reboot takes this share of a boot.
REBOOT_SHARE = 0.4


@dataclass(slots=True)
class Span:
    """A stretch of billed time: ``kind`` "gpu", "disk" or, over in a second, "bwd" (traffic), ``rate`` in dollars per
    hour, open while ``end`` is None."""

    kind: str
    start: float
    rate: float
    end: float | None = None

    def dollars(self, until: float, since: float = 0.0) -> float:
        end = until if self.end is None else min(self.end, until)
        return max(0.0, end - max(self.start, since)) / 3600.0 * self.rate


@dataclass(slots=True)
class Contract:
    """A rented machine from create to destroy, and afterwards for the books."""

    id: int
    account_id: int
    ask_id: int
    machine_id: int
    num_gpus: int
    label: str | None
    created_at: float
    ends_at: float
    #: The offer's row as it was taken.
    offer: dict[str, Any]
    image: str
    #: Words such as ``ssh ssh_direc ssh_proxy``.
    runtype: str
    disk: float
    gpu_rate: float
    disk_rate: float
    #: What the machine may be reached by: ``{"22/tcp": 20017}``; outside ports.
    ports: dict[str, int]
    proxy_port: int
    host_key: str
    instance_key: str
    jupyter_token: str
    env: list[list[str]] = field(default_factory=list)
    onstart: str | None = None
    args: list[str] = field(default_factory=list)
    template: dict[str, Any] = field(default_factory=dict)
    #: Dollars per hour offered; None is an on-demand contract.
    bid: float | None = None
    #: What somebody else pays for its GPUs since our bid lost, dollars per hour; 0: nobody.
    rival_bid: float = 0.0
    intended: str = "running"
    current: str = "running"
    holds_gpus: bool = True
    #: When the present boot began, and what it is: "boot", "rebooting", "recycling".
    boot_at: float = 0.0
    boot_seconds: float = 3.0
    boot_kind: str = "boot"
    #: Faults that stick to this machine, by kind with their parameters.
    quirks: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: A status put on it from outside: "exited", "offline", ...
    halted: str | None = None
    note: str | None = None
    visible_at: float = 0.0
    #: A destroy was accepted that takes until then.
    dies_at: float | None = None
    destroyed_at: float | None = None
    spans: list[Span] = field(default_factory=list)
    #: GPU load as nvidia-smi shows it: utilization (%), memory_used (MiB).
    load: dict[str, float] = field(default_factory=dict)
    #: What its vendor calls it, where that is not its number.
    uid: str = ""
    #: Who logs in with its keys; ``more_keys``: other users' own keys.
    user: str = "root"
    more_keys: dict[str, list[str]] = field(default_factory=dict)
    #: An address that no other machine has; empty: the marketplace's.
    address: str = ""
    #: GPUs are billed from the order on, not from when the machine runs.
    bills_boot: bool = False
    #: SSH answers so many seconds after it runs.
    ssh_after: float = 0.0
    #: It is removed when its account has been below zero for so many seconds; None: never.
    removed_after: float | None = None
    #: What only its vendor's face knows of it.
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Contract:
        data = json.loads(text)
        data["spans"] = [Span(**span) for span in data["spans"]]
        return cls(**data)

    @property
    def name(self) -> int | str:
        """What its vendor calls it."""
        return self.uid or self.id

    @property
    def boot_done_at(self) -> float:
        return self.boot_at + self.boot_seconds

    @property
    def ssh_ports(self) -> tuple[int, ...]:
        """Where its SSH server answers: the direct port if there is one, and the proxy's.

        The proxy serves a jupyter machine's SSH one port above the one that it names (Vast.ai contract, section 4.5).
        """
        if "ssh" not in self.runtype and "jupyter" not in self.runtype:
            return ()
        direct = self.ports.get("22/tcp")
        return tuple(port for port in (direct, self.answering_proxy) if port)

    @property
    def answering_proxy(self) -> int:
        """The proxy's port that is ours; 0 where there is no proxy."""
        return self.proxy_port + (1 if "jupyter" in self.runtype else 0) if self.proxy_port else 0

    @property
    def http_ports(self) -> tuple[int, ...]:
        """Where the program of a machine that runs its image as it is answers: every TCP port that is published."""
        if self.runtype != "args":
            return ()
        return tuple(outside for inside, outside in self.ports.items() if inside.endswith("/tcp"))

    def dollars(self, kind: str, until: float, since: float = 0.0) -> float:
        return sum(span.dollars(until, since) for span in self.spans if span.kind == kind)


@dataclass(frozen=True, slots=True)
class Phase:
    """What a machine is doing: the status that the vendor would show, and its message."""

    status: str | None
    message: str | None
    running: bool = False


_IMAGE_GONE = "Error response from daemon: manifest for {image} not found: manifest unknown: manifest unknown"
_OCI = (
    "Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime create "
    "failed: runc create failed: unable to start container process: error during container init: nvidia-container-cli: "
    "initialization error: driver error: failed to process request: unknown"
)


def phase(contract: Contract, now: float) -> Phase:
    """What the machine is doing at ``now`` (Vast.ai contract, section 4.4)."""
    if contract.halted:
        return Phase(contract.halted, contract.note)
    if contract.current == "stopped":
        return Phase("stopped", contract.note)
    if contract.boot_kind != "boot" and now < contract.boot_done_at:
        return Phase(contract.boot_kind, None)
    share = (now - contract.boot_at) / contract.boot_seconds if contract.boot_seconds > 0 else 1.0
    if share < NULL_UNTIL and share < 1:
        return Phase(None, None)
    failed = _failed_boot(contract, share)
    if failed:
        return failed
    if share < 1:
        return Phase("loading", _progress(contract, share))
    return Phase("running", f"success, running {contract.image}/{contract.runtype.split()[0]}\n", running=True)


def _failed_boot(contract: Contract, share: float) -> Phase | None:
    """The phase of a machine that will never come up, if it is one."""
    quirks = contract.quirks
    if "boot_never" in quirks:
        return Phase("loading", _progress(contract, min(share, 0.79)))
    if "boot_error" in quirks and share >= CREATED_ERROR_AT:
        message = quirks["boot_error"].get("message")
        if quirks["boot_error"].get("mode", "oci") == "pull":
            return Phase("loading", message or _IMAGE_GONE.format(image=contract.image))
        return Phase("created", message or _OCI)
    if "boot_exited" in quirks and share >= 1:
        return Phase("exited", quirks["boot_exited"].get("message") or f"{contract.image} exited with code 1")
    return None


def _progress(contract: Contract, share: float) -> str:
    layer = f"{abs(hash_of(contract.image)) % 0xFFFFFFFFFFFF:012x}"
    if share < 0.35:
        return f"{layer}: Pulling fs layer"
    if share < 0.6:
        return f"{layer}: Downloading [{'=' * int(share * 40)}>] {share * 100:.0f}%"
    if share < 0.8:
        return f"{layer}: Extracting {share * 100:.0f}%"
    return f"Status: Downloaded newer image for {contract.image}"


def hash_of(text: str) -> int:
    """A small number that is the same in every process (unlike ``hash``)."""
    value = 5381
    for char in text:
        value = (value * 33 + ord(char)) & 0xFFFFFFFFFFFFFFF
    return value


def will_run(contract: Contract) -> bool:
    """Whether its present boot ends in a running machine."""
    return not {"boot_never", "boot_error", "boot_exited"} & contract.quirks.keys()
