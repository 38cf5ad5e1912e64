"""The start page: its figures are those of the books, in few queries, however much there is."""

from __future__ import annotations

import time as wall
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from billing import services as billing
from billing.models import Budget, BudgetPeriod, Consumer, ProviderBalance
from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.models import ProviderBreaker, Pulse
from gpubroker.console import start
from sessions_app.drive import PULSE
from sessions_app.models import ProviderWatch, Rental, SeenOrphan, Session
from sessions_app.states import Debt, EndReason, Status
from tests.console.people import person, superuser, text
from tests.sessions_app.test_states import make_rental, make_session

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 15, 12, tzinfo=UTC)
#: Of the page itself, whatever the books hold; login, roles and the page's frame come on top.
QUERIES = 26


@pytest.fixture(autouse=True)
def noon(settings: Any) -> Iterator[None]:
    settings.VASTAI_API_KEY = "nobody-asks"
    configured.configured.cache_clear()
    with clock.use(lambda: NOW):
        yield
    configured.configured.cache_clear()


def page(client: Client) -> str:
    answer = client.get("/admin/")
    assert answer.status_code == 200
    return text(answer)


def running(number: int, rate: str = "0.5", hours: int = 24) -> Session:
    """A session that has run for so long at so many dollars an hour."""
    consumer, _ = Consumer.objects.get_or_create(name=f"consumer-{number}", defaults={"created_at": NOW})
    session = make_session(
        Status.RUNNING, id=f"sess-{number}", consumer=consumer, offer_id=f"vastai-{number}",
        created_at=NOW - timedelta(hours=hours), hard_max_at=NOW + timedelta(hours=9),
    )  # fmt: skip
    rental = make_rental(session, Debt.LIVE)
    account = billing.Account(uuid.UUID(str(rental.id)), session.id, consumer.pk, "vastai", "RTX 4090")
    billing.set_rate(account, "gpu", Decimal(rate), NOW - timedelta(hours=hours))
    return session


def budget(number: int, percent: int) -> None:
    consumer, _ = Consumer.objects.get_or_create(name=f"consumer-{number}", defaults={"created_at": NOW})
    row = Budget.objects.create(
        consumer=consumer, monthly_limit=Decimal(100), updated_at=NOW, updated_by="me", next_check_at=NOW
    )
    half = percent * 500_000
    BudgetPeriod.objects.create(
        budget=row, period="2026-11", limit_micros=100_000_000, settled_micros=half, held_micros=half
    )


def test_an_empty_broker_has_an_empty_page() -> None:
    Pulse.objects.create(name=PULSE, at=NOW)
    seen = page(superuser())
    for sentence in (
        "Burn $0.00/h Today (UTC) $0.00 This month $0.00",
        "No budget has a limit.",
        "vastai breaker closed last complete sweep never, 0 of 0 machines ours balance not told",
        "None: every machine that ended is proved gone.",
        "None within a week.",
    ):
        assert sentence in seen
    assert "What to do" not in seen


def test_the_figures_are_those_of_the_books() -> None:
    running(1)
    running(2, rate="0.25", hours=10)
    make_session(Status.FAILED, id="sess-old", offer_id="vastai-8", created_at=NOW - timedelta(days=3))
    seen = page(superuser())
    assert "Pending 0 now Provisioning 0 now Running 2 now Stopping 0 now Stopped 0 begun within a day" in seen
    assert "Failed 0 begun within a day" in seen
    # Since midnight 12 h at 0.5 and 10 h at 0.25; before it 12 h at 0.5.
    assert "Burn $0.75/h Today (UTC) $8.50 This month $14.50" in seen
    assert "The last 30 days: $14.50" in seen


def test_budgets_come_by_how_near_their_limit_is() -> None:
    for number, percent in ((1, 10), (2, 85), (3, 100), (4, 1), (5, 2), (6, 3), (7, 4)):
        budget(number, percent)
    answer = superuser().get("/admin/")
    shown = text(answer).split("Budgets nearest their limit")[1].split("Providers")[0]
    assert [word for word in shown.split() if word.startswith("consumer-")] == [
        "consumer-3", "consumer-2", "consumer-1", "consumer-7", "consumer-6", "consumer-5",
    ]  # fmt: skip
    assert "consumer-2 $85.00 of $100.00 2026-11 · 85 %" in shown
    bars = answer.content.decode()
    assert bars.count('class="console-bar over"') == bars.count('class="console-bar near"') == 1


def test_a_provider_that_is_unwell_shows_why() -> None:
    ProviderWatch.objects.create(
        provider="vastai", next_sweep_at=NOW, last_sweep_at=NOW - timedelta(minutes=42), machines=7, ours=3,
        held_reason="it would end 5 of 7",
    )  # fmt: skip
    ProviderBreaker.objects.create(
        provider="vastai", failures=5, open_until=NOW + timedelta(seconds=9), last_error="search: unavailable",
        changed_at=NOW,
    )  # fmt: skip
    ProviderBalance.objects.create(
        provider="vastai", credit=Decimal("12.5"), read_at=NOW, next_read_at=NOW, low_since=NOW
    )
    running(1)
    seen = page(superuser())
    assert (
        "vastai breaker open: calls are held last complete sweep 42 min ago, 3 of 7 machines ours "
        "balance $12.50, lasts 1 d 1 h its sweep holds: it would end 5 of 7 last error: search: unavailable"
    ) in seen


