"""The ``gpubroker`` command: what is wrong with the configuration is said in one sentence, by name."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from billing.models import ApiKey
from gpubroker.cli import app
from tests.stack import ROOT, gpubroker
from tests.with_servers import main as with_servers

POSTGRES = "postgresql://user:hunter2@db.invalid/gpubroker"
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
WRONG = [
    ({"SERVER_PORT": "http"}, "SERVER_PORT (got 'http'): "),
    ({"SERVER_PORT": "70000"}, "SERVER_PORT must lie between 1 and 65535, not 70000."),
    ({"SERVER_HOST": "0.0.0.0", "API_AUTH": "open"}, "API_AUTH=open on SERVER_HOST=0.0.0.0 would let anyone"),
    ({"API_AUTH": "none"}, "API_AUTH must be one of open, key, not 'none'."),
    ({"VASTAI_BASE_URL": "console.vast.ai"}, "VASTAI_BASE_URL must be a URL such as https"),
    ({"DEPLOYMENT_ID": "My Broker"}, "DEPLOYMENT_ID must be 4 to 20 lower-case letters or digits"),
    ({"PROVIDER_PACE": "fast"}, "PROVIDER_PACE (got 'fast'): "),
    ({"PROVIDER_PACE": "-1"}, "PROVIDER_PACE must lie between 0 and 100, not -1."),
    ({"HARD_MAX_HOURS": "0"}, "HARD_MAX_HOURS must lie between 1 and 8760, not 0."),
    ({"SANDBOX": "maybe"}, "SANDBOX must be one of auto, on, off, not 'maybe'."),
    ({"LOG_LEVEL": "loud"}, "LOG_LEVEL must be one of debug, info, warning, error, critical, not 'loud'."),
    ({"API_RATE_PER_MINUTE": "-1"}, "API_RATE_PER_MINUTE must lie between 0 and 1000000, not -1."),
    ({"TRUSTED_PROXIES": "yes"}, "TRUSTED_PROXIES (got 'yes'): "),
    ({"SECURE": "perhaps"}, "SECURE (got 'perhaps'): "),
    ({"DEBUG": "perhaps"}, "DEBUG (got 'perhaps'): "),
    ({"DATABASE_URL": POSTGRES}, "SECRET_KEY must be set when DATABASE_URL is"),
    ({"DATABASE_URL": POSTGRES, "SECRET_KEY": "s"}, "ENCRYPTION_KEYS must be set when DATABASE_URL is"),
    ({"ENCRYPTION_KEYS": "hunter2"}, "ENCRYPTION_KEYS: each must be 32 bytes in url-safe base64"),
    ({"VASTAI_API_KEY_FILE": "/nowhere/hunter2"}, "VASTAI_API_KEY: "),
]


def named(case: object) -> str:
    return "-".join(case) if isinstance(case, dict) else ""


def read_settings(data_dir: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """As every start reads them, in a process of their own."""
    own = {"PATH": os.environ["PATH"], "GPUBROKER_ENV_FILE": "", "GPUBROKER_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", "gpubroker.supervisor.facts"]
    return subprocess.run(command, env=own | settings, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("settings", "sentence"), WRONG, ids=named)
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, str], sentence: str) -> None:
    done = read_settings(tmp_path, **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(sentence), done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr.replace("/nowhere/hunter2", "")


@pytest.mark.parametrize("name", ["run", "web", "worker", "beat", "migrate", "check"])
def test_every_command_refuses_wrong_settings_without_a_traceback(tmp_path: Path, name: str) -> None:
    done = gpubroker(name, data_dir=tmp_path / "data", TICK_SECONDS="soon")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"TICK_SECONDS \(got 'soon'\): .*\n", done.stderr)


def test_a_misspelt_name_of_ours_is_reported(tmp_path: Path) -> None:
    done = gpubroker("check", data_dir=tmp_path / "data", GPUBROKER_DATADIR="/elsewhere")
    assert done.returncode == 1
    assert "GPUBROKER_DATADIR is set, but no such setting exists; is it misspelt?\n" in done.stderr


def test_a_sound_configuration(tmp_path: Path) -> None:
    done = gpubroker("check", data_dir=tmp_path / "data", port=18080)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "The configuration is sound: http://127.0.0.1:18080, API_AUTH=open, with the sandbox marketplace.\n"
    )


def test_an_env_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("VASTAI_API_KEY=a-key\n")
    done = read_settings(tmp_path / "data", GPUBROKER_ENV_FILE=str(file))
    assert json.loads(done.stdout)["sandbox"] is False
    assert "a-key" not in done.stdout + done.stderr


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"

    def key(*arguments: str) -> tuple[int, str, str]:
        done = gpubroker("key", *arguments, data_dir=data_dir)
        return done.returncode, done.stdout, done.stderr

    assert key("list") == (
        1, "", "The database cannot be used: no such table: billing_apikey (is its schema up to date? "
        "`gpubroker migrate`)\n",
    )  # fmt: skip
    assert gpubroker("migrate", data_dir=data_dir).returncode == 0
    assert key("list") == (0, "", "There is no key yet; make one: gpubroker key create --consumer NAME\n")
    code, secret, said = key("create", "--consumer", "lab", "--scopes", "read", "--name", "graphs")
    assert (code, said) == (0, "")
    assert re.fullmatch(r"gpb_[a-z2-7]{8}_[a-z2-7]{40}\n", secret)
    assert re.fullmatch(r"gpb_.*\n", key("create", "--staff", "--expires-days", "30")[1])
    _, listed, _ = key("list")
    staff, lab = listed.splitlines()
    assert lab == f'{secret[:12]}  active   read        lab  never used  "graphs"'
    assert re.fullmatch(r"gpb_.{8}  active   staff       \(staff\)  never used, expires \S+Z", staff)
    assert secret[13:-1] not in listed
    assert key("revoke", secret.strip()) == (0, f"{secret[:12]} is revoked.\n", "")
    assert f"{secret[:12]}  revoked" in key("list")[1]
    assert key("revoke", "gpb_nothing1") == (1, "", "key gpb_nothing1 not found\n")
    assert key("create", "--consumer", "x" * 129)[0] == 2


REFUSED_KEYS = [
    (("create",), "consumer_id: a key without the scope staff belongs to a consumer; name one"),
    (("create", "--consumer", "lab", "--staff"), "consumer_id: a staff key belongs to no consumer"),
    (("create", "--consumer", "lab", "--scopes", "all"), "scopes: 'all' is not one of read, spend, staff"),
    (("revoke", "gpb_nothing1"), "key gpb_nothing1 not found"),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("arguments", "sentence"), REFUSED_KEYS)
def test_what_no_key_can_be(arguments: tuple[str, ...], sentence: str) -> None:
    done = CliRunner().invoke(app, ["key", *arguments])
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"{sentence}\n")
    assert not ApiKey.objects.exists()


def test_a_new_encryption_key_works(tmp_path: Path) -> None:
    done = gpubroker("make-encryption-key", data_dir=tmp_path / "data")
    Fernet(done.stdout.strip())
    assert not (tmp_path / "data").exists()


def test_secrets_are_made_once_and_are_nobody_elses_to_read(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    kept = []
    for _ in range(2):
        assert read_settings(data_dir).returncode == 0
        kept.append([(data_dir / name).read_text() for name in ("secret_key", "encryption_key")])
    assert kept[0] == kept[1]
    assert all(kept[0])
    assert data_dir.stat().st_mode & 0o077 == 0
    assert {(data_dir / name).stat().st_mode & 0o777 for name in ("secret_key", "encryption_key")} == {0o600}


def test_the_supervisor_stays_small() -> None:
    """What it imports stays in its memory for as long as the broker runs."""
    script = "import gpubroker.cli, gpubroker.supervisor.run, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {
        "django",
        "celery",
        "kombu",
        "gpubroker.settings",
        "cryptography",
        "rich",
        "granian",
        "requests",
        "asyncio",
    }
    assert heavy & set(done.stdout.split()) == set()


def test_real_servers_start_for_a_command_and_stop_after_it(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = f'printf "%s\\n" "$DATABASE_URL" "$REDIS_URL" > {seen}; exit 7'
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert with_servers(["sh", "-c", script]) == 7
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    database, queue = seen.read_text().splitlines()
    assert database.startswith("postgresql://gpubroker:")
    assert queue.startswith("redis://:")
