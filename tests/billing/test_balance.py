"""Provider balances: read when due, judged against what runs, warned about once a drop, and heeded at create."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing import balance, services, webhooks
from billing.models import ProviderBalance, WebhookMessage
from gpubroker.common import clock
from gpubroker.common import providers as configured
from providers.base import Balance
from sessions_app.models import Session
from tests.billing.test_keys_admin import logged_in
from tests.harness import Api, Driver, MovableClock
from tests.keys import Caller, staff
from tests.sandbox import DEFAULT_TENSORDOCK_TOKEN, SandboxProcess

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(sandbox: SandboxProcess, time: MovableClock) -> SandboxProcess:
    sandbox.credit(50)
    return sandbox


def burns(rate: str) -> uuid.UUID:
    """Something at that many dollars an hour."""
    rental = uuid.uuid4()
    consumer = services.ensure_consumer("me")
    services.set_rate(
        services.Account(rental, "sess-a", consumer.pk, "vastai", "RTX 4090"), "gpu", Decimal(rate), clock.now()
    )
    return rental


def told(credit: str) -> None:
    balance.note("vastai", Balance(Decimal(credit)))


def warnings() -> list[dict[str, Any]]:
    return [message.data for message in WebhookMessage.objects.order_by("id")]


def test_it_is_read_when_due_and_not_before(account: SandboxProcess, time: MovableClock) -> None:
    assert balance.claim_due() == ["vastai"]
    assert balance.claim_due() == []
    balance.read("vastai")
    row = ProviderBalance.objects.get()
    assert (row.provider, row.credit, row.currency, row.error) == ("vastai", Decimal(50), "USD", "")
    assert balance.claim_due() == []
    time.advance(seconds=301)
    account.credit(7)
    assert balance.claim_due() == ["vastai"]
    balance.read("vastai")
    assert ProviderBalance.objects.get().credit == 7


def test_a_failure_is_told_and_keeps_what_was_known(account: SandboxProcess, time: MovableClock) -> None:
    balance.claim_due()
    balance.read("vastai")
    account.fault("error_5xx", operation="user", times=2)
    before = ProviderBalance.objects.get()
    balance.read("vastai")
    row = ProviderBalance.objects.get()
    assert (row.credit, row.read_at, row.failures_in_a_row) == (before.credit, before.read_at, 1)
    assert "vastai balance" in row.error
    time.advance(seconds=29)
    assert balance.claim_due() == []
    time.advance(seconds=2)
    assert balance.claim_due() == ["vastai"]
    account.clear_faults()
    balance.read("vastai")
    row = ProviderBalance.objects.get()
    assert (row.error, row.failures_in_a_row) == ("", 0)


def test_a_provider_that_does_not_tell(account: SandboxProcess, settings: Any) -> None:
    settings.TENSORDOCK_API_TOKEN = DEFAULT_TENSORDOCK_TOKEN
    settings.TENSORDOCK_BASE_URL = account.tensordock_url
    configured.configured.cache_clear()
    assert sorted(balance.claim_due()) == ["tensordock", "vastai"]
    balance.read("tensordock")
    row = ProviderBalance.objects.get(provider="tensordock")
    assert (row.offered, row.credit, row.error) == (False, None, "the v2 API does not tell the balance")
    found = balance.standing("tensordock")
    assert found is not None
    assert (found.offered, found.fresh, found.runway_hours) == (False, False, None)


def test_what_is_left_sinks_with_what_runs_until_it_is_told_again(time: MovableClock) -> None:
    assert balance.standing("vastai") is None
    told("10")
    idle = balance.standing("vastai")
    assert idle is not None
    assert (idle.burn_per_hour, idle.runway_hours, idle.fresh) == (Decimal(0), None, True)
    burns("2")
    burns("0.5")
    time.advance(minutes=12)
    running = balance.standing("vastai")
    assert running is not None
    assert running.burn_per_hour == Decimal("2.5")
    assert running.left == pytest.approx(Decimal("9.5"), abs=Decimal("0.01"))
    assert running.runway_hours == pytest.approx(Decimal("3.8"), abs=Decimal("0.01"))
    assert running.fresh is True
    time.advance(minutes=4)
    stale = balance.standing("vastai")
    assert stale is not None
    assert stale.fresh is False


def test_one_warning_a_drop(time: MovableClock, settings: Any) -> None:
    webhooks.make(None, "https://example.com/staff", by="me")
    webhooks.make("me", "https://example.com/me", by="me")
    rental = burns("1")
    told("30")
    assert warnings() == []
    told("23")
    told("20")
    (message,) = warnings()
    assert message["provider"] == "vastai"
    assert (message["credit"], message["burn_per_hour"], message["runway_hours"]) == (23, 1, 23)
    assert message["warning_hours"] == 24
    assert WebhookMessage.objects.get().consumer_id is None
    told("25")  # above the threshold, and not clear of it: no second warning
    told("23")
    assert len(warnings()) == 1
    told("31")
    told("23")
    assert len(warnings()) == 2
    # While nothing runs the runway says nothing: it neither warns nor takes back.
    services.settle(rental, clock.now())
    told("23")
    assert ProviderBalance.objects.get().low_since is not None
    told("29")
    assert ProviderBalance.objects.get().low_since is None
    burns("1")
    settings.BALANCE_WARNING_HOURS = 0
    told("1")
    assert len(warnings()) == 2


def test_staff_sees_it(account: SandboxProcess, api: Api) -> None:
    burns("2")
    answer = api.get("/providers/vastai/balance")
    assert (answer["credit"], answer["burn_per_hour"], answer["runway_hours"]) == (50, 2, 25)
    kept = api.get("/providers")["providers"][0]["balance"]
    assert {**kept, "runway_hours": 25} == {name: answer[name] for name in answer if name != "provider"}


def test_a_session_that_the_account_cannot_carry_is_refused(
    market: SandboxProcess, api: Api, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told("0.5")
    before = Session.objects.count()
    answer = api.create(503, reservation_hours=12)
    assert answer["error_type"] == "insufficient_provider_credit"
    assert (answer["provider"], answer["retry_suggested"]) == ("vastai", False)
    assert "0.50 are left" in caplog.text
    assert not {"needed", "left"} & set(answer)
    assert "$" not in answer["error"]
    assert Session.objects.count() == before
    settings.PROVIDER_CREDIT_MARGIN = 0
    assert api.create()["session"]["status"] == "pending"


def test_what_runs_is_carried_to_its_end_first(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create(reservation_hours=10)["session"]["id"]
    session = driver.until_status(session_id, "running")
    disk = session.storage_price_per_gb_month * session.disk_gb / 720
    hour = session.price_per_hour + disk
    told(str(hour * 10))  # enough for either alone
    assert api.create(503, reservation_hours=5)["error_type"] == "insufficient_provider_credit"
    told(str(hour * 40))
    assert api.create(reservation_hours=5)["session"]["status"] == "pending"


def test_what_is_not_known_refuses_nothing(market: SandboxProcess, api: Api, time: MovableClock) -> None:
    assert api.create(reservation_hours=1, consumer_id="a")["session"]["status"] == "pending"
    told("0.01")
    time.advance(minutes=16)
    assert api.create(reservation_hours=1, consumer_id="b")["session"]["status"] == "pending"
    ProviderBalance.objects.update(credit=None, read_at=None)
    assert api.create(reservation_hours=1, consumer_id="c")["session"]["status"] == "pending"


def test_the_page_in_the_admin(time: MovableClock) -> None:
    burns("2")
    told("10")
    page = logged_in(superuser=True).get("/admin/billing/providerbalance/").content.decode()
    assert "5.0" in page
    assert "10.000000" in page


def test_it_is_for_staff(sandbox: SandboxProcess, settings: Any) -> None:
    settings.API_AUTH = "key"
    assert Caller(staff().secret)("GET", "/providers/vastai/balance")[0] == 200


def test_metrics(account: SandboxProcess) -> None:
    told("10")
    lines = Client().get("/metrics").content.decode().splitlines()
    assert 'gpu_provider_balance_dollars{provider="vastai"} 10.0' in lines
    assert 'gpu_provider_runway_seconds{provider="vastai"} +Inf' in lines
    told("-1")
    burns("2")
    lines = Client().get("/metrics").content.decode().splitlines()
    assert 'gpu_provider_runway_seconds{provider="vastai"} 0.0' in lines
