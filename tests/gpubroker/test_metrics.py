"""What /metrics tells, source by source, and that what processes count adds up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections
from django.test import Client

from billing import services as billing
from billing.models import Budget, BudgetPeriod
from gpubroker.common import breaker, clock, gathered
from gpubroker.common.gate import DatabaseGate
from gpubroker.common.models import Counter
from gpubroker.common.providers import CountingObserver
from gpubroker.metrics import catalogue, samples, service
from offers.models import Offer
from providers.base import GateHeld
from sessions_app.models import ProviderWatch, SeenOrphan
from sessions_app.states import Debt, Status
from tests.harness import Api, Driver
from tests.sandbox import SandboxProcess
from tests.sessions_app import many

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_gathered() -> Iterator[None]:
    """What earlier tests of this process left in memory is not this test's."""
    gathered._gathered.take()
    yield
    gathered._gathered.take()


def scraped() -> dict[str, float]:
    """Every sample as it is written, after what this process counted was added."""
    gathered.flush()
    text = Client().get("/metrics").content.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith("gpu_")]
    return {name: float(value) for name, _, value in lines}


def of(name: str, found: dict[str, float]) -> dict[str, float]:
    """One metric's samples by what stands in its braces."""
    return {series[len(name) + 1 : -1]: value for series, value in found.items() if series.partition("{")[0] == name}


def test_requests_are_counted_by_route_never_by_path() -> None:
    Client().get("/api/v1/sessions/sess-secret-thing")
    Client().get("/nowhere/gpb_secret")
    Client().get("/admin/login/?next=/admin/")
    Client().generic("BREW", "/health")
    found = scraped()
    assert of("gpu_http_requests_total", found) == {
        'method="GET",route="/api/v1/sessions/{session_id}",status="404"': 1,
        'method="GET",route="none",status="404"': 1,
        'method="GET",route="/admin/",status="200"': 1,
        'method="other",route="/health",status="405"': 1,
    }
    assert found['gpu_http_request_duration_seconds_count{method="GET",route="/admin/"}'] == 1
    assert "secret" not in str(found)


def test_what_middleware_refuses_is_counted_too() -> None:
    assert Client().post("/api/v1/sessions", "{}", "application/json", CONTENT_LENGTH="9" * 9).status_code == 413
    assert of("gpu_http_requests_total", scraped()) == {'method="POST",route="none",status="413"': 1}


def test_calls_to_a_provider_by_outcome_and_their_durations() -> None:
    observer = CountingObserver()
    for seconds, error in ((0.02, ""), (0.3, "rate_limited"), (70.0, "unavailable"), (0.0, "gate_closed")):
        observer.observe("vastai", "list_offers", seconds, error)
    found = scraped()
    calls = of("gpu_provider_calls_total", found)
    assert calls == {
        f'operation="list_offers",outcome="{outcome}",provider="vastai"': 1
        for outcome in ("ok", "rate_limited", "unavailable", "gate_closed")
    }
    series = 'operation="list_offers",provider="vastai"'
    buckets = of("gpu_provider_call_duration_seconds_bucket", found)
    assert [buckets[f'{series},le="{bound}"'] for bound in ("0.01", "0.05", "0.25", "0.5", "60", "+Inf")] == [
        0,
        1,
        1,
        2,
        2,
        3,
    ]
    assert found[f"gpu_provider_call_duration_seconds_sum{{{series}}}"] == pytest.approx(70.32)
    assert found[f"gpu_provider_call_duration_seconds_count{{{series}}}"] == 3
    assert of("gpu_provider_api_errors_total", found) == {series: 2}


def test_what_the_gate_holds_back_and_why() -> None:
    gate = DatabaseGate()
    gate.acquire("vastai:list_offers", 60)
    with pytest.raises(GateHeld):
        gate.acquire("vastai:list_offers", 60)
    for _ in range(breaker.FAILURES):
        breaker.note("vastai", "create", "unavailable")
    with pytest.raises(GateHeld):
        gate.acquire("vastai:create", 0)
    assert of("gpu_gate_holds_total", scraped()) == {
        'by="pace",endpoint="list_offers",provider="vastai"': 1,
        'by="breaker",endpoint="create",provider="vastai"': 1,
    }


