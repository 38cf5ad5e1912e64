"""Which children make up the broker, in the order of their start, and what each is told."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from gpubroker.common import lifeline
from gpubroker.failures import StartFailure
from gpubroker.supervisor import ports, queue
from gpubroker.supervisor.child import Spec
from gpubroker.supervisor.facts import Facts

SANDBOX_KEY = "sandbox-key"
SANDBOX_TENSORDOCK_ID = "00000000-0000-4000-8000-000000000000"
SANDBOX_TENSORDOCK_TOKEN = "sandbox-tensordock-token"  # noqa: S105 - opens the sandbox only
#: The order of ending: no new requests, no new work, then what they lean on. With SIGKILL after each grace: 9.5 s.
STOP_ORDER = (("web", "beat"), ("worker",), ("sandbox",), ("queue",))


@dataclass(frozen=True)
class Stack:
    queue: queue.Queue | None
    #: Started first: the others need them.
    servers: list[Spec]
    #: The broker's own processes, started when the database is ready.
    roles: list[Spec]
    environment: dict[str, str]


def plan(facts: Facts) -> Stack:
    """Ports and passwords are chosen here, once: a child that is started again finds the same world."""
    environment = dict(os.environ)
    environment[lifeline.ENV_NAME] = str(os.getpid())
    # Each thread may otherwise get its own heap, which costs tens of megabytes in the worker and gains nothing.
    environment.setdefault("MALLOC_ARENA_MAX", "2")
    environment["PYTHONUNBUFFERED"] = "1"
    if facts.log_format == "auto":
        environment["LOG_FORMAT"] = "text"
    servers = []
    own_queue = None
    if not facts.has_queue:
        own_queue = queue.Queue(queue.find_server(), facts.data_path)
        servers.append(_queue_spec(own_queue, environment))
        _set(environment, "REDIS_URL", own_queue.url)
    if facts.sandbox:
        servers.append(_sandbox_spec(facts, environment))
    roles = [
        Spec("web", _role("web"), environment, grace=3.5),
        Spec("worker", _role("worker"), environment, grace=3.5),
        Spec("beat", _role("beat"), environment, grace=1.0),
    ]
    return Stack(own_queue, servers, roles, environment)


def _set(environment: dict[str, str], name: str, value: str) -> None:
    environment[name] = value
    # NAME_FILE would win over NAME, from the environment or from .env; empty means not given.
    environment[f"{name}_FILE"] = ""


def _role(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "gpubroker.roles", name, *arguments]


def _queue_spec(own_queue: queue.Queue, environment: dict[str, str]) -> Spec:
    command = own_queue.command
    if sys.platform != "linux":
        # No signal on the parent's death there, and a native program has no lifeline of its own.
        command = [sys.executable, "-m", "gpubroker.supervisor.keeper", *command]
    return Spec("queue", command, environment, stdin=own_queue.configuration, grace=1.0)


def _sandbox_spec(facts: Facts, environment: dict[str, str]) -> Spec:
    folder = facts.data_path / "sandbox"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        port = ports.kept_port(folder / "port")
    except OSError as error:
        raise StartFailure(
            f"GPUBROKER_DATA_DIR: cannot write {folder / 'port'}: {error.strerror or error}.", code=2
        ) from None
    for name, value in _accounts(f"http://127.0.0.1:{port}", facts.sandbox_provider).items():
        _set(environment, name, value)
    environment["SANDBOX"] = "on"
    # Half the broker's own pace: two clocks that agree to the millisecond would refuse calls now and then.
    pace = f"{facts.provider_pace / 2:g}"
    options = ("--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder), "--pace", pace)
    accounts = ("--api-key", SANDBOX_KEY, "--tensordock-token", SANDBOX_TENSORDOCK_TOKEN)
    return Spec("sandbox", _role("sandbox", *options, *accounts), environment, grace=1.5)


#: What makes each the only one, over the accounts of all.
_ALONE = {
    "all": {},
    "vastai": {"VASTAI_TRANSPORT": "native", "TENSORDOCK_AUTH_ID": "", "TENSORDOCK_API_TOKEN": ""},
    "lowcodeapi": {"VASTAI_TRANSPORT": "lowcodeapi", "TENSORDOCK_AUTH_ID": "", "TENSORDOCK_API_TOKEN": ""},
    "tensordock": {"VASTAI_TRANSPORT": "native", "VASTAI_API_KEY": ""},
}


def _accounts(market: str, provider: str = "all") -> dict[str, str]:
    """Every provider's settings, so that none of the real ones is called while the sandbox is on."""
    return {
        "VASTAI_API_KEY": SANDBOX_KEY,
        "VASTAI_BASE_URL": market,
        "LOWCODEAPI_API_TOKEN": f"at_{SANDBOX_KEY}",
        "LOWCODEAPI_BASE_URL": f"{market}/lowcodeapi/vastai",
        "TENSORDOCK_AUTH_ID": SANDBOX_TENSORDOCK_ID,
        "TENSORDOCK_API_TOKEN": SANDBOX_TENSORDOCK_TOKEN,
        "TENSORDOCK_BASE_URL": f"{market}/tensordock/api/v2",
        **_ALONE[provider],
    }
