"""The process: it survives being killed, ends when told, and says what is wrong in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from providers.sandbox.__main__ import read_options
from providers.sandbox.clock import ScaledClock
from providers.sandbox.options import Settings
from tests.providers.sandbox.helpers import (
    KeyPair,
    attach,
    boot,
    direct_port,
    eventually,
    execute,
    login,
    rent,
    row,
    running,
    search,
)
from tests.sandbox import ROOT, SandboxProcess


def host_key(port: int, keypair: KeyPair) -> str:
    with login(port, keypair) as client:
        transport = client.get_transport()
        assert transport is not None
        return transport.get_remote_server_key().get_base64()


def test_a_killed_sandbox_comes_back_with_its_machines(tmp_path: Path, keypair: KeyPair) -> None:
    with SandboxProcess(tmp_path) as sandbox:
        instance = running(sandbox, "kept")
        attach(sandbox, instance["id"], keypair)
        sandbox.api("DELETE", f"/api/v0/instances/{rent(sandbox, 'gone')}/", {})
        port, offers = direct_port(instance), [offer["id"] for offer in search(sandbox)]
        key, before = host_key(port, keypair), sandbox.ledger()
        sandbox.kill()
        with pytest.raises(OSError, match="Unable to connect"):
            login(port, keypair)
        sandbox.start()
        after = row(sandbox, instance["id"])
        assert (after["actual_status"], direct_port(after), after["label"]) == ("running", port, "kept")
        assert host_key(port, keypair) == key
        assert host_key(after["ssh_port"], keypair) == key
        assert [offer["id"] for offer in search(sandbox)] == offers
        assert [(c["id"], c["state"]) for c in sandbox.ledger()] == [(c["id"], c["state"]) for c in before]
        assert sandbox.ledger()[0]["gpu_dollars"] > before[0]["gpu_dollars"]
        assert sandbox.ledger()[1]["total_dollars"] == before[1]["total_dollars"]


def test_sandbox_time_goes_on_over_a_restart(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path, speed=3600) as sandbox:
        rent(sandbox)
        jumped = sandbox.advance(86_400)
        sandbox.kill()
        sandbox.start()
        assert sandbox.admin("GET", "health")["now"] > jumped
        assert sandbox.ledger()[0]["disk_dollars"] > sandbox.ledger()[0]["disk_rate"] * 24


def test_sigterm_ends_it_quickly_even_with_logins_and_slow_calls(tmp_path: Path, keypair: KeyPair) -> None:
    with SandboxProcess(tmp_path) as sandbox:
        instance = running(sandbox)
        attach(sandbox, instance["id"], keypair)
        with login(direct_port(instance), keypair) as client:
            assert execute(client, "true")[2] == 0
            assert sandbox.stop() < 2


def test_it_ends_with_its_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setenv("GPUBROKER_SUPERVISOR_PID", str(supervisor.pid))
    sandbox = SandboxProcess(tmp_path).start()
    process = sandbox._process
    assert process is not None
    supervisor.kill()
    supervisor.communicate()
    assert eventually(lambda: process.poll() is not None, 5)
    assert process.returncode == 0
    sandbox._process = None


def refused(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "providers.sandbox", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    return done.returncode, done.stderr


def test_a_taken_port_is_one_sentence(process: SandboxProcess, tmp_path: Path) -> None:
    code, text = refused("--port", str(process.port), "--data-dir", str(tmp_path))
    assert code == 2
    assert text == f"sandbox: cannot listen on 127.0.0.1:{process.port}: Address already in use\n"


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, text = refused("--port", "0", "--data-dir", str(tmp_path / "file" / "data"))
    assert (code, text.count("\n")) == (2, 1)
    assert text.startswith(f"sandbox: cannot write to the data directory {tmp_path / 'file' / 'data'}: ")


def test_a_directory_in_use_is_one_sentence(process: SandboxProcess) -> None:
    code, text = refused("--port", "0", "--data-dir", str(process.data_dir))
    assert (code, text) == (2, f"sandbox: another sandbox uses the data directory {process.data_dir}\n")


def test_a_wrong_environment_variable_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_BOOT_SECONDS", "soon")
    assert refused("--port", "0") == (2, "sandbox: SANDBOX_BOOT_SECONDS must be a number, not 'soon'\n")


def test_options_from_the_command_line_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_options([]).api_keys == ("sandbox-key",)
    assert (read_options([]).boot_seconds, read_options([]).pace, read_options([]).offers) == (3.0, 1.0, 320)
    monkeypatch.setenv("SANDBOX_BOOT_SECONDS", "9")
    monkeypatch.setenv("SANDBOX_API_KEY", "a, b")
    monkeypatch.setenv("SANDBOX_DATA_DIR", "/somewhere")
    options = read_options(["--speed", "60", "--port", "1234"])
    assert (options.boot_seconds, options.speed, options.port) == (9.0, 60.0, 1234)
    assert (options.api_keys, options.data_dir) == (("a", "b"), Path("/somewhere"))
    assert read_options(["--api-key", "c", "--api-key", "d"]).api_keys == ("c", "d")


def test_settings_change_by_name_or_not_at_all() -> None:
    settings = Settings()
    settings.update({"pace": 0, "gone_shape": "410"})
    assert (settings.pace, settings.gone_shape) == (0.0, "410")
    with pytest.raises(ValueError, match="unknown setting 'speed'"):
        settings.update({"pace": 5, "speed": 1})
    assert settings.pace == 0.0


def test_the_clock_runs_at_its_speed_and_jumps() -> None:
    wall = [1000.0]
    clock = ScaledClock(speed=10.0, wall=lambda: wall[0])
    assert clock.now() == 1000.0
    wall[0] += 5
    assert clock.now() == 1050.0
    clock.advance(100)
    clock.change_speed(1.0)
    wall[0] += 5
    assert clock.now() == 1155.0
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_a_fast_clock_boots_fast(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path, boot_seconds=60, speed=600) as sandbox:
        instance_id = rent(sandbox)
        assert eventually(lambda: row(sandbox, instance_id)["actual_status"] == "running", 3)


def test_the_same_seed_deals_the_same_market_in_a_new_directory(sandbox: SandboxProcess, tmp_path: Path) -> None:
    found = []
    with SandboxProcess(tmp_path) as fresh:
        for market in (sandbox, fresh):
            found.append([(o["machine_id"], o["num_gpus"], o["gpu_name"], o["dph_base"]) for o in search(market)])
    assert found[0] == found[1]


def test_memory_with_twenty_machines(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path) as sandbox:
        for number in range(20):
            sandbox.foreign(f"m{number}")
        boot(sandbox)
        health = sandbox.admin("GET", "health")
        assert (health["instances"], len(health["ssh"])) == (20, 20)
        lines = Path(f"/proc/{sandbox.pid}/smaps_rollup").read_text().splitlines()
        pss = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        assert pss < 70 * 1024


def test_the_admin_side_refuses_politely(sandbox: SandboxProcess) -> None:
    with pytest.raises(ValueError, match="no such instance: 1"):
        sandbox.machine_dies(1)
    with pytest.raises(ValueError, match="unknown setting"):
        sandbox.settings(nonsense=1)
    with pytest.raises(ValueError, match="no such api_key"):
        sandbox.credit(5, "nobody")
    with pytest.raises(ValueError, match="backwards"):
        sandbox.advance(-1)
    assert sandbox.raw("POST", "/_sandbox/faults", "[1]")[0] == 400
    assert sandbox.take_offer(1) is False


def test_the_log_is_terse(sandbox: SandboxProcess) -> None:
    before = (sandbox.data_dir / "sandbox.log").read_text()
    instance_id = rent(sandbox, "logged")
    sandbox.api("DELETE", f"/api/v0/instances/{instance_id}/", {})
    lines = (sandbox.data_dir / "sandbox.log").read_text().removeprefix(before).splitlines()
    assert [line.split(": ")[1].split()[0] for line in lines] == ["contract", "contract"]
    assert "sandbox-key" not in "".join(lines)
    assert os.getpid() != sandbox.pid
