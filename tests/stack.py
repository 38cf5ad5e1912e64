"""The embedded stack as a person starts it, for tests and benchmarks: real processes in a folder of their own."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gpubroker.supervisor import ports

ROOT = Path(__file__).resolve().parent.parent
#: What a clean shell has; the tests' own settings must not leak into the stack.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")


def environment(data_dir: Path, port: int, **settings: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    # From any folder, installed or not.
    kept["PYTHONPATH"] = os.pathsep.join([*filter(None, [kept.get("PYTHONPATH")]), str(ROOT)])
    own = {"GPUBROKER_DATA_DIR": str(data_dir), "GPUBROKER_ENV_FILE": "", "SERVER_PORT": str(port)}
    # Tests and benchmarks look many times a second; those of the limit set their own.
    own["API_RATE_PER_MINUTE"] = "0"
    return {**kept, **own, **settings}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gpubroker", *arguments]


def gpubroker(
    *arguments: str, data_dir: Path, port: int = 0, prefix: tuple[str, ...] = (), **settings: str
) -> subprocess.CompletedProcess[str]:
    """One short command, to its end; ``prefix`` is a command that runs it."""
    return subprocess.run(
        [*prefix, *command(*arguments)],
        env=environment(data_dir, port or ports.free_port(), **settings),
        cwd=data_dir.parent if data_dir.parent.is_dir() else ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Stack:
    """A running ``gpubroker run``."""

    def __init__(self, data_dir: Path, port: int = 0, **settings: str) -> None:
        self.data_dir = data_dir
        self.port = port or ports.free_port()
        self.printed = data_dir.parent / f"{data_dir.name}-terminal-{time.monotonic_ns()}"
        self.began_at = time.monotonic()
        with self.printed.open("wb") as terminal:
            self.process = subprocess.Popen(
                command("run"),
                env=environment(data_dir, self.port, **settings),
                cwd=data_dir.parent,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        return self.printed.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 120.0) -> float:
        """Until it has printed the text; the seconds since its start."""
        until = time.monotonic() + seconds
        while text not in self.output():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{text!r} did not come (exit code {self.process.poll()}):\n{self.output()}")
            time.sleep(0.02)
        return time.monotonic() - self.began_at

    def wait_ready(self) -> float:
        return self.wait_for("GPU Broker is ready")

    def status(self, path: str) -> int:
        """Of a GET; 0 when nobody answers."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None) -> int:
        """The status of one request on a connection of its own; 0 when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def child(self, name: str) -> int:
        """The pid of a direct child of the supervisor: queue, sandbox, web, worker, beat."""
        for pid in self.pids():
            arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
            is_role = name in arguments if name != "queue" else "-server" in arguments[0]
            if is_role and int(parent) == self.process.pid:
                return pid
        raise AssertionError(f"no child {name}:\n{self.output()}")

    def pids(self) -> list[int]:
        """Every live process that belongs to this stack."""
        return self.pids_of(self.data_dir)

    @staticmethod
    def pids_of(data_dir: Path) -> list[int]:
        """Those with the folder in their environment, or working in it: the queue overwrites its environment."""
        marker = f"GPUBROKER_DATA_DIR={data_dir}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                # A process may end while we look; a zombie's environment is empty.
                with contextlib.suppress(OSError):
                    in_environment = marker in (entry / "environ").read_bytes().split(b"\0")
                    if in_environment or (entry / "cwd").readlink() == data_dir:
                        found.append(int(entry.name))
        return found

    def wait_gone(self, seconds: float) -> float:
        """Until no process of it is left; how long that took."""
        began = time.monotonic()
        while left := self.pids():
            if time.monotonic() - began > seconds:
                raise AssertionError(f"still there after {seconds} s: {left}\n{self.output()}")
            time.sleep(0.02)
        return time.monotonic() - began

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def destroy(self) -> None:
        """Whatever the test did, leave nothing."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(data_dir: Path, port: int = 0, **settings: str) -> Iterator[Stack]:
    stack = Stack(data_dir, port, **settings)
    try:
        yield stack
    finally:
        stack.destroy()
