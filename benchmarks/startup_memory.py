"""How long the embedded stack takes to its first answer, and how much memory all of it takes together.

Memory is the proportional set size over every process, the sandbox marketplace included: pages that several
processes share are counted once.
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path

from benchmarks.report import Result, show
from tests.stack import Stack, running

#: Ticks, sweeps and refreshes have all run by then.
SETTLE_SECONDS = 8.0
SECOND_START_BUDGET = 10.0
MEMORY_BUDGET_MB = 450.0


def pss_mb(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def role_of(pid: int) -> str:
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    if "gpubroker.roles" in arguments:
        return arguments[arguments.index("gpubroker.roles") + 1]
    return "queue" if "-server" in arguments[0] else "supervisor"


def memory(stack: Stack) -> dict[str, float]:
    """Megabytes by role."""
    totals: dict[str, float] = {}
    for pid in stack.pids():
        role = role_of(pid)
        totals[role] = totals.get(role, 0.0) + pss_mb(pid)
    return totals


def measure() -> list[Result]:
    results = []
    with tempfile.TemporaryDirectory(prefix="gpubroker-bench-") as folder:
        data_dir = Path(folder) / "data"
        for name, budget in (("first start", None), ("second start", SECOND_START_BUDGET)):
            with running(data_dir) as stack:
                results.append(Result(f"{name}, to ready", stack.wait_ready(), "s", budget))
                time.sleep(SETTLE_SECONDS)
                used = memory(stack)
                began = time.monotonic()
                stack.stop()
                results.append(Result(f"{name}, SIGTERM to stopped", time.monotonic() - began, "s", 10.0))
        results += [Result(f"memory of {role}", used[role], "MB") for role in sorted(used)]
        results.append(Result("memory in all", sum(used.values()), "MB", MEMORY_BUDGET_MB))
    return results


def main() -> None:
    show("startup_memory", measure())


if __name__ == "__main__":
    main()
