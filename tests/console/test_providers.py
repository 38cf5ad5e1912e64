"""The provider accounts in the console: what the books and the provider say, and what may be pressed."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import responses
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing.models import ProviderBalance, ProviderCharge
from gpubroker.common import breaker, clock, counters
from gpubroker.common import providers as configured
from offers import services as offers
from sessions_app import maintenance, sweep
from sessions_app.models import Event, ProviderWatch, Rental, SeenOrphan, UnknownMachine
from tests import invariants
from tests.console.people import person, text
from tests.harness import Api, Driver
from tests.sandbox import DEFAULT_TENSORDOCK_TOKEN, SandboxProcess
from tests.sessions_app import many

pytestmark = pytest.mark.django_db
ALL, VAST, DOCK = "/admin/providers/", "/admin/providers/vastai/", "/admin/providers/tensordock/"


@pytest.fixture
def accounts(settings: Any) -> Any:
    """Two configured accounts that nobody asks."""
    settings.VASTAI_API_KEY, settings.TENSORDOCK_API_TOKEN = "nobody-asks", "nobody-asks-either"
    configured.configured.cache_clear()
    offers.ensure_inventories(["vastai", "tensordock"])
    yield
    configured.configured.cache_clear()


def watch(name: str = "vastai", **changes: Any) -> ProviderWatch:
    row = {"next_sweep_at": clock.now() + timedelta(hours=1), "last_sweep_at": clock.now() - timedelta(minutes=3)}
    return ProviderWatch.objects.create(provider=name, **{**row, **changes})


def test_all_accounts_side_by_side(accounts: None) -> None:
    watch(machines=5, ours=3)
    watch("tensordock", failures_in_a_row=4, last_error="tensordock: 502 from the provider")
    ProviderBalance.objects.create(
        provider="vastai", credit=Decimal("84.12"), read_at=clock.now(), next_read_at=clock.now()
    )
    shown = text(person("viewer").get(ALL))
    for words in ("5, 3 of them ours", "3 minutes ago", "$84.12", "nothing runs", "listing fails"):
        assert words in shown, words


def test_without_a_provider_the_page_says_so() -> None:
    configured.configured.cache_clear()
    viewer = person("viewer")
    assert "No provider is configured" in text(viewer.get(ALL))
    assert viewer.get(VAST).status_code == 404


def test_one_account_from_the_books(accounts: None) -> None:
    watch(machines=4, ours=2, failures_in_a_row=1, last_error="vastai: listing cut off")
    for _ in range(breaker.FAILURES):
        breaker.note("vastai", "create", "unavailable")
    counters.increment("gpu_provider_calls_total", 3, provider="vastai", operation="create", outcome="rate_limited")
    counters.increment("gpu_provider_calls_total", 9, provider="tensordock", operation="create", outcome="rate_limited")
    rental = many.rental(many.session(), gpu_type="RTX 4090", price_actual=Decimal("0.45"), phase="running")
    SeenOrphan.objects.create(
        provider="vastai", instance_id="501", label="gpb-testdep-aaaaaaaaaaaaaaaa-1", first_seen_at=clock.now()
    )
    UnknownMachine.objects.create(provider="vastai", instance_id="601", label="a notebook", first_seen_at=clock.now())
    ProviderCharge.objects.create(
        provider="vastai", key="i:1", source="instance-9", label=rental.label, rental_id=rental.id,
        amount=Decimal("1.5"), starts_at=clock.now(), fetched_at=clock.now(),
    )  # fmt: skip
    answer = person("viewer").get(VAST)
    shown = text(answer)
    for words in (
        "calls are held", "listing fails", "open until", "429s so far 3", "vastai: listing cut off",
        "create: unavailable",
        f"ours {rental.instance_id} {rental.label} {rental.session_id} (one) running",
        "orphan 501", "unknown 601", "a notebook", "$1.5", "$0.45 an hour",
        "As the last complete sweep saw them, 3 minutes ago",
    ):  # fmt: skip
        assert words in shown, words
    assert f"/admin/sessions_app/session/{rental.session_id}/change/" in answer.content.decode()
    assert "Sweep now" not in shown


def test_machines_are_listed_when_somebody_asks(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    label = Rental.objects.get().label
    orphan, other, nobody = (
        market.foreign(name) for name in ("gpb-testdep-abcdefghijklmnop-1", "gpb-another1-abcdefghijklmnop-1", "mine")
    )
    viewer = person("viewer")
    assert str(nobody) not in text(viewer.get(VAST))
    shown = text(viewer.get(f"{VAST}?ask=instances"))
    for words in (
        "As the provider said at", f"{label} {session_id} (my-application) running", f"orphan {orphan}",
        f"another deployment's {other} gpb-another1-abcdefghijklmnop-1 another1", f"unknown {nobody}",
    ):  # fmt: skip
        assert words in shown, words


def test_invoices_and_hosted_machines_are_asked_for(market: SandboxProcess) -> None:
    viewer = person("viewer")
    for part in ("invoices", "machines"):
        shown = text(viewer.get(f"{VAST}?ask={part}"))
        assert ("As the provider said at" in shown, "role" in shown) == (True, False), part
    assert "As the provider said at" not in text(viewer.get(f"{VAST}?ask=passwords"))


def test_what_a_provider_has_not_is_said(sandbox: SandboxProcess, settings: Any) -> None:
    settings.TENSORDOCK_API_TOKEN = DEFAULT_TENSORDOCK_TOKEN
    settings.TENSORDOCK_BASE_URL = sandbox.tensordock_url
    configured.configured.cache_clear()
    viewer = person("viewer")
    shown = text(viewer.get(DOCK))
    assert ("tensordock tells no charges." in shown, "Invoices" in shown) == (True, False)
    assert "As the provider said at" in text(viewer.get(f"{DOCK}?ask=instances"))


@responses.activate
def test_a_provider_that_fails_is_a_message(accounts: None, settings: Any) -> None:
    settings.CREATE_WAIT_SECONDS = 0
    responses.add(responses.GET, re.compile("https://console.vast.ai/.*"), status=500, body="<html>secret</html>")
    watch()
    before = invariants.digest()
    shown = text(person("viewer").get(f"{VAST}?ask=instances"))
    assert "vastai machines: " in shown
    assert "As the last complete sweep saw them" in shown
    assert "nobody-asks" not in shown
    assert invariants.digest() == before


def test_a_sweep_is_asked_for(accounts: None) -> None:
    watch()
    ann = person("operator")
    assert "A sweep of vastai begins within a second." in text(ann.post(VAST, {"action": "sweep"}, follow=True))
    assert sweep.claim_due() == ["vastai", "tensordock"]
    entry = LogEntry.objects.get()
    assert (entry.user.get_username(), entry.object_repr, entry.change_message) == ("ann", "vastai", "Sweep asked for.")
    assert "There is no such button" in text(ann.post(VAST, {"action": "nonsense"}, follow=True))
    assert LogEntry.objects.count() == 1


def test_what_is_not_watched_yet_is_swept_by_itself(accounts: None) -> None:
    assert "is not watched yet" in text(person("operator").post(DOCK, {"action": "sweep"}, follow=True))
    assert (ProviderWatch.objects.count(), LogEntry.objects.count()) == (0, 0)


def test_maintenance_begins_with_a_reason_and_ends(accounts: None) -> None:
    watch()
    ann = person("operator")
    question = text(ann.post(VAST, {"action": "maintenance-on"}))
    assert ("Put vastai into maintenance" in question, "What runs there is not touched" in question) == (True, True)
    form = {"action": "maintenance-on", "confirmed": "yes"}
    assert "This field is required." in text(ann.post(VAST, form))
    assert maintenance.under() == set()
    assert "vastai is in maintenance." in text(ann.post(VAST, {**form, "reason": "a dispute"}, follow=True))
    assert maintenance.all_of_them()["vastai"].by == "staff:ann"
    shown = text(ann.get(VAST))
    assert "by staff:ann: a dispute No new session is taken here." in shown
    assert "in maintenance" in text(ann.get(ALL))
    assert "nothing has changed" in text(ann.post(VAST, {**form, "reason": "again"}, follow=True))
    assert "End the maintenance of vastai" in text(ann.post(VAST, {"action": "maintenance-off"}))
    assert maintenance.under() == {"vastai"}
    off = {"action": "maintenance-off", "confirmed": "yes"}
    assert "vastai takes new sessions again." in text(ann.post(VAST, off, follow=True))
    assert maintenance.under() == set()
    assert "nothing has changed" in text(ann.post(VAST, off, follow=True))
    assert [entry.change_message for entry in LogEntry.objects.order_by("id")] == [
        "Maintenance begun: a dispute", "Maintenance ended.",
    ]  # fmt: skip


@pytest.mark.parametrize("role", ["viewer", "finance"])
def test_who_may_not_press(accounts: None, role: str) -> None:
    watch()
    client = person(role)
    before = maintenance.under(), ProviderWatch.objects.get().next_sweep_at
    for action in ("sweep", "maintenance-on", "maintenance-off", "nonsense"):
        form = {"action": action, "confirmed": "yes", "reason": "because"}
        assert client.post(VAST, form).status_code == 403
    assert (maintenance.under(), ProviderWatch.objects.get().next_sweep_at) == before
    assert (Event.objects.count(), LogEntry.objects.count()) == (0, 0)


def test_who_may_not_look(accounts: None) -> None:
    nobody = person()
    for path in (ALL, VAST):
        assert nobody.get(path).status_code == 403
        assert Client().get(path).headers["Location"].startswith("/admin/login/")


def test_the_pages_ask_a_fixed_number_of_questions(accounts: None) -> None:
    watch(machines=4, ours=2)
    client = person("viewer")

    def asked(path: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(path).status_code == 200
        return len(captured)

    def fill(first: int, last: int) -> None:
        for number in range(first, last):
            rental = many.rental(many.session())
            SeenOrphan.objects.create(provider="vastai", instance_id=f"o{number}", first_seen_at=clock.now())
            UnknownMachine.objects.create(provider="vastai", instance_id=f"u{number}", first_seen_at=clock.now())
            ProviderCharge.objects.create(
                provider="vastai", key=f"{number}", source=f"s-{number}", rental_id=rental.id, amount=1,
                fetched_at=clock.now(),
            )  # fmt: skip

    fill(0, 2)
    few = [asked(path) for path in (ALL, VAST)]
    fill(2, 15)
    assert [asked(path) for path in (ALL, VAST)] == few
