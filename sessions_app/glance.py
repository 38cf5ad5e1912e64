"""One login, one command, and what it shows of a machine's use.

The command must work in any container: it needs a shell and ``grep``, and whatever is missing leaves something
unknown. Logins are counted in the kernel's own table of connections, because many images keep no list of
users: whoever is connected to the SSH server that we came through, forwarded ports and file copies too, except
ourselves and those that have not logged in yet (the internet's scanners; OpenSSH's processes for them are titled
``[net]``). ``who`` adds what came in another way, such as mosh.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import paramiko

from sessions_app import verify
from sessions_app.idle import BUSY_PERCENT
from sessions_app.samples import Reading

_MARK = "@gpubroker"
#: What ``echo`` calls the address and port of the client and the server of this very connection.
_STEPS = (
    "nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits",
    "echo $SSH_CONNECTION",
    "who",
    r"grep -ls '^sshd[a-z-]*: .*\[net\]' /proc/[0-9]*/cmdline",
    # Established ones only: a busy server has thousands that are over.
    "grep -hs ' 01 ' /proc/net/tcp /proc/net/tcp6",
)
COMMAND = "; ".join([f"echo {_MARK}", *(f"{step}; echo {_MARK}" for step in _STEPS)])
_ESTABLISHED = "01"
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,6})?")
_PORT = re.compile(r"[0-9A-Fa-f]+:([0-9A-Fa-f]{4})")


def glance(endpoint: verify.Endpoint, private_key: str, pinned: str, gpu_count: int) -> Reading:
    """Raises what :func:`verify.login` raises; a machine that lets us in and then does not answer is unknown."""
    with verify.login(endpoint, private_key, pinned) as (transport, _):
        try:
            _, output = verify.run(transport, COMMAND)
        except (verify.NotYet, paramiko.SSHException, OSError, EOFError) as error:
            return Reading(note=f"logged in, but {str(error) or type(error).__name__}")
    return read(output, gpu_count)


def read(output: str, gpu_count: int) -> Reading:
    """What the command printed, as a reading."""
    parts = output.split(f"{_MARK}\n")
    # A banner before, and nothing after the last mark.
    if len(parts) != len(_STEPS) + 2:
        return Reading(note="the machine's answer is not complete")
    gpus, connection, who, waiting, tables = parts[1:-1]
    utilization, memory, no_gpus = _gpus(gpus, gpu_count)
    logins, no_logins = _logins(connection, who, waiting, tables)
    return Reading(utilization, memory, logins, "; ".join(note for note in (no_gpus, no_logins) if note))


def _gpus(text: str, gpu_count: int) -> tuple[float | None, int | None, str]:
    """Utilisation and memory, the highest of each; utilisation only if every GPU tells, or one is at work."""
    rows = [line.split(",") for line in text.splitlines() if line.count(",") == 1]
    loads = _numbers([row[0] for row in rows])
    memory = max(_numbers([row[1] for row in rows]), default=None)
    busiest = max(loads, default=None)
    told = len(loads) == len(rows) >= max(gpu_count, 1)
    used = None if memory is None else int(memory)
    if told or (busiest is not None and busiest >= BUSY_PERCENT):
        return busiest, used, ""
    return None, used, f"nvidia-smi tells of {len(loads)} of {gpu_count} GPUs"


def _numbers(words: Sequence[str]) -> list[float]:
    """Those that are numbers: an unsupported field reads ``[N/A]``."""
    return [float(word) for word in map(str.strip, words) if _NUMBER.fullmatch(word)]


def _logins(connection: str, who: str, waiting: str, tables: str) -> tuple[int | None, str]:
    listed = sum(1 for line in who.splitlines() if line.strip())
    ours = connection.split()
    established = [ports for line in tables.splitlines() if (ports := _established(line)) is not None]
    if len(ours) == 4 and ours[1].isdigit() and ours[3].isdigit():
        server, client = int(ours[3]), int(ours[1])
        if (server, client) in established:
            unknown = sum(1 for line in waiting.splitlines() if line.startswith("/proc/"))
            others = sum(1 for local, _ in established if local == server) - 1 - unknown
            return max(others, listed, 0), ""
    if listed:
        return listed, ""
    return None, "our own connection is not in /proc/net/tcp, so nobody else's can be counted"


def _established(line: str) -> tuple[int, int] | None:
    """Local and remote port of a line of ``/proc/net/tcp``, if that connection is established."""
    words = line.split()
    if len(words) < 4 or words[3] != _ESTABLISHED:
        return None
    local, remote = _PORT.fullmatch(words[1]), _PORT.fullmatch(words[2])
    return (int(local[1], 16), int(remote[1], 16)) if local and remote else None