def test_waiting_at_the_gate_is_counted_in_seconds() -> None:
    gate = DatabaseGate()
    gate.acquire("vastai:list_instances", 0.05)
    gate.acquire("vastai:list_instances", 0.05, wait=5.0)
    waited = of("gpu_gate_wait_seconds_total", scraped())
    assert waited == {'provider="vastai"': pytest.approx(0.05, abs=0.05)}


def test_overdue_sessions_and_since_when() -> None:
    now = clock.now()
    many.session(expires_at=now - timedelta(seconds=30))
    many.session(Status.STOPPING, expires_at=now - timedelta(seconds=200))
    many.session(Status.STOPPED, expires_at=now - timedelta(hours=5), next_check_at=None)
    many.session()
    found = scraped()
    assert found["gpu_sessions_past_end"] == 2
    assert found["gpu_session_past_end_seconds"] == pytest.approx(200, abs=10)


def test_cost_per_hour_is_of_what_is_open() -> None:
    rates: dict[str, Any] = {"gpu_rate": Decimal("1.5"), "disk_rate": Decimal("0.25")}
    many.rental(many.session(), **rates)
    many.rental(many.session(), Debt.DESTROYING, destroy_requested_at=clock.now(), **rates)
    many.rental(many.session(Status.STOPPED), Debt.CLOSED, closed_at=clock.now(), proof={"answer": "gone"}, **rates)
    many.rental(many.session())
    found = scraped()
    assert of("gpu_cost_dollars_per_hour", found) == {
        'kind="gpu",provider="vastai"': 3,
        'kind="disk",provider="vastai"': 0.5,
    }
    assert of("gpu_rentals_open", found) == {
        'provider="vastai",state="live"': 2,
        'provider="vastai",state="destroying"': 1,
    }


def test_budgets_show_together_and_nobodys_name() -> None:
    now = clock.now()
    month = f"{now:%Y-%m}"
    for name, limit, settled, held, told, exhausted in (
        ("lab-one", 100, 20_000_000, 30_000_000, 0, None),
        ("lab-two", 10, 9_000_000, 500_000, 80, None),
        ("lab-three", 10, 10_000_000, 0, 95, now),
        ("lab-four", 40, 0, 0, 0, None),
    ):
        row = {"monthly_limit": limit, "updated_at": now, "updated_by": "test", "next_check_at": now}
        budget = Budget.objects.create(consumer=billing.ensure_consumer(name), **row)
        for period, share in ((month, 1), ("2020-01", 0)):
            BudgetPeriod.objects.create(
                budget=budget, period=period, limit_micros=limit * 1_000_000, settled_micros=settled * share,
                held_micros=held * share, told_percent=told * share, exhausted_at=exhausted,
            )  # fmt: skip
    found = scraped()
    assert of("gpu_budgets", found) == {
        'period="month",state="calm"': 2,
        'period="month",state="warned"': 1,
        'period="month",state="exhausted"': 1,
        'period="total",state="calm"': 0,
        'period="total",state="warned"': 0,
        'period="total",state="exhausted"': 0,
    }
    assert of("gpu_budget_left_dollars", found) == {'period="month"': 90.5, 'period="total"': 0}
    assert of("gpu_budget_least_left_ratio", found) == {'period="month"': 0, 'period="total"': 1}
    assert "lab-" not in str(found)


def test_orphans_ghosts_and_listings() -> None:
    now = clock.now()
    ProviderWatch.objects.create(provider="vastai", next_sweep_at=now, ours=3, machines=5, failures_in_a_row=2)
    SeenOrphan.objects.create(provider="vastai", instance_id="1", label="x", first_seen_at=now)
    many.rental(many.session(), missing_listings=1)
    many.rental(many.session())
    found = scraped()
    assert found['gpu_orphans_present{provider="vastai"}'] == 1
    assert found['gpu_ghosts_suspected{provider="vastai"}'] == 1
    assert found['gpu_listing_failures_in_a_row{provider="vastai"}'] == 2
    assert of("gpu_listing_machines", found) == {
        'provider="vastai",whose="ours"': 3,
        'provider="vastai",whose="others"': 2,
    }


