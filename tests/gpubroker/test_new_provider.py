"""The generator of provider folders: what it writes is sound, honest and refused by its own tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpubroker import new_provider
from gpubroker.failures import StartFailure
from providers.base import Provider
from providers.errors import NotSupported
from tests.stack import gpubroker

# All of it on one worker: what the module's fixture starts is dear.
pytestmark = pytest.mark.xdist_group("new provider")

ROOT = Path(__file__).resolve().parent.parent.parent
NAME, LONG = "cloudrent", "zzzzzzzzzzzzzzzzzzzzz"
#: All that a test run of one provider needs.
PARTS = ["billing", "gpubroker", "offers", "providers", "sessions_app", "templates_app", "tests", "pyproject.toml"]
MYPY = "[mypy]\nstrict = True\nfollow_imports = silent\n"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's code in another place, with a provider that was made there."""
    root = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for part in PARTS:
        source = ROOT / part
        (shutil.copytree(source, root / part, ignore=ignored) if source.is_dir() else shutil.copy(source, root / part))
    done = gpubroker("new-provider", NAME, "--into", str(root), data_dir=root / "data")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"  providers/{NAME}/client.py\n" in done.stdout
    assert "CLOUDRENT_API_KEY" in done.stdout
    assert len(new_provider.make(LONG, root)) == 4
    return root


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "GPUBROKER_ENV_FILE": "", "PYTHONPATH": str(copy)}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=copy, env=environment, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip


def test_it_passes_the_linters(copy: Path) -> None:
    folders = [f"{parent}/{name}" for parent in ("providers", "tests/providers") for name in (NAME, LONG)]
    for command in (["ruff", "check", "--no-cache"], ["ruff", "format", "--no-cache", "--check"]):
        done = run(copy, *command, *folders)
        assert done.returncode == 0, done.stdout
    (copy / "mypy.ini").write_text(MYPY)
    done = run(copy, "mypy", "--config-file", "mypy.ini", *folders)
    assert done.returncode == 0, done.stdout


def test_its_contract_tests_run_and_fail(copy: Path) -> None:
    """A part of them: all are the same."""
    some = "listed_once or empty_listing or never_was or balance or destroy_what or nobody"
    done = run(copy, "pytest", f"tests/providers/{NAME}", "-n", "0", "-k", some, "--tb", "line")
    assert done.returncode == 1, done.stdout
    summary = done.stdout.strip().splitlines()[-1]
    assert re.search(r"\b[6-9] failed\b", summary), summary
    assert "passed" not in summary
    assert "error" not in summary
    assert "not built yet" in done.stdout


def test_the_client_is_a_provider_that_promises_nothing(copy: Path) -> None:
    program = (
        f"from providers.{NAME} import Cloudrent\n"
        "from providers.base import Capabilities, Provider\n"
        "from providers.http import HTTPClient, NullGate, NullObserver\n"
        f"made = Cloudrent(HTTPClient('{NAME}', 'https://example.invalid', 'key', NullGate(), NullObserver()))\n"
        "assert isinstance(made, Provider) and made.capabilities == Capabilities()\n"
        "assert 'key' not in repr(made)\n"
        "try:\n    made.list_offers()\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    (copy / "probe.py").write_text(program)
    done = run(copy, "probe")
    assert done.stdout == f"{NotSupported.__name__} {NAME} list_offers: not built yet\n", done.stderr
    assert Provider.__module__ == "providers.base"


@pytest.mark.parametrize("name", ["", "a", "Cloud", "9cloud", "cloud-rent", "cloud_rent", "../x", "class", "x" * 22])
def test_a_bad_name_is_refused(copy: Path, name: str) -> None:
    before = sorted(path.name for path in (copy / "providers").iterdir())
    with pytest.raises(StartFailure, match="lower-case letters and digits"):
        new_provider.make(name, copy)
    assert sorted(path.name for path in (copy / "providers").iterdir()) == before


@pytest.mark.parametrize("name", [NAME, "vastai", "tensordock", "sandbox", "base", "http"])
def test_a_name_that_is_taken_is_refused(copy: Path, name: str) -> None:
    with pytest.raises(StartFailure, match=f"there is a providers/{name}.* already"):
        new_provider.make(name, copy)


def test_it_needs_a_checkout(tmp_path: Path) -> None:
    done = gpubroker("new-provider", NAME, "--into", str(tmp_path), data_dir=tmp_path / "data")
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path} is no checkout of the broker: it has no providers/base.py.\n"
    assert not (tmp_path / "providers").exists()
