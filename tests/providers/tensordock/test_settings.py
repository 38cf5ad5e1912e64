"""The settings of a TensorDock account, as a fresh process reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SHOWN = """
from gpubroker import settings as s
print(s.TENSORDOCK_API_TOKEN, s.TENSORDOCK_BASE_URL, s.TENSORDOCK_DEFAULT_IMAGE, s.SANDBOX_ON)
"""


def read(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"]}
    given = {"GPUBROKER_DATA_DIR": str(tmp_path / "data"), "GPUBROKER_ENV_FILE": "", **environment}
    command = [sys.executable, "-c", SHOWN]
    return subprocess.run(command, cwd=ROOT, env={**clean, **given}, capture_output=True, text=True, check=False)


def test_without_a_token_it_is_off(tmp_path: Path) -> None:
    words = read(tmp_path).stdout.split()
    assert words == ["https://dashboard.tensordock.com/api/v2", "ubuntu2404", "True"]


def test_a_token_is_enough_and_ends_the_sandbox(tmp_path: Path) -> None:
    words = read(tmp_path, TENSORDOCK_API_TOKEN="tok").stdout.split()
    assert words == ["tok", "https://dashboard.tensordock.com/api/v2", "ubuntu2404", "False"]


def test_each_may_come_from_a_file(tmp_path: Path) -> None:
    files = {
        "TENSORDOCK_API_TOKEN": "tok\n",
        "TENSORDOCK_AUTH_ID": "id\n",
        "TENSORDOCK_BASE_URL": "http://127.0.0.1:1/tensordock/api/v2/\n",
        "TENSORDOCK_DEFAULT_IMAGE": "ubuntu2404_ml_pytorch\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    words = read(tmp_path, **{f"{name}_FILE": str(tmp_path / name) for name in files}).stdout.split()
    assert words == ["tok", "http://127.0.0.1:1/tensordock/api/v2", "ubuntu2404_ml_pytorch", "False"]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TENSORDOCK_AUTH_ID": "the-id"}, "TENSORDOCK_AUTH_ID is set and TENSORDOCK_API_TOKEN is not"),
        (
            {"TENSORDOCK_AUTH_ID": "the-id", "TENSORDOCK_API_TOKEN": "the-id"},
            "TENSORDOCK_API_TOKEN holds the Authorization ID",
        ),
        ({"TENSORDOCK_API_TOKEN": "two words"}, "TENSORDOCK_API_TOKEN holds spaces"),
        ({"TENSORDOCK_BASE_URL": "dashboard.tensordock.com"}, "TENSORDOCK_BASE_URL must be a URL"),
        ({"TENSORDOCK_DEFAULT_IMAGE": "nvidia/cuda:12"}, "TENSORDOCK_DEFAULT_IMAGE must be one of"),
        ({"TENSORDOCK_DEFAULT_IMAGE": "windows10"}, "TENSORDOCK_DEFAULT_IMAGE must be one of"),
    ],
)
def test_what_cannot_work_is_refused_by_name(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    done = read(tmp_path, **environment)
    assert done.returncode != 0
    assert said in done.stderr
    assert "the-id" not in done.stderr.splitlines()[-1]
    assert "two words" not in done.stderr.splitlines()[-1]
