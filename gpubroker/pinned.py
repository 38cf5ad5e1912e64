"""Web processes that have as many cores as they are many: each keeps to one of its own.

Threads of one process take turns with Python's lock. On several cores the others wake up, find it taken and sleep
again, time after time; on one core nobody is awake but who has the lock. That is a third of what a quick answer costs
(docs/performance.md). Where there are fewer processes than cores, or more, the kernel does better.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

#: How many web processes there are, for each of them: set by ``roles.web``.
PROCESSES = "GPUBROKER_WEB_WORKERS"


def keep_to_one_core() -> int | None:
    """The core that this process, its later threads included, runs on from now on; ``None``: on all, as before. Linux
    only. To be called before anything else starts a thread."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or os.environ.get(PROCESSES) != str(len(cores)):
        return None
    # Where it is not allowed, or cannot be locked, all goes on as before.
    with contextlib.suppress(OSError), Path(__file__).open() as turn:
        # One after the other, as they all start at once.
        fcntl.flock(turn, fcntl.LOCK_EX)
        free = sorted(set(cores) - _taken())
        if free:
            os.sched_setaffinity(0, {free[0]})
            return free[0]
    return None


def _taken() -> set[int]:
    """The cores to which others of the same parent keep. One that has ended has left its core to whoever follows."""
    found: set[int] = set()
    parent = os.getppid()
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            with contextlib.suppress(OSError):
                cores = os.sched_getaffinity(int(child))
                if int(child) != os.getpid() and len(cores) == 1:
                    found |= cores
    return found