def test_a_sweep_and_a_fetch_are_counted(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    first = Offer.objects.order_by("id").values_list("id", flat=True)[0]
    Offer.objects.filter(id=first).update(withdrawn_at=clock.now())
    found = scraped()
    assert found['gpu_offer_fetches_total{outcome="applied",provider="vastai"}'] >= 1
    assert found['gpu_listings_total{outcome="complete",provider="vastai"}'] >= 1
    assert found['gpu_session_provisioning_duration_seconds_count{provider="vastai"}'] == 1
    assert found['gpu_destroy_duration_seconds_count{provider="vastai"}'] == 1
    assert found['gpu_offers_available{provider="vastai"}'] == Offer.objects.filter(withdrawn_at__isnull=True).count()
    assert 0 <= found['gpu_sweep_age_seconds{provider="vastai"}'] < 60


def test_counters_by_provider_begin_at_zero(market: SandboxProcess) -> None:
    found = scraped()
    by_provider = [spec for spec in catalogue.ALL.values() if spec.labels == ("provider",)]
    counters = [spec.name for spec in by_provider if spec.kind == catalogue.COUNTER]
    histograms = [f"{spec.name}_count" for spec in by_provider if spec.kind == catalogue.HISTOGRAM]
    assert len(counters) > 5
    assert len(histograms) == 3
    assert [of(name, found) for name in counters + histograms] == [{'provider="vastai"': 0}] * (len(counters) + 3)


def test_a_queue_that_does_not_answer_shows(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert list(service.queue()) == [("gpu_queue_up", (), 0)]
    found = scraped()
    assert found["gpu_queue_up"] == 0
    assert of("gpu_queue_depth", found) == {}


def test_labels_and_numbers_are_written_as_prometheus_reads_them() -> None:
    gauge = catalogue.Spec("gpu_x", catalogue.GAUGE, ("b", "a"), "Text")
    gauges = [
        samples.Sample("gpu_x", ('say "hi"\\\n', "1"), float("inf")),
        samples.Sample("gpu_x", ("", "2"), float("nan")),
        samples.Sample("gpu_x", ("é", "3"), float("-inf")),
        samples.Sample("gpu_x", ("", "4"), True),
    ]
    assert samples.written([gauge], gauges, {}, []) == (
        "# HELP gpu_x Text\n# TYPE gpu_x gauge\n"
        'gpu_x{a="1",b="say \\"hi\\"\\\\\\n"} +Inf\n'
        'gpu_x{a="2",b=""} NaN\ngpu_x{a="3",b="é"} -Inf\ngpu_x{a="4",b=""} 1.0\n'
    )
    with pytest.raises(ValueError, match="shorter"):
        samples.written([gauge], [samples.Sample("gpu_x", ("1",), 1)], {}, [])
    with pytest.raises(KeyError, match="gpu_y"):
        samples.written([gauge], [samples.Sample("gpu_y", (), 1)], {}, [])


def test_what_the_database_refuses_is_added_later() -> None:
    def away(execute: Any, sql: str, params: Any, many_rows: bool, context: Any) -> Any:
        raise DatabaseError("gone")

    gathered.count("x_total", 2, provider="vastai")
    with connection.execute_wrapper(away), pytest.raises(DatabaseError):
        gathered.flush()
    assert Counter.objects.filter(name="x_total").count() == 0
    gathered.count("x_total", provider="vastai")
    gathered.flush()
    gathered.flush()
    assert Counter.objects.get(name="x_total").value == 3


def test_more_than_one_statement_holds_all() -> None:
    for number in range(gathered.TOGETHER + 5):
        gathered.count("y_total", 0.25, route=str(number))
    gathered.flush()
    assert Counter.objects.filter(name="y_total", value=Decimal("0.25")).count() == gathered.TOGETHER + 5


@pytest.mark.django_db(transaction=True)
def test_processes_that_flush_at_once_lose_nothing() -> None:
    """Each with amounts of its own, as processes have; all add to the same rows."""
    processes = [gathered.Gathered() for _ in range(4)]

    def run(mine: gathered.Gathered) -> None:
        try:
            for number in range(10):
                mine.add("z_total", 1, {"which": str(number % 3)})
                mine.add("z_total", 1, {"which": "all"})
                mine.flush()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(each,)) for each in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(Counter.objects.filter(name="z_total").values_list("labels", "value")) == {
        '{"which": "0"}': 16,
        '{"which": "1"}': 12,
        '{"which": "2"}': 12,
        '{"which": "all"}': 40,
    }


@pytest.mark.django_db
def test_one_process_tells_of_itself_apart(client: Client) -> None:
    text = client.get("/metrics/process").content.decode()
    assert "process_resident_memory_bytes " in text
    assert "django_http_requests_before_middlewares_total " in text
    assert "process_resident_memory_bytes" not in client.get("/metrics").content.decode()
