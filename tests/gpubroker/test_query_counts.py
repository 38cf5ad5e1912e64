"""Every list asks the database a fixed number of times, whatever it holds: no row costs a query of its own."""

from __future__ import annotations

import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import services as billing
from billing import webhooks
from billing.models import Consumer
from billing.remembered import memory
from gpubroker.common import clock
from offers import failures, snapshot
from sessions_app.models import ActivitySample, Event, Session
from sessions_app.states import Debt, Status
from sessions_app.totals import totals
from tests.keys import Caller, make, staff
from tests.offers.factory import apply, row
from tests.sessions_app.test_states import make_rental, make_session
from tests.templates_app.factory import template

pytestmark = pytest.mark.django_db
FEW, MANY = 2, 25
#: Amounts of one later moment may be shorter when they are written.
DIGITS = 60


def fill(first: int, last: int) -> None:
    """Rows of every kind, numbered so that a second call adds to the first."""
    now = clock.now()
    apply([row(str(number), machine_id=str(number)) for number in range(1, last)])
    for number in range(first, last):
        consumer = Consumer.objects.create(name=f"consumer-{number}", created_at=now)
        session = make_session(Status.RUNNING, id=f"sess-{number}", consumer=consumer, offer_id=f"vastai-{number}")
        rental = make_rental(session)
        account = billing.Account(uuid.UUID(str(rental.id)), session.id, consumer.pk, "vastai", f"RTX {number}")
        billing.set_rate(account, "gpu", Decimal("0.5"), now - timedelta(hours=1))
        make(consumer.name)
        template(f"{number:032x}", '{"gpu_ram": {"gte": 1000}}')
        Event.objects.create(session_id="sess-1", kind="note", at=now)
        make_rental(Session.objects.get(id="sess-1"), Debt.CLOSED, attempt=number + 1, failure="boot_failed")
        ActivitySample.objects.create(session_id="sess-1", at=now, gpu_utilization=5)
        failures.record_failure(
            provider="vastai", offer_id=f"vastai-{number}", machine_id=str(number), gpu_type=f"RTX {number}",
            reason="boot_failed", message="",
        )  # fmt: skip
        webhooks.make("consumer-1" if number < 15 else None, f"https://example.com/{number}", by="me")


#: path -> queries. Those of the key come before, once: it is remembered for some seconds.
LISTS = {
    "/sessions": 2,
    "/sessions?status=running&provider=vastai&limit=20": 2,
    "/sessions/sess-1/events": 3,
    "/sessions/sess-1/attempts": 2,
    "/sessions/sess-1/samples": 3,
    "/offer-health": 3,
    "/webhooks": 2,
    "/webhooks?consumer_id=consumer-1": 2,
    "/providers": 5,
    "/keys": 2,
    "/keys?consumer_id=consumer-1": 2,
    "/consumers": 2,
    "/templates": 1,
    "/inventory": 0,
    "/inventory?limit=20&min_vram=1": 0,
    "/inventory/vastai-1/compatible-templates": 3,
    "/costs": 3,
    "/costs?consumer_id=consumer-1": 3,
    "/costs?group_by=session": 1,
    "/costs/summary": 3,
    "/reports/idle-waste": 3,
    "/statements/consumer-1": 3,
}


@pytest.fixture
def boss() -> Caller:
    return Caller(staff().secret)


def asked(boss: Caller, path: str) -> tuple[int, Any]:
    """How many queries, and the answer; after the key and the inventory are in memory."""
    snapshot.forget()
    memory.forget()
    totals.forget()
    boss("GET", "/inventory?limit=1")
    boss("GET", "/inventory/vastai-1/compatible-templates")
    with CaptureQueriesContext(connection) as captured:
        status, answer = boss("GET", path)
    assert status == 200, answer
    return len(captured), answer


@pytest.mark.parametrize("path", LISTS)
def test_the_number_of_queries_is_fixed(boss: Caller, path: str) -> None:
    fill(1, 1 + FEW)
    few, small = asked(boss, path)
    fill(1 + FEW, 1 + MANY)
    many, large = asked(boss, path)
    assert (few, many) == (LISTS[path], LISTS[path])
    assert len(str(large)) >= len(str(small)) - DIGITS
