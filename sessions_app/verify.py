"""Does SSH really answer? TCP, key exchange, our key, ``echo``, and ``nvidia-smi`` with the promised GPUs."""

from __future__ import annotations

import base64
import hashlib
import io
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import paramiko

#: For one endpoint from connect to verdict. A server can starve each single step for ever, so a timer pulls the plug.
TOTAL_SECONDS = 10.0
CONNECT_SECONDS = 3.0
BANNER_SECONDS = 5.0
AUTH_SECONDS = 8.0
COMMAND_SECONDS = 10.0
MOST_OUTPUT = 65_536
#: ``nvidia-smi`` may show a little less than the listing promised.
MEMORY_TOLERANCE = 0.93
GPU_QUERY = "nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits"


class NotYet(Exception):
    """It does not answer as it should, which early in a machine's life is normal. Says how far it got."""


class KeyRefused(NotYet):
    """SSH answers, and the machine does not accept our key (yet, or any more)."""


class WrongMachine(Exception):
    """It answers, and is not what was promised: fewer GPUs, less memory, or another host key than before."""


class OtherHostKey(WrongMachine):
    """Another host key than the one pinned: whoever answers there was not even offered our key."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    host: str
    port: int
    user: str


@dataclass(frozen=True, slots=True)
class Promise:
    """What the offer said; ``gpu_count`` 0 asks nothing of the GPUs."""

    gpu_count: int
    vram_mb: int


@dataclass(frozen=True, slots=True)
class Verified:
    endpoint: Endpoint
    #: ``<type> <base64>``: pinned from now on.
    host_key: str
    gpus: tuple[str, ...]


def fingerprint(host_key: str) -> str:
    """``SHA256:...`` as OpenSSH prints it."""
    raw = base64.b64decode(host_key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")


def verify(endpoints: Sequence[Endpoint], private_key: str, promise: Promise, pinned_host_key: str = "") -> Verified:
    """The first endpoint that proves itself. Raises :class:`NotYet` with the last reason, or :class:`WrongMachine`."""
    reason = "no SSH address yet"
    for endpoint in endpoints:
        try:
            return _verify_one(endpoint, private_key, promise, pinned_host_key)
        except NotYet as error:
            reason = f"{endpoint.host}:{endpoint.port} {error}"
    raise NotYet(reason)


def _load(private_key: str) -> paramiko.PKey:
    kind = paramiko.RSAKey if "RSA PRIVATE KEY" in private_key else paramiko.Ed25519Key
    return kind.from_private_key(io.StringIO(private_key))


def _verify_one(endpoint: Endpoint, private_key: str, promise: Promise, pinned: str) -> Verified:
    with login(endpoint, private_key, pinned) as (transport, host_key):
        return Verified(endpoint, host_key, _check(transport, promise))


@contextmanager
def login(endpoint: Endpoint, private_key: str, pinned: str = "") -> Iterator[tuple[paramiko.Transport, str]]:
    """Logged in for the length of the block, ``TOTAL_SECONDS`` at most; with the host key that was shown.

    Raises :class:`KeyRefused`, :class:`OtherHostKey` before any key is offered, and :class:`NotYet` for all else.
    """
    try:
        sock = socket.create_connection((endpoint.host, endpoint.port), timeout=CONNECT_SECONDS)
    except OSError as error:
        raise NotYet(f"does not accept connections: {error.strerror or type(error).__name__}") from None
    # A login is a dozen small messages: held back until the other side acknowledges, two of them cost 40 ms each.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport: paramiko.Transport | None = None
    plug = threading.Timer(TOTAL_SECONDS, lambda: _unplug(transport, sock))
    plug.daemon = True
    plug.start()
    try:
        transport = paramiko.Transport(sock)
        transport.banner_timeout = BANNER_SECONDS
        transport.auth_timeout = AUTH_SECONDS
        transport.start_client(timeout=BANNER_SECONDS)
        server_key = transport.get_remote_server_key()
        host_key = f"{server_key.get_name()} {server_key.get_base64()}"
        if pinned and pinned != host_key:
            raise OtherHostKey(f"host key changed: pinned {fingerprint(pinned)}, now {fingerprint(host_key)}")
        transport.auth_publickey(endpoint.user, _load(private_key))
        yield transport, host_key
    except paramiko.AuthenticationException as error:
        # paramiko says the same of a server that gave no answer, or hung up.
        if transport is None or not transport.is_active() or "timeout" in str(error).lower():
            raise NotYet("breaks off the login") from None
        # Keys arrive some seconds after SSH does (Vast.ai contract, section 6, no. 11).
        raise KeyRefused("does not accept the key yet") from None
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise NotYet(f"SSH failed: {error or type(error).__name__}") from None
    finally:
        plug.cancel()
        if transport is not None:
            transport.close()
        sock.close()


def _unplug(transport: paramiko.Transport | None, sock: socket.socket) -> None:
    """Frees whoever waits in paramiko, whose wait for an exec's answer has no limit of its own."""
    sock.close()
    if transport is not None:
        transport.close()


def run(transport: paramiko.Transport, command: str) -> tuple[int, str]:
    """Exit status and standard output (bounded) of one command."""
    channel = transport.open_session(timeout=COMMAND_SECONDS)
    try:
        channel.settimeout(COMMAND_SECONDS)
        channel.exec_command(command)
        output = b""
        while len(output) < MOST_OUTPUT:
            chunk = channel.recv(8192)
            if not chunk:
                break
            output += chunk
        if not channel.status_event.wait(COMMAND_SECONDS):
            raise NotYet(f"{command.split()[0]} does not end")
        return channel.exit_status, output.decode("utf-8", "replace")
    except TimeoutError:
        raise NotYet(f"{command.split()[0]} does not answer") from None
    finally:
        channel.close()


def _check(transport: paramiko.Transport, promise: Promise) -> tuple[str, ...]:
    """``echo``, and the GPUs' own words where any were promised: in one command, as every channel costs both sides."""
    word = f"gpubroker-{secrets.token_hex(6)}"
    status, output = run(transport, f"echo {word} && {GPU_QUERY}" if promise.gpu_count else f"echo {word}")
    # A login banner may stand around it.
    before, echoed, after = output.partition(word)
    if not echoed:
        raise NotYet(f"echo answered {before[:60]!r}")
    return _gpus(status, after, promise) if promise.gpu_count else ()


def _gpus(status: int, output: str, promise: Promise) -> tuple[str, ...]:
    if status != 0:
        raise NotYet(f"nvidia-smi failed with status {status}: {output.strip()[:80]}")
    lines = [line.strip() for line in output.splitlines() if line.count(",") == 1]
    if len(lines) < promise.gpu_count:
        raise WrongMachine(f"nvidia-smi shows {len(lines)} GPUs, {promise.gpu_count} were promised")
    for line in lines:
        name, _, memory = line.rpartition(",")
        if not memory.strip().isdigit():
            raise NotYet(f"nvidia-smi answered {line[:60]!r}")
        if int(memory) < promise.vram_mb * MEMORY_TOLERANCE:
            raise WrongMachine(f"{name} has {memory.strip()} MB, {promise.vram_mb} MB were promised")
    return tuple(lines)
