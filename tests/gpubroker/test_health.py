"""/health, /ready and /metrics: what they say while starting, running, and without a database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from gpubroker import health
from offers.models import ProviderInventory
from sessions_app import drive
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import SandboxProcess


@pytest.fixture(autouse=True)
def starting(time: MovableClock) -> Iterator[None]:
    """As in a process that has just started."""
    before = health._started, health._swept
    time.advance(hours=1)
    health._started, health._swept = time(), False
    yield
    health._started, health._swept = before


def get(path: str) -> tuple[int, Any]:
    response = Client(raise_request_exception=False).get(path)
    return response.status_code, response.json()


def test_503_until_the_first_sweep(market: SandboxProcess, driver: Driver, time: MovableClock) -> None:
    status, body = get("/health")
    assert (status, body["status"]) == (503, "unavailable")
    assert body["services"] == {"lifecycle": "stopped", "inventory": "ok", "ready": "false", "database": "ok"}
    status, body = get("/ready")
    assert (status, body["ready"]) == (503, False)
    time.advance(seconds=11)
    drive.tick()
    driver.sweep_now()
    status, body = get("/health")
    assert (status, body["status"]) == (200, "ok")
    assert body["services"] == {"lifecycle": "running", "inventory": "ok", "ready": "true", "database": "ok"}
    assert body["timestamp"].endswith("Z")
    assert get("/ready")[1]["ready"] is True


def test_ready_after_two_minutes_without_a_provider(market: SandboxProcess, driver: Driver, time: MovableClock) -> None:
    market.fault("error_5xx", operation="list", times=-1)
    assert driver.sweep_now() is None
    time.advance(seconds=100)
    assert get("/ready")[0] == 503
    time.advance(seconds=21)
    assert get("/ready")[0] == 200


def test_lifecycle_runs_only_while_the_scheduler_ticks(
    market: SandboxProcess, driver: Driver, time: MovableClock
) -> None:
    driver.sweep_now()
    drive.tick()
    assert get("/health")[1]["services"]["lifecycle"] == "running"
    time.advance(seconds=20)
    assert get("/health")[1]["services"]["lifecycle"] == "stopped"


def test_inventory_goes_stale_and_empty(market: SandboxProcess, driver: Driver, time: MovableClock) -> None:
    time.advance(minutes=6)
    assert get("/health")[1]["services"]["inventory"] == "stale"
    ProviderInventory.objects.update(offer_count=0)
    assert get("/health")[1]["services"]["inventory"] == "empty"


def test_503_without_a_database(market: SandboxProcess) -> None:
    def away(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("could not connect")

    with connection.execute_wrapper(away):
        assert get("/health")[0] == 503
        assert get("/ready")[0] == 503
        status, body = get("/api/v1/sessions")
    assert status == 503
    assert body["error"] == "the database is not available, try again"


def test_metrics_come_from_the_books(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    text = Client().get("/metrics").content.decode()
    assert 'gpu_sessions_active{provider="vastai",status="running"} 1.0' in text
    assert 'gpu_rentals_open{provider="vastai",state="live"} 1.0' in text
    assert 'gpu_ssh_verify_duration_seconds_count{provider="vastai"} 1.0' in text
    market.fault("refuse_destroy", mode="error")
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    text = Client().get("/metrics").content.decode()
    assert 'gpu_destroy_failures_total{provider="vastai"} 1.0' in text
    assert 'gpu_sessions_ended_total{provider="vastai",reason="deleted"} 1.0' in text
    for name in ("gpu_orphans_detected_total", "gpu_ssh_verify_failures_total", "gpu_provider_api_errors_total"):
        assert f"# TYPE {name} counter" in text


@pytest.mark.django_db
def test_a_closed_api_refuses_everybody(settings: Any) -> None:
    settings.API_AUTH = "key"
    for path in ("/api/v1/sessions", "/api/v1/inventory", "/api/v1/costs"):
        response = Client().get(path)
        assert (response.status_code, response.json()["error"]) == (401, "a valid API key is needed")
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert Client().get("/metrics").status_code == 200


@pytest.mark.django_db
def test_schema_and_docs_answer() -> None:
    client = Client()
    assert client.get("/api/schema").status_code == 200
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert b"swagger" in page.content
