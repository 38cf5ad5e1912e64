"""``python -m tests.with_servers COMMAND...``: run a command with a real PostgreSQL and Valkey, and stop them after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests import servers

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(command: list[str]) -> int:
    if not command:
        sys.stderr.write("usage: python -m tests.with_servers COMMAND [ARGUMENT...]\n")
        return 2
    # Leaving by an exception runs the clean-up below; the default action of these signals would not.
    for number in SIGNALS:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with servers.postgres() as database_url, servers.valkey() as redis_url:
            return _run(command, {**os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url})
    except servers.ServerMissing as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(command: list[str], environment: dict[str, str]) -> int:
    program = subprocess.Popen(command, env=environment)
    try:
        code = program.wait()
        return code if code >= 0 else 128 - code
    finally:
        if program.poll() is None:
            program.terminate()
            program.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
