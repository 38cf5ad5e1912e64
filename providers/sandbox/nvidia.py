"""What nvidia-smi prints on a machine: the table, ``-L``, and ``--query-gpu`` as CSV."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import gmtime, strftime

from providers.sandbox.hardware import MODELS
from providers.sandbox.instances import Contract


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its driver sees it."""

    index: int
    count: int
    name: str
    memory_mb: int
    memory_used: int
    utilization: int
    temperature: int
    power: float
    power_limit: float
    driver: str
    cuda: float
    uuid: str
    bus_id: str
    compute_cap: str


def gpus_of(contract: Contract) -> list[Gpu]:
    """The GPUs that the container was given, or those of a ``wrong_gpu`` fault."""
    offer, wrong = contract.offer, contract.quirks.get("wrong_gpu")
    name, memory, count = str(offer["model"]["driver_name"]), int(offer["model"]["memory_mb"]), contract.num_gpus
    if wrong is not None:
        plain = not {"name", "count", "memory_mb"} & wrong.keys()
        name = str(wrong.get("name", name))
        count = int(wrong.get("count", count))
        memory = int(wrong.get("memory_mb", memory // 2 if plain else memory))
    load = float(contract.load.get("utilization", 0.0))
    watts = next((m.watts for m in MODELS if m.driver_name == name), 300)
    return [
        Gpu(
            index=index,
            count=count,
            name=name,
            memory_mb=memory,
            memory_used=int(contract.load.get("memory_used", 1)),
            utilization=int(load),
            temperature=int(31 + load * 0.42 + index % 3),
            power=round(watts * (0.06 + 0.9 * load / 100), 2),
            power_limit=float(watts),
            driver=str(offer["driver_version"]),
            cuda=float(offer["cuda_max_good"]),
            uuid=_uuid(contract.machine_id, contract.id, index),
            bus_id=f"00000000:{(index * 0x20 + 1) % 256:02X}:00.0",
            compute_cap=f"{offer['model']['compute_cap'] / 100:.1f}",
        )
        for index in range(count)
    ]


def _uuid(*parts: int) -> str:
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    return f"GPU-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


#: query field -> (column title with its unit, value, unit)
_FIELDS: dict[str, tuple[str, Callable[[Gpu, float], object], str]] = {
    "name": ("name", lambda g, _: g.name, ""),
    "gpu_name": ("name", lambda g, _: g.name, ""),
    "memory.total": ("memory.total [MiB]", lambda g, _: g.memory_mb, " MiB"),
    "memory.used": ("memory.used [MiB]", lambda g, _: g.memory_used, " MiB"),
    "memory.free": ("memory.free [MiB]", lambda g, _: g.memory_mb - g.memory_used, " MiB"),
    "utilization.gpu": ("utilization.gpu [%]", lambda g, _: g.utilization, " %"),
    "utilization.memory": ("utilization.memory [%]", lambda g, _: g.utilization // 2, " %"),
    "temperature.gpu": ("temperature.gpu", lambda g, _: g.temperature, ""),
    "driver_version": ("driver_version", lambda g, _: g.driver, ""),
    "uuid": ("uuid", lambda g, _: g.uuid, ""),
    "gpu_uuid": ("uuid", lambda g, _: g.uuid, ""),
    "index": ("index", lambda g, _: g.index, ""),
    "count": ("count", lambda g, _: g.count, ""),
    "power.draw": ("power.draw [W]", lambda g, _: f"{g.power:.2f}", " W"),
    "power.limit": ("power.limit [W]", lambda g, _: f"{g.power_limit:.2f}", " W"),
    "pci.bus_id": ("pci.bus_id", lambda g, _: g.bus_id, ""),
    "compute_cap": ("compute_cap", lambda g, _: g.compute_cap, ""),
    "pstate": ("pstate", lambda g, _: "P2" if g.utilization else "P8", ""),
    "timestamp": ("timestamp", lambda _, now: strftime("%Y/%m/%d %H:%M:%S.000", gmtime(now)), ""),
}


def nvidia_smi(arguments: Sequence[str], gpus: Sequence[Gpu], now: float) -> tuple[str, int]:
    """Output and exit code of one call."""
    if not gpus:
        return "No devices were found\n", 6
    chosen, query, formats = list(gpus), None, []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=")
        if name in ("--query-gpu", "--format", "--id", "-i") and not value:
            value = words.pop(0) if words else ""
        if name in ("-L", "--list-gpus"):
            return "".join(f"GPU {g.index}: {g.name} (UUID: {g.uuid})\n" for g in gpus), 0
        if name == "--query-gpu":
            query = [part.strip() for part in value.split(",")]
        elif name == "--format":
            formats = [part.strip() for part in value.split(",")]
        elif name in ("-i", "--id"):
            chosen = [g for g in gpus if str(g.index) in value.split(",") or g.uuid in value.split(",")]
        else:
            return f"Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n{word}\n", 2
    if query is None:
        return _table(chosen, now), 0
    return _csv(query, formats, chosen, now)


def _csv(query: Sequence[str], formats: Sequence[str], gpus: Sequence[Gpu], now: float) -> tuple[str, int]:
    for name in query:
        if name not in _FIELDS:
            return f'Field "{name}" is not a valid field to query.\n\n', 2
    if "csv" not in formats:
        return "\"--format=\" switch is missing. Please run 'nvidia-smi --help-query-gpu' for help.\n\n", 2
    units = "nounits" not in formats
    lines = [] if "noheader" in formats else [", ".join(_FIELDS[n][0] for n in query)]
    for gpu in gpus:
        lines.append(", ".join(f"{_FIELDS[n][1](gpu, now)}{_FIELDS[n][2] if units else ''}" for n in query))
    return "\n".join(lines) + "\n", 0


def _table(gpus: Sequence[Gpu], now: float) -> str:
    """The table that people read, in the layout of the 550 series."""
    first = gpus[0]
    rule = "+-----------------------------------------+------------------------+----------------------+"
    wide = "+-----------------------------------------------------------------------------------------+"
    head = f"NVIDIA-SMI {first.driver:<23}Driver Version: {first.driver:<15}CUDA Version: {first.cuda:<8}"
    lines = [
        strftime("%a %b %e %H:%M:%S %Y", gmtime(now)),
        wide,
        f"| {head:<87} |",
        rule,
        "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |",
        "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |",
        "|                                         |                        |               MIG M. |",
        "|=========================================+========================+======================|",
    ]
    for g in gpus:
        perf = "P2" if g.utilization else "P8"
        power = f"{g.power:.0f}W / {g.power_limit:>4.0f}W"
        memory = f"{g.memory_used}MiB / {g.memory_mb:>6}MiB"
        lines += [
            f"| {g.index:>3}  {g.name[:26]:<26} {'On':>6}  |   {g.bus_id} Off |                  Off |",
            f"| {30 + g.utilization // 3:>2}%  {g.temperature:>3}C    {perf}    {power:>20} | {memory:>22} |"
            f" {g.utilization:>6}%      Default |",
            "|                                         |                        |                  N/A |",
            rule,
        ]
    lines += [
        "",
        wide,
        "| Processes:                                                                              |",
        "|  GPU   GI   CI        PID   Type   Process name                              GPU Memory |",
        "|        ID   ID                                                               Usage      |",
        "|=========================================================================================|",
        "|  No running processes found                                                             |",
        wide,
    ]
    return "\n".join(lines) + "\n"
