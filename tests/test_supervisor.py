"""The embedded run, with real processes: it starts, keeps itself up, and leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpubroker.supervisor import ports
from tests import servers
from tests.stack import Stack, gpubroker, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def logs_of(data_dir: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in (data_dir / "log").iterdir())


def test_two_lives(data_dir: Path) -> None:
    """The first start makes everything, the second one finds it; each ends within ten seconds of SIGTERM."""
    with running(data_dir) as first:
        first.wait_ready()
        assert first.status("/ready") == 200
        assert {first.child(name) for name in ("queue", "sandbox", "web", "worker", "beat")} <= set(first.pids())
        shown = re.search(r"log in as admin with password (\S+) \(shown this once\)", first.output())
        assert shown is not None
        assert f"API=http://127.0.0.1:{first.port}/api/v1\n" in first.output()
        assert no_secret_in_arguments(first)
        refuses_a_second_supervisor(first)
        began = time.monotonic()
        assert first.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 10
        assert first.pids() == []
        assert shown[1] not in logs_of(data_dir)
        market = (data_dir / "sandbox" / "port").read_text()

    with running(data_dir) as second:
        second.wait_ready()
        assert "with password" not in second.output()
        assert "Applying" not in second.output()
        assert (data_dir / "sandbox" / "port").read_text() == market
        assert second.stop(signal.SIGINT) == 0
        assert second.pids() == []


def refuses_a_second_supervisor(stack: Stack) -> None:
    same_folder = gpubroker("run", data_dir=stack.data_dir)
    assert same_folder.returncode == 2
    assert same_folder.stderr == (
        f"GPUBROKER_DATA_DIR={stack.data_dir} is in use by a broker that is already running "
        f"(pid {stack.process.pid}): stop it first, or give this one another folder.\n"
    )
    same_port = gpubroker("run", data_dir=stack.data_dir.with_name("other"), port=stack.port)
    assert same_port.returncode == 2
    assert same_port.stderr == (
        f"SERVER_PORT={stack.port} on 127.0.0.1 is in use by another program: stop that one, "
        f"or choose another port, e.g. SERVER_PORT={stack.port + 1}.\n"
    )
    assert stack.status("/ready") == 200


def no_secret_in_arguments(stack: Stack) -> bool:
    environment = Path(f"/proc/{stack.child('worker')}/environ").read_text()
    password = re.search(r"REDIS_URL=redis://:([^@]+)@127\.0\.0\.1:", environment)
    assert password is not None
    return all(password[1] not in Path(f"/proc/{pid}/cmdline").read_text() for pid in stack.pids())


@pytest.fixture
def stack(data_dir: Path) -> Iterator[Stack]:
    with running(data_dir) as up:
        up.wait_ready()
        yield up


def test_what_dies_is_started_again_and_nothing_outlives_a_killed_supervisor(stack: Stack) -> None:
    for name in ("worker", "queue", "web"):
        killed = stack.child(name)
        os.kill(killed, signal.SIGKILL)
        stack.wait_for(f"{name:>8} | stopped (killed by SIGKILL); it starts again in 0.2 s", 5)
        until = time.monotonic() + 5
        while (again := next(iter(try_child(stack, name)), killed)) == killed:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert again != killed
    wait_for_status(stack, "/ready", 200)

    stack.process.kill()
    # Not waited for: a supervisor that nobody has reaped is dead all the same.
    until = time.monotonic() + 5
    while stack.pids():
        assert time.monotonic() < until, stack.pids()
        time.sleep(0.05)


def try_child(stack: Stack, name: str) -> list[int]:
    try:
        return [stack.child(name)]
    except (AssertionError, OSError):
        return []


def wait_for_status(stack: Stack, path: str, wanted: int) -> None:
    until = time.monotonic() + 20
    while stack.status(path) != wanted:
        assert time.monotonic() < until, stack.output()
        time.sleep(0.1)


def test_the_first_session_works_as_pasted(stack: Stack) -> None:
    """Through a shell's standard input, as a paste is: no command may swallow the lines after it."""
    done = run_as_pasted(stack)
    assert done.stderr == ""
    session, rest = done.stdout.split(" is running\n")
    assert "NVIDIA-SMI" in rest
    destroyed, costs = rest.splitlines()[-2:]
    assert json.loads(destroyed) == {"message": "session destroyed", "session_id": session}
    assert json.loads(costs)["session_id"] == session
    assert json.loads(costs)["total_cost"] > 0


def run_as_pasted(stack: Stack) -> subprocess.CompletedProcess[str]:
    printed = stack.output()
    script = printed[printed.index("API=") : printed.index("Ctrl-C stops")]
    return subprocess.run(["sh"], input=script, capture_output=True, text=True, timeout=60, check=False)


