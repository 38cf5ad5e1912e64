"""Books as large as they get, and scrapes of them: ``python -m benchmarks.scrape_books`` in the environment of a stack
that is not running. Prints the milliseconds of each scrape, and how the database goes about each of its queries."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

#: Live sessions with a machine each; sessions that are over; offers listed and withdrawn; webhooks sent; routes called.
LIVE, OVER, LISTED, WITHDRAWN, SENT, ROUTES = 10_000, 20_000, 5_000, 10_000, 5_000, 120
SCRAPES = 21


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    import django

    django.setup()
    fill()
    sys.stdout.write(json.dumps({"scrapes": scrapes(), "plans": plans()}))


def fill() -> None:
    from django.db import connection

    from billing import services as billing
    from gpubroker.common import clock, gathered, traffic
    from gpubroker.common.providers import CountingObserver
    from offers.models import Offer, ProviderInventory
    from sessions_app.models import ProviderWatch

    now = clock.now()
    consumers = [billing.ensure_consumer(f"bench-{number}") for number in range(20)]
    for start in range(0, LIVE + OVER, 5_000):
        _sessions([_is_live(number) for number in range(start, start + 5_000)], start, consumers)
    _webhooks()
    offer = {
        "provider": "vastai", "gpu_type": "RTX 4090", "gpu_key": "rtx4090", "gpu_name_raw": "RTX 4090", "gpu_count": 1,
        "vram_gb": 24, "vram_mb": 24_000, "price_per_hour": Decimal("0.5"), "location": "SE", "first_seen_at": now,
        "storage_price_per_gb_month": Decimal("0.1"), "fetched_at": now, "raw": {"dph_total": 0.5},
    }  # fmt: skip
    Offer.objects.bulk_create(
        [Offer(id=f"vastai-{n}", provider_id=str(n), withdrawn_at=now if n >= LISTED else None, **offer)
         for n in range(LISTED + WITHDRAWN)],
        batch_size=1_000,
    )  # fmt: skip
    ProviderInventory.objects.update_or_create(provider="vastai", defaults={"next_fetch_at": now})
    ProviderWatch.objects.update_or_create(provider="vastai", defaults={"next_sweep_at": now, "last_sweep_at": now})
    for number in range(ROUTES):
        for seconds in (0.001, 0.02, 0.07, 0.2, 0.3, 0.7):
            traffic.note("GET", f"/api/v1/a-thing/{number}", 200, seconds)
    for number in range(60):
        for seconds in (0.02, 0.07, 0.2, 0.3, 0.7, 3):
            CountingObserver().observe("vastai", f"operation_{number}", seconds, "")
    gathered.flush()
    with connection.cursor() as cursor:
        # As the autovacuum of PostgreSQL does by itself.
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")


def _is_live(number: int) -> bool:
    """Old and new lie among each other, as they do after a while."""
    return number % ((LIVE + OVER) // LIVE) == 0


def _sessions(live: list[bool], start: int, consumers: list[Any]) -> None:
    from billing.models import MeterSegment
    from gpubroker.common import clock, ids
    from sessions_app.models import Rental, Session
    from sessions_app.states import Debt, Status

    now, sessions, rentals = clock.now(), [], []
    for number, is_live in enumerate(live, start):
        session = Session(
            id=ids.new_session_id(), consumer=consumers[number % len(consumers)], offer_id=f"vastai-{number}",
            status=Status.RUNNING if is_live else Status.STOPPED, provider="vastai", gpu_type="RTX 4090", gpu_count=1,
            vram_mb=24_000, price_per_hour=Decimal("0.5"), storage_price_per_gb_month=Decimal("0.1"),
            workload_type="benchmark", reservation_hours=1, docker_image="ubuntu:22.04", disk_gb=10,
            ssh_public_key="ssh-ed25519 " + "A" * 68, created_at=now,
            expires_at=now + timedelta(hours=1 if is_live else -1),
            hard_max_at=now + timedelta(hours=12), next_check_at=now + timedelta(hours=1) if is_live else None,
        )  # fmt: skip
        closed: dict[str, Any] = {} if is_live else {"closed_at": now, "proof": {"answer": "gone"}}
        rental = Rental(
            session=session, provider="vastai", state=Debt.LIVE if is_live else Debt.CLOSED, label=f"bench-{number}",
            instance_id=str(number), created_at=now, accepted_at=now,
            gpu_rate=Decimal("0.5"), disk_rate=Decimal("0.01"),
            broker_key_sealed="s" * 600 if is_live else "", broker_public_key="ssh-ed25519 " + "A" * 68, **closed,
        )  # fmt: skip
        sessions.append(session)
        rentals.append(rental)
    Session.objects.bulk_create(sessions, batch_size=500)
    Rental.objects.bulk_create(rentals, batch_size=500)
    MeterSegment.objects.bulk_create(
        [MeterSegment(rental_id=rental.id, session_id=rental.session_id or "", consumer=consumers[0], provider="vastai",
                      gpu_type="RTX 4090", kind=kind, rate_per_hour=Decimal("0.5"), started_at=now,
                      ended_at=None if rental.state == Debt.LIVE else now)
         for rental in rentals for kind in ("gpu", "disk")],
        batch_size=1_000,
    )  # fmt: skip


def _webhooks() -> None:
    from billing.webhook_models import WebhookDelivery, WebhookEndpoint, WebhookMessage
    from gpubroker.common import clock

    now = clock.now()
    endpoint = WebhookEndpoint.objects.create(
        url="https://example.com", secret_sealed="", created_at=now, created_by="bench"
    )  # fmt: skip
    messages = [WebhookMessage(kind="session.running", at=now, subject=str(n), data={}) for n in range(SENT)]
    WebhookMessage.objects.bulk_create(messages, batch_size=1_000)
    sent = WebhookDelivery.State.DELIVERED
    WebhookDelivery.objects.bulk_create(
        [WebhookDelivery(endpoint=endpoint, message=message, state=sent, created_at=now) for message in messages],
        batch_size=1_000,
    )


def scrapes() -> list[tuple[float, float]]:
    """Milliseconds of each, and of CPU; the first is not counted, as it opens connections and imports."""
    from django.test import RequestFactory

    from gpubroker.metrics import metrics

    request, spent = RequestFactory().get("/metrics"), []
    for _ in range(SCRAPES):
        began, before = time.perf_counter(), time.process_time()
        answer = metrics(request)
        spent.append(((time.perf_counter() - began) * 1000, (time.process_time() - before) * 1000))
        assert f'gpu_sessions_active{{provider="vastai",status="running"}} {LIVE:.1f}'.encode() in answer.content
    return spent[1:]


def plans() -> list[dict[str, Any]]:
    """Each query of a scrape: its milliseconds and its plan."""
    from django.db import connection
    from django.test import RequestFactory

    from gpubroker.metrics import metrics

    seen: list[tuple[str, Any, float]] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            seen.append((sql, params, (time.perf_counter() - began) * 1000))

    with connection.execute_wrapper(watch):
        metrics(RequestFactory().get("/metrics"))
    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN ANALYZE"
    found = []
    with connection.cursor() as cursor:
        for sql, params, spent in seen:
            # With parameters, as it was asked: SQLite finds some partial indexes for literals only.
            cursor.execute(f"{explain} {sql}", params)
            found.append({"sql": sql, "ms": spent, "plan": [str(row[-1]) for row in cursor.fetchall()]})
    return found


if __name__ == "__main__":
    main()
