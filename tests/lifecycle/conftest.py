"""Every test here runs once for every row of the table of providers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from gpubroker.common import providers as configured
from offers import snapshot
from tests.harness import Api, MovableClock, refresh_offers
from tests.lifecycle.faces import FACES, Face
from tests.lifecycle.life import Life
from tests.sandbox import SandboxProcess


class Markets:
    """One marketplace for every side of the sandbox that is asked for, started when it first is."""

    def __init__(self, folders: pytest.TempPathFactory, stack: ExitStack) -> None:
        self._folders, self._stack = folders, stack
        self._started: dict[type[SandboxProcess], SandboxProcess] = {}

    def of(self, face: Face) -> SandboxProcess:
        kind = face.sandbox
        if kind not in self._started:
            folder = self._folders.mktemp(kind.__name__)
            process = kind(folder, boot_seconds=0.05, pace=0, key_delay=0, credit=1000, offers=40, dedicated_port=0)
            self._started[kind] = self._stack.enter_context(process)
        return self._started[kind]


@pytest.fixture(scope="session")
def markets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Markets]:
    with ExitStack() as stack:
        yield Markets(tmp_path_factory, stack)


@pytest.fixture(params=FACES, ids=[face.name for face in FACES])
def face(request: pytest.FixtureRequest) -> Face:
    found: Face = request.param
    return found


@pytest.fixture
def place(face: Face, markets: Markets, settings: Any) -> Iterator[SandboxProcess]:
    """The marketplace, empty, and the broker configured to use this face of it alone."""
    market = markets.of(face)
    market.reset()
    for name, value in face.configure(market).items():
        setattr(settings, name, value)
    settings.PROVIDER_PACE = 0
    configured.configured.cache_clear()
    snapshot.forget()
    yield market
    market.clear_faults()
    configured.configured.cache_clear()
    snapshot.forget()


@pytest.fixture
def life(
    face: Face,
    place: SandboxProcess,
    db: None,
    time: MovableClock,
    api: Api,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Life]:
    """A world whose rules are held against the ledger when the test is over."""
    with caplog.at_level(logging.INFO):
        refresh_offers(face.provider)
        lived = Life(face, place, time, api)
        yield lived
        lived.settle(caplog.text)
