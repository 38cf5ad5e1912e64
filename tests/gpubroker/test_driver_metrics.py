"""What /metrics tells of the driver: how late it is, what is owed, and which providers are held."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from gpubroker.common import breaker, clock
from sessions_app.models import ProviderWatch
from sessions_app.states import Debt
from tests.sessions_app import many

pytestmark = pytest.mark.django_db


def gauges() -> dict[str, float]:
    text = Client().get("/metrics").content.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith("gpu_")]
    return {name: float(value) for name, _, value in lines}


def test_nothing_is_late_and_nothing_is_owed() -> None:
    found = gauges()
    assert found['gpu_due_lag_seconds{rows="sessions"}'] == 0
    assert found['gpu_due_lag_seconds{rows="rentals"}'] == 0
    assert [name for name in found if name.startswith("gpu_unproved_destroys")] == []


def test_lag_is_the_age_of_the_oldest_due_row() -> None:
    many.session(next_check_at=clock.now() - timedelta(seconds=40))
    many.session(next_check_at=clock.now() - timedelta(seconds=5))
    many.rental(None, Debt.DESTROYING, next_check_at=clock.now() - timedelta(seconds=90))
    found = gauges()
    assert found['gpu_due_lag_seconds{rows="sessions"}'] == pytest.approx(40, abs=5)
    assert found['gpu_due_lag_seconds{rows="rentals"}'] == pytest.approx(90, abs=5)


def test_unproved_destroys_by_what_the_provider_said() -> None:
    many.debt()
    many.debt(destroy_answered_at=clock.now())
    many.debt(destroy_answered_at=clock.now())
    found = gauges()
    assert found['gpu_unproved_destroys{accepted="no",provider="vastai"}'] == 1
    assert found['gpu_unproved_destroys{accepted="yes",provider="vastai"}'] == 2


def test_open_breaker_shows() -> None:
    ProviderWatch.objects.create(provider="vastai", next_sweep_at=clock.now())
    assert gauges()['gpu_provider_breaker_open{provider="vastai"}'] == 0
    for _ in range(breaker.FAILURES):
        breaker.note("vastai", "list_offers", "unavailable")
    assert gauges()['gpu_provider_breaker_open{provider="vastai"}'] == 1
