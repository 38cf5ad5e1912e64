"""api.md's table of settings: each name with its default, validated at start and refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stack import ROOT

DEFAULTS: dict[str, Any] = {
    "SERVER_HOST": "127.0.0.1", "SERVER_PORT": 8080, "DATABASE_URL": "", "REDIS_URL": "", "VASTAI_API_KEY": "",
    "VASTAI_BASE_URL": "https://console.vast.ai", "SANDBOX": "auto", "SANDBOX_ON": True, "API_AUTH": "open",
    "INVENTORY_REFRESH_SECONDS": 60, "INVENTORY_BACKOFF_SECONDS": 300, "RECONCILE_SECONDS": 300,
    "ORPHAN_GRACE_SECONDS": 900, "STARTUP_SWEEP_SECONDS": 120, "SSH_VERIFY_SECONDS": 600, "SSH_CHECK_SECONDS": 2,
    "HARD_MAX_HOURS": 12, "CREATE_WAIT_SECONDS": 20, "DESTROY_WAIT_SECONDS": 10, "LOG_LEVEL": "INFO",
}  # fmt: skip
#: A value that none of these may have; the refusal names the setting.
REFUSED = {
    "SERVER_PORT": ["0", "65536", "http", "-1", "8080.5"], "VASTAI_API_KEY": ["a b", "a\tb", "ключ"],
    "VASTAI_BASE_URL": ["console.vast.ai", "ftp://x", "https://user@host", "https://x/?q=1"], "SANDBOX": ["maybe"],
    "API_AUTH": ["none", "both"], "INVENTORY_REFRESH_SECONDS": ["0", "-1", "x", "nan", "inf"],
    "INVENTORY_BACKOFF_SECONDS": ["0", "1e9"], "RECONCILE_SECONDS": ["0"], "ORPHAN_GRACE_SECONDS": ["-1"],
    "STARTUP_SWEEP_SECONDS": ["0"], "SSH_VERIFY_SECONDS": ["0"], "SSH_CHECK_SECONDS": ["0"], "HARD_MAX_HOURS": ["0",
    "1.5"],
    "PROVIDER_PACE": ["-1", "x"], "CREATE_WAIT_SECONDS": ["61", "-1"], "DESTROY_WAIT_SECONDS": ["61"],
    "LOG_LEVEL": ["loud"], "LOG_FORMAT": ["xml"], "DEPLOYMENT_ID": ["A", "ab", "with-dash", "x" * 21],
    "ENCRYPTION_KEYS": ["short"], "ALLOW_OPEN_API": [],
}  # fmt: skip
#: Reads a list of environments and prints, for each, the settings or the refusal.
SCRIPT = """
import importlib, json, os, sys
tries, names = json.load(sys.stdin)
usual = dict(os.environ)
from gpubroker.failures import SettingsError
said = []
for environment in tries:
    os.environ.clear()
    os.environ.update({**usual, **environment})
    sys.modules.pop("gpubroker.settings", None)
    try:
        settings = importlib.import_module("gpubroker.settings")
        said.append({name: getattr(settings, name, None) for name in names})
    except SettingsError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def read(folder: Path, tries: list[dict[str, str]], *names: str) -> list[Any]:
    own = {"PATH": os.environ["PATH"], "GPUBROKER_ENV_FILE": "", "GPUBROKER_DATA_DIR": str(folder / "data")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=own, cwd=ROOT, input=json.dumps([tries, names]), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    answers: list[Any] = json.loads(done.stdout)
    return answers


def test_defaults(tmp_path: Path) -> None:
    (found,) = read(tmp_path, [{}], *DEFAULTS)
    assert found == DEFAULTS


def test_every_one_is_validated_and_refused_by_name(tmp_path: Path) -> None:
    tries = [{name: value} for name, values in REFUSED.items() for value in values]
    for given, answer in zip(tries, read(tmp_path, tries, "SERVER_PORT"), strict=True):
        (name,) = given
        assert isinstance(answer, str), given
        assert answer.startswith(name), (given, answer)


def test_who_needs_a_key(tmp_path: Path) -> None:
    """Open only where nobody else can come: on a loopback address of the embedded run."""
    deployed = {
        "DATABASE_URL": "postgresql://u:p@h/d", "SECRET_KEY": "x" * 50,
        "ENCRYPTION_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    }  # fmt: skip
    tries = [
        {}, {"SERVER_HOST": "::1"}, {"SERVER_HOST": "localhost"}, {"SERVER_HOST": "127.9.9.9"}, {"API_AUTH": "key"},
        {"SERVER_HOST": "0.0.0.0"}, {"SERVER_HOST": "::"}, {"SERVER_HOST": "192.168.1.1"},
        {"SERVER_HOST": "example.org"},
        deployed, {**deployed, "SERVER_HOST": "0.0.0.0"}, {"SERVER_HOST": "0.0.0.0", "API_AUTH": "open",
        "ALLOW_OPEN_API": "1"},
        {"SERVER_HOST": "0.0.0.0", "ALLOW_OPEN_API": "1"},
    ]  # fmt: skip
    answers = [answer["API_AUTH"] for answer in read(tmp_path, tries, "API_AUTH")]
    assert answers == ["open"] * 4 + ["key"] * 7 + ["open", "key"]
    refused = read(
        tmp_path, [{"SERVER_HOST": host, "API_AUTH": "open"} for host in ("0.0.0.0", "::", "10.0.0.1")], "API_AUTH"
    )
    assert [answer.startswith("API_AUTH=open on SERVER_HOST=") for answer in refused] == [True] * 3
    assert ["ALLOW_OPEN_API=1" in answer for answer in refused] == [True] * 3


def test_any_secret_may_be_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    (found,) = read(
        tmp_path, [{"VASTAI_API_KEY_FILE": str(secret), "SECRET_KEY_FILE": str(secret)}], "VASTAI_API_KEY", "SECRET_KEY"
    )
    assert found == {"VASTAI_API_KEY": "from-a-file", "SECRET_KEY": "from-a-file"}


@pytest.mark.parametrize("name", ["SECRET_KEY", "ENCRYPTION_KEYS"])
def test_secrets_are_required_of_a_deployment(tmp_path: Path, name: str) -> None:
    given = {
        "DATABASE_URL": "postgresql://u:p@h/d",
        "SECRET_KEY": "x" * 50,
        "ENCRYPTION_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    }
    del given[name]
    (answer,) = read(tmp_path, [given], "SECRET_KEY")
    assert answer.startswith(f"{name} must be set")


def test_unknown_names_of_ours_are_reported(tmp_path: Path) -> None:
    tries = [{"GPUBROKER_DATADIR": "x"}, {"GPUBROKER_X": "1", "OTHER_X": "1"}, {}]
    assert [answer["UNKNOWN_SETTINGS"] for answer in read(tmp_path, tries, "UNKNOWN_SETTINGS")] == [
        ["GPUBROKER_DATADIR"], ["GPUBROKER_X"], [],
    ]  # fmt: skip


def test_made_once_and_kept(tmp_path: Path) -> None:
    names = ("SECRET_KEY", "ENCRYPTION_KEYS")
    (first,), (again,) = read(tmp_path, [{}], *names), read(tmp_path, [{}], *names)
    assert first == again
    assert first["SECRET_KEY"] not in first["ENCRYPTION_KEYS"]