def ask(stack: Stack, method: str, path: str, body: Any = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    read = answer.status, answer.read()
    connection.close()
    return read


def test_a_closed_api_from_the_first_key_on(data_dir: Path) -> None:
    """The key shown once works in the session that is shown with it, and none of its secrets reaches a log."""
    with running(data_dir, API_AUTH="key", LOG_LEVEL="debug", API_RATE_PER_MINUTE="300") as first:
        first.wait_ready()
        shown = re.search(r"API key +(gpb_\w+) for consumer default \(shown this once\)", first.output())
        assert shown is not None
        done = run_as_pasted(first)
        assert done.stderr == ""
        assert "NVIDIA-SMI" in done.stdout
        assert '"message":"session destroyed"' in done.stdout
        path = "/api/v1/sessions"
        assert ask(first, "GET", path)[0] == 401
        assert ask(first, "GET", path, X_API_Key=shown[1] + "a")[0] == 401
        assert ask(first, "GET", path, X_API_Key=shown[1])[0] == 200
        json_type = {"Content_Type": "application/json", "X_API_Key": shown[1]}
        status, answer = ask(first, "POST", path, iter([b'{"consumer_id": ', b'"default"}']), **json_type)
        assert (status, json.loads(answer)["field"]) == (400, "offer_id")
        status, answer = ask(first, "POST", path, iter([b" " * 65536] * 17), **json_type)
        assert (status, json.loads(answer)["error"]) == (413, "the request body is larger than 1 MB")
        assert {ask(first, "GET", path, X_API_Key=shown[1])[0] for _ in range(300)} == {200, 429}
        assert first.stop() == 0
    password = re.search(r"with password (\S+)", first.output())
    assert password is not None
    written = logs_of(data_dir)
    for secret in (shown[1], shown[1].rpartition("_")[2], password[1], "PRIVATE KEY"):
        assert secret not in written
    assert shown[1].rpartition("_")[0] in written
    with running(data_dir, API_AUTH="key") as second:
        second.wait_ready()
        assert "gpb_" not in second.output()
        assert "Requests need an API key (API_AUTH=key). Make one: gpubroker key create" in second.output()
        assert ask(second, "GET", "/api/v1/sessions", X_API_Key=shown[1])[0] == 200


def test_with_services_of_its_own_the_same_command_starts_no_queue_and_makes_no_admin(data_dir: Path) -> None:
    with (
        servers.postgres() as database,
        servers.valkey() as queue,
        running(
            data_dir,
            DATABASE_URL=database,
            REDIS_URL=queue,
            SANDBOX="on",
            SECRET_KEY="x" * 50,
            ENCRYPTION_KEYS="MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        ) as stack,
    ):
        stack.wait_ready()
        assert try_child(stack, "queue") == []
        assert "with password" not in stack.output()
        assert "Requests need an API key (API_AUTH=key)." in stack.output()
        assert not (data_dir / "gpubroker.sqlite3").exists()
        assert stack.stop() == 0


def test_a_taken_port_is_refused_before_anything_starts(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = gpubroker("run", data_dir=data_dir, port=other.getsockname()[1])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("SERVER_PORT=")
    assert not (data_dir / "gpubroker.sqlite3").exists()


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = gpubroker("run", data_dir=tmp_path / "file" / "data")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"GPUBROKER_DATA_DIR: cannot make {tmp_path}/file/data: Not a directory.\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("kilobytes", [4, 40, 300])
def test_a_full_disk_is_one_sentence(tmp_path: Path, kilobytes: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        done = gpubroker("run", data_dir=disk / "data")
        left = Stack.pids_of(disk / "data")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode in (1, 2)
    assert re.fullmatch(r"GPUBROKER_DATA_DIR.*(No space left|no space is left).*\n", done.stderr)
    assert left == []


def test_a_file_size_limit_is_one_sentence(data_dir: Path) -> None:
    """The same for those who may not mount: the kernel refuses files beyond 200 kB."""
    script = 'ulimit -f 200; exec "$@"'
    done = gpubroker("run", data_dir=data_dir, prefix=("bash", "-c", script, "bash"))
    assert done.returncode == 1
    assert re.fullmatch(r"GPUBROKER_DATA_DIR=.*: no space is left to write there .*\n", done.stderr)
    assert Stack.pids_of(data_dir) == []


def test_a_kept_port_is_kept_while_it_is_free(tmp_path: Path) -> None:
    file = tmp_path / "port"
    port = ports.kept_port(file)
    assert ports.kept_port(file) == port
    with socket.create_server(("127.0.0.1", port)):
        assert ports.kept_port(file) != port
