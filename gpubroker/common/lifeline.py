"""A child of the supervisor does not outlive it, however the supervisor ends.

Linux sends a signal to the direct children when their parent dies (``supervisor/child.py``), but not to grandchildren
such as the web server's own worker process, and other systems have no such signal. So every Python process that the
supervisor brought about watches for itself.
"""

from __future__ import annotations

import os
import threading
import time

ENV_NAME = "GPUBROKER_SUPERVISOR_PID"
LOOK_EVERY_SECONDS = 0.5

#: The process that already watches. A pid, not a flag: a forked child inherits the flag but not the thread.
_watching_in = 0


def start() -> None:
    """Watch the supervisor and our own parent from a thread; does nothing when no supervisor started us."""
    global _watching_in
    supervisor = os.environ.get(ENV_NAME, "")
    if not supervisor.isdigit() or _watching_in == os.getpid():
        return
    _watching_in = os.getpid()
    threading.Thread(target=_watch, args=(int(supervisor), os.getppid()), name="lifeline", daemon=True).start()


def _watch(supervisor: int, parent: int) -> None:
    # A dead supervisor that nobody has waited for still has its pid, so our parent's change counts as well.
    while os.getppid() == parent and is_alive(supervisor):
        time.sleep(LOOK_EVERY_SECONDS)
    os._exit(1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
