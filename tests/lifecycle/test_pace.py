"""At the vendor's own pace, with its limits in force: a session goes its whole way, and we are never told to wait.

Calls are spaced by the broker's clock and counted by the marketplace's, and both move together here, so minutes of a
vendor's time take seconds. The marketplace asks for less than is published, because on a busy machine one
call may be on its way for much longer than the next; that the rest is enough is :mod:`tests.common.test_gate_limits`'.
"""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import get_context
from time import monotonic
from typing import Any

import pytest
from django.db import connections

from gpubroker.common import clock
from gpubroker.common import providers as configured
from providers.errors import GateClosed
from tests.lifecycle.faces import Face
from tests.lifecycle.life import Life
from tests.sandbox import SandboxProcess

#: Of the published limits.
STRICT = 0.5


@pytest.fixture
def paced(life: Life, settings: Any) -> Iterator[Life]:
    settings.PROVIDER_PACE = 1
    configured.configured.cache_clear()
    life.advance(120)
    life.market.settings(pace=STRICT, limits_clock="sandbox")
    yield life
    life.market.settings(pace=0)
    settings.PROVIDER_PACE = 0
    configured.configured.cache_clear()


def test_the_main_job_at_the_vendors_pace(paced: Life) -> None:
    sessions = [paced.begin() for _ in range(2)]
    for session_id in sessions:
        paced.until_status(session_id, "running", step=0.7, rounds=200)
    paced.work(10, step=2)
    paced.work(4, step=60)
    for session_id in sessions:
        paced.end(session_id)
    for session_id in sessions:
        paced.until_status(session_id, "stopped", step=0.7, rounds=200)
    assert paced.market.too_many() == {}


def _list_for(seconds: float) -> None:
    """What one process does: it lists as often as the gate lets it."""
    configured.configured.cache_clear()  # another process's connections are not ours
    (provider,) = configured.configured().values()
    until = monotonic() + seconds
    while monotonic() < until:
        try:
            provider.list_instances()
        except GateClosed as held:
            clock.pause(held.retry_after or 0.1)
    connections.close_all()


@pytest.mark.django_db(transaction=True)
def test_two_processes_keep_the_limit_together(face: Face, place: SandboxProcess, settings: Any) -> None:
    """They share nothing but the database. By themselves, each would call as often as the vendor lets one."""
    # A second between two listings, whatever the vendor's own interval is.
    settings.PROVIDER_PACE = 1 / face.list_seconds
    place.settings(pace=settings.PROVIDER_PACE * 0.3)
    connections.close_all()
    started = [get_context("fork").Process(target=_list_for, args=(3.5,)) for _ in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(30)
    assert [process.exitcode for process in started] == [0, 0]
    assert place.too_many() == {}
    assert 2 <= place.calls()[f"{face.name} list"] <= 4
