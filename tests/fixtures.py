"""Fixtures of the broker's own tests."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpubroker.common import clock
from gpubroker.common import providers as configured
from offers import snapshot
from sessions_app.totals import totals
from tests.harness import Api, Driver, MovableClock, refresh_offers
from tests.sandbox import SandboxProcess
from tests.stack import gpubroker

#: ``with_schema(tmp_path / "data")``: that data folder, with a database that has its tables and nothing in them.
WithSchema = Callable[[Path], Path]


@pytest.fixture(scope="session")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """One marketplace for the whole run of this worker: quick boots, no rate limits, keys accepted at once. With few
    offers, as most tests read them all."""
    with SandboxProcess(tmp_path_factory.mktemp("sandbox"), boot_seconds=0.1, credit=1000, offers=40) as process:
        yield process


@pytest.fixture(scope="session")
def sandbox_of_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """The same with more offers than the vendor lists on one page, for modules that name it ``sandbox_process``."""
    with SandboxProcess(
        tmp_path_factory.mktemp("sandbox-of-pages"), boot_seconds=0.1, credit=1000, offers=90
    ) as process:
        yield process


@pytest.fixture
def sandbox(sandbox_process: SandboxProcess, settings: Any) -> Iterator[SandboxProcess]:
    """The marketplace, empty, and the broker configured to use it."""
    sandbox_process.reset()
    settings.VASTAI_API_KEY = "sandbox-key"
    settings.VASTAI_BASE_URL = sandbox_process.url
    settings.PROVIDER_PACE = 0
    settings.SSH_CHECK_SECONDS = 0.1
    configured.configured.cache_clear()
    snapshot.forget()
    yield sandbox_process
    configured.configured.cache_clear()
    snapshot.forget()


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    """What this process counted in another test's database."""
    totals.forget()


@pytest.fixture
def time() -> Iterator[MovableClock]:
    """The broker's clock, to be moved; the marketplace's own goes on."""
    moved = MovableClock()
    with clock.use(moved):
        yield moved


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def market(sandbox: SandboxProcess, db: None) -> SandboxProcess:
    """The sandbox with its offers already in our inventory."""
    refresh_offers()
    return sandbox


@pytest.fixture
def market_with_threads(sandbox: SandboxProcess, transactional_db: None) -> SandboxProcess:
    """The same for tests that need several database connections."""
    refresh_offers()
    return sandbox


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(scope="session")
def with_schema(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> WithSchema:
    """For stacks whose first start is not what a test is about: migrated once, for all workers of a run."""
    own = tmp_path_factory.getbasetemp()
    shared = (own if worker_id == "master" else own.parent) / "with-schema"
    shared.mkdir(exist_ok=True)
    made = shared / "data" / "gpubroker.sqlite3"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            done = gpubroker("migrate", data_dir=made.parent)
            assert done.returncode == 0, done.stderr

    def copied(data_dir: Path) -> Path:
        data_dir.mkdir(mode=0o700)
        for file in made.parent.glob(f"{made.name}*"):
            shutil.copy(file, data_dir)
        return data_dir

    return copied