def test_what_is_owed_is_shown_until_it_is_proved() -> None:
    session = make_session(Status.STOPPING)
    rental = make_rental(
        session, Debt.DESTROYING, destroy_requested_at=NOW - timedelta(minutes=7), last_error="vastai: not now"
    )
    client = superuser()
    owed = page(client).split("Destroys without a proof yet")[1]
    assert f"{rental.label} 7 min vastai: not now 1 in all, 1 for more than 5 min." in owed
    Rental.objects.filter(pk=rental.pk).update(state=Debt.CLOSED, closed_at=NOW, proof={"call": "test"})
    assert "None: every machine that ended is proved gone." in page(client)


def test_failures_are_the_newest_with_their_reason() -> None:
    make_session(
        Status.FAILED, id="sess-first", offer_id="vastai-3", created_at=NOW - timedelta(hours=3),
        ended_at=NOW - timedelta(hours=2), end_reason=EndReason.BOOT_TIMEOUT,
    )  # fmt: skip
    make_session(
        Status.FAILED, id="sess-last", offer_id="vastai-4", created_at=NOW - timedelta(hours=1),
        ended_at=NOW - timedelta(minutes=30), end_reason=EndReason.REFUSED, end_message="<b>no</b> room",
    )  # fmt: skip
    answer = superuser().get("/admin/")
    assert (
        "sess-last RTX 4090 at vastai for me, 30 min ago <b>no</b> room "
        "sess-first RTX 4090 at vastai for me, 2 h 00 min ago SSH did not answer in time"
    ) in text(answer)
    assert "<b>no</b>" not in answer.content.decode()


def test_what_needs_a_person_is_said_first() -> None:
    Pulse.objects.create(name=PULSE, at=NOW - timedelta(minutes=3))
    make_session(Status.RUNNING, expires_at=NOW - timedelta(minutes=6))
    SeenOrphan.objects.create(
        provider="vastai", instance_id="77", label="gpb-testdep-aaaaaaaaaaaaaaaa-1", first_seen_at=NOW
    )
    answer = superuser().get("/admin/")
    alerts = answer.content.decode().split('id="alerts"')[1].split('id="statuses"')[0]
    assert "The scheduler has not ticked for 3 min" in alerts
    assert "1 session more than 5 minutes past the end." in alerts
    assert "1 thing in the review queue for a person to decide." in alerts
    assert [link.split('"')[0] for link in alerts.split('href="')[1:]] == [
        "/admin/runbook/", "/admin/sessions_app/session/?trouble=past_end", "/admin/review/",
    ]  # fmt: skip


def test_who_has_no_role_is_told_how_to_get_one() -> None:
    running(1)
    seen = page(person())
    assert "Ask an admin for a role: viewer, operator, finance or admin." in seen
    assert "Burn" not in seen
    assert "Burn $0.50/h" in page(person("viewer", name="bob"))


def _ten_thousand() -> None:
    """Copies of one session of each status, made by the database, and a hundred debts."""
    for status in Status:
        make_session(status, id=f"sess-{status}", offer_id=f"vastai-{status}", end_reason=EndReason.BOOT_FAILED)
    columns = [str(field.column) for field in Session._meta.concrete_fields]
    copied = [f"{name} || '-' || n" if name in ("id", "offer_id") else name for name in columns]
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1670) "  # noqa: S608
            f"INSERT INTO sessions_app_session ({', '.join(columns)}) "
            f"SELECT {', '.join(copied)} FROM sessions_app_session CROSS JOIN numbers"
        )
    for number in range(1, 101):
        session = Session.objects.get(id=f"sess-stopping-{number}")
        make_rental(session, Debt.DESTROYING, destroy_requested_at=NOW - timedelta(minutes=8))


def test_ten_thousand_sessions_cost_no_more_queries_and_little_time() -> None:
    request = RequestFactory().get("/admin/")
    request.user = User.objects.create_superuser("root", password=None)
    with CaptureQueriesContext(connection) as few:
        start.context(request, {})
    _ten_thousand()
    assert Session.objects.count() > 10_000
    took = []
    for _ in range(5):
        began = wall.process_time()
        with CaptureQueriesContext(connection) as many:
            start.context(request, {})
        took.append(wall.process_time() - began)
    assert len(many) == len(few) <= QUERIES
    # What this process needed, not what a loaded machine made it wait for.
    assert min(took) < 0.1


def test_more_rows_cost_no_more_queries() -> None:
    client = superuser()
    running(1)
    budget(1, 50)
    client.get("/admin/")
    with CaptureQueriesContext(connection) as few:
        client.get("/admin/")
    for number in range(2, 12):
        running(number)
        budget(number, number)
        make_session(Status.FAILED, id=f"sess-f{number}", offer_id=f"vastai-f{number}", end_reason=EndReason.REFUSED)
    with CaptureQueriesContext(connection) as many:
        client.get("/admin/")
    assert len(many) == len(few)
