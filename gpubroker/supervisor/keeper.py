"""Runs a native program and ends it when the supervisor dies, where the system has no signal for that.

``python -m gpubroker.supervisor.keeper PROGRAM ARGUMENT...``; standard input and output are the program's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from gpubroker.common import lifeline


def main(command: list[str]) -> int:
    supervisor = int(os.environ[lifeline.ENV_NAME])
    parent = os.getppid()
    program = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: program.terminate())
    while (code := program.poll()) is None:
        if os.getppid() != parent or not lifeline.is_alive(supervisor):
            program.kill()
        time.sleep(0.2)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
