"""One child process: in its own group, tied to our life, its output ours to read, started again when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gpubroker.supervisor.output import LogFile, Terminal, warning_in

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
#: After so long a life a death is news, not one more in a row.
GOOD_LIFE_SECONDS = 60.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Spec:
    name: str
    command: list[str]
    environment: dict[str, str] = field(repr=False)
    #: Given on standard input, then closed.
    stdin: bytes = field(default=b"", repr=False)
    #: Seconds between SIGTERM and SIGKILL.
    grace: float = 3.0
    #: A descriptor that the child inherits, to report on.
    report_to: int | None = None


def tie_to_parent() -> Callable[[], None] | None:
    """For ``preexec_fn``: have Linux kill the child when we die, in whatever way."""
    if sys.platform != "linux":
        return None
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    supervisor = os.getpid()

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # we died before the call
            os._exit(1)

    return in_child


class Child:
    def __init__(self, spec: Spec, log: LogFile, terminal: Terminal) -> None:
        self.spec = spec
        self.log = log
        self.terminal = terminal
        self.process: subprocess.Popen[bytes] | None = None
        self.deaths_in_a_row = 0
        self.started_at = 0.0
        #: When to start it again, while it is dead.
        self.due_at: float | None = None
        self.last_line = ""
        self._rest = b""

    def start(self) -> None:
        self.due_at = None
        self.started_at = time.monotonic()
        self.last_line = ""
        spec = self.spec
        self.process = subprocess.Popen(
            spec.command,
            env=spec.environment,
            stdin=subprocess.PIPE if spec.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=() if spec.report_to is None else (spec.report_to,),
            # Its own session: Ctrl-C reaches us alone, and we end children in good order.
            start_new_session=True,
            # Safe between fork and exec, because this process has no threads.
            preexec_fn=tie_to_parent(),
        )
        if self.process.stdout is not None:
            os.set_blocking(self.process.stdout.fileno(), False)
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:
                pipe.write(spec.stdin)

    @property
    def output(self) -> int | None:
        """The descriptor to read its output from, until it ends."""
        if self.process is None or self.process.stdout is None or self.process.stdout.closed:
            return None
        return self.process.stdout.fileno()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def read(self) -> bool:
        """Take over what it has written; False at the end of its output."""
        descriptor = self.output
        if descriptor is None:
            return False
        with contextlib.suppress(BlockingIOError):
            data = os.read(descriptor, 65536)
            if not data:
                return False
            self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        self.log.write(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        # A line without an end must not grow for ever in our memory.
        self._rest = self._rest[-65536:]
        for raw in lines:
            line = raw.decode(errors="replace").rstrip()
            self.last_line = line or self.last_line
            if warning := warning_in(line):
                self.terminal.warning(self.spec.name, warning)

    def reap(self) -> int | None:
        """The exit code of a process that has ended since the last look, else None."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        # A helper of it may have inherited its output, so the end of the stream may never come.
        for _ in range(64):
            if not self.read():
                break
        self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return code

    def plan_restart(self) -> float:
        """Set and return the pause until its next start."""
        if time.monotonic() - self.started_at > GOOD_LIFE_SECONDS:
            self.deaths_in_a_row = 0
        pause = min(FIRST_PAUSE_SECONDS * 2.0**self.deaths_in_a_row, LONGEST_PAUSE_SECONDS)
        self.deaths_in_a_row = min(self.deaths_in_a_row + 1, 16)
        self.due_at = time.monotonic() + pause
        return pause

    def terminate(self) -> None:
        if self.process is not None and self.running:
            self.process.terminate()

    def kill(self) -> None:
        """The whole group: nothing that it started is left behind."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


def how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
