"""Consumers in the console: what they spend, budgets set and removed, keys; and what each role may not do there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import ledger, reports, services
from billing.budget_bars import Bars
from billing.budget_models import Budget
from billing.models import ApiKey, Consumer
from billing.periods import month_of
from gpubroker.common import clock
from gpubroker.common import providers as configured
from sessions_app.models import Event, Session
from tests import invariants
from tests.billing.budget_world import ME, StoppedClock, boot, budget, list_offers, rent, shown, stopped
from tests.console.people import person, text
from tests.keys import make

pytestmark = pytest.mark.django_db
LIST = "/admin/billing/consumer/"
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


@pytest.fixture
def now() -> Iterator[StoppedClock]:
    with stopped(NOON) as moment:
        yield moment


@pytest.fixture(autouse=True)
def vastai(settings: Any) -> Iterator[None]:
    """Configured, and asked by nobody here."""
    settings.VASTAI_API_KEY = "nobody-asks"
    configured.configured.cache_clear()
    yield
    configured.configured.cache_clear()


def used(name: str, dollars: str, hours: int = 1, before: int = 0) -> Consumer:
    """So many dollars an hour, until ``before`` hours ago."""
    consumer = services.ensure_consumer(name)
    who = services.Account(uuid.uuid4(), f"sess-{name}", consumer.pk, "vastai", "RTX 4090")
    end = clock.now() - timedelta(hours=before)
    services.set_rate(who, "gpu", Decimal(dollars), end - timedelta(hours=hours))
    services.settle(who.rental_id, end)
    return consumer


def page_of(consumer: Consumer) -> str:
    return f"{LIST}{consumer.pk}/change/"


def form(**changes: Any) -> dict[str, Any]:
    usual = {"monthly_limit": "500", "total_limit": "", "mode": "hard", "thresholds": "50, 80", "confirmed": "yes"}
    return {**usual, **changes}


# --- what is seen -------------------------------------------------------------------------------


def test_spend_of_many_is_that_of_costs_booked_or_not(now: StoppedClock) -> None:
    one, two, three = used("one", "0.333333", 70), used("two", "2", 3, before=11), services.ensure_consumer("three")
    month = month_of(NOON)
    expected = {one.pk: Decimal("23.333310"), two.pk: Decimal(6), three.pk: Decimal(0)}
    assert reports.spend_by_consumer(expected, month) == expected
    ledger.accrue()
    assert reports.spend_by_consumer(expected, month) == expected
    with CaptureQueriesContext(connection) as captured:
        reports.spend_by_consumer(expected, month)
    assert len(captured) == 1


def test_the_list_shows_spend_and_the_fuller_limit(now: StoppedClock) -> None:
    used("me", "2", 5)
    budget(monthly_limit=100, total_limit=20)
    used("you", "1", 1)
    page = text(person("viewer").get(LIST))
    assert "me $10.00 $10.00 of $20.00 0" in page
    assert "you $1.00 no budget" in page


def test_no_consumer_costs_a_query(now: StoppedClock) -> None:
    ann = person("viewer")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert ann.get(LIST).status_code == 200
        return len(captured)

    def fill(first: int, last: int) -> None:
        for number in range(first, last):
            used(f"c-{number}", "1")
            budget(f"c-{number}", monthly_limit=9)
            make(f"c-{number}")

    fill(0, 2)
    few = queries()
    fill(2, 20)
    assert queries() == few
    assert few <= 14


def test_the_page_shows_the_budget_and_leads_on(now: StoppedClock) -> None:
    list_offers()
    budget(monthly_limit=100)
    boot(rent())
    now.advance(minutes=30)
    consumer = Consumer.objects.get(name=ME)
    page = person("finance").get(page_of(consumer))
    told = shown()["monthly"]
    words = text(page)
    for name in ("limit", "spent", "reserved", "left"):
        assert f"{name.capitalize()} ${told[name]:.2f}" in words
    for link in (
        "statement/",
        "/admin/billing/metersegment/spend/?consumer=me",
        "/admin/billing/ledgerrow/?consumer=me",
    ):
        assert link in page.content.decode()
    assert "../budget/" in page.content.decode()
    assert "../budget/" not in person("operator", "ben").get(page_of(consumer)).content.decode()


def test_bars_never_leave_their_box() -> None:
    over = Bars("total", Decimal(10), Decimal(25), Decimal(9), Decimal(16))
    assert [item["value"] for item in over.items] == [90, 10]
    assert (over.left, over.over, over.state, over.share) == (Decimal(0), Decimal(15), "over", 250)
    nothing = Bars("2026-11", Decimal(0), Decimal(0), Decimal(0), Decimal(0))
    assert ([item["value"] for item in nothing.items], nothing.state) == ([0, 0], "")


# --- budgets ------------------------------------------------------------------------------------


def test_finance_sets_a_budget(now: StoppedClock) -> None:
    consumer, ann = services.ensure_consumer(ME), person("finance")
    path = f"{LIST}{consumer.pk}/budget/"
    assert "There is no budget now" in text(ann.get(path))
    assert not Budget.objects.exists()
    done = ann.post(path, form(), follow=True)
    assert "The budget of me is set." in text(done)
    made = Budget.objects.get()
    assert (made.monthly_limit, made.total_limit, made.hard, made.thresholds) == (Decimal(500), None, True, [50, 80])
    assert made.updated_by == "staff:ann"
    assert Event.objects.get(kind="budget_changed").actor == "staff:ann"
    assert LogEntry.objects.get().change_message == "set the budget: $500 a month, hard"
    assert 'value="500' in ann.get(path).content.decode()


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"monthly_limit": ""}, "Give one limit or both."),
        ({"monthly_limit": "-1"}, "greater than or equal to 0"),
        ({"monthly_limit": "much"}, "Enter a number."),
        ({"thresholds": "50 %"}, "Whole percents from 1 to 100"),
        ({"thresholds": "0, 101"}, "Whole percents from 1 to 100"),
        ({"thresholds": "1,2,3,4,5,6,7,8,9,10,11"}, "At most 10."),
        ({"mode": "harder"}, "is not one of the available choices"),
    ],
)
def test_a_bad_wish_changes_nothing(now: StoppedClock, wish: dict[str, str], sentence: str) -> None:
    budget(monthly_limit=7)
    before = Budget.objects.values().get()
    path = f"{LIST}{Consumer.objects.get().pk}/budget/"
    assert sentence in text(person("finance").post(path, form(**wish)))
    assert Budget.objects.values().get() == before
    assert not LogEntry.objects.exists()


def test_a_limit_that_ends_sessions_is_typed(now: StoppedClock) -> None:
    list_offers()
    session = rent(hours=8)
    boot(session)
    now.advance(hours=1)
    consumer, ann = Consumer.objects.get(name=ME), person("finance")
    path = f"{LIST}{consumer.pk}/budget/"
    before = invariants.digest()
    asked = text(ann.post(path, form(monthly_limit="3")))
    assert "the newest sessions will end earlier" in asked
    assert "nothing was changed" in asked
    assert "nothing was changed" in text(ann.post(path, form(monthly_limit="3", confirm_typed="end")))
    assert invariants.digest() == before
    assert not Budget.objects.exists()
    ann.post(path, form(monthly_limit="3", confirm_typed="end sessions earlier"))
    assert Budget.objects.get().monthly_limit == 3
    assert Session.objects.get().status == "running"


def test_a_budget_is_removed(now: StoppedClock) -> None:
    budget(monthly_limit=7)
    ann = person("finance")
    path = f"{LIST}{Consumer.objects.get().pk}/budget/remove/"
    assert "Nothing limits what is spent" in text(ann.get(path))
    assert Budget.objects.exists()
    ann.post(path, {"confirmed": "yes"})
    assert not Budget.objects.exists()
    assert LogEntry.objects.get().change_message == "removed the budget"
    assert "has no budget" in text(ann.post(path, {"confirmed": "yes"}, follow=True))
    assert ann.get(f"{LIST}99999/budget/").status_code == 404


@pytest.mark.parametrize("role", ["", "viewer", "operator"])
def test_who_may_not_manage_money_changes_no_budget(now: StoppedClock, role: str) -> None:
    budget(monthly_limit=7)
    before, ann = invariants.digest(), person(role)
    path = f"{LIST}{Consumer.objects.get().pk}/budget/"
    assert [ann.get(path).status_code, ann.get(f"{path}remove/").status_code] == [403, 403]
    assert ann.post(path, form()).status_code == 403
    assert ann.post(f"{path}remove/", {"confirmed": "yes"}).status_code == 403
    assert invariants.digest() == before


# --- keys ---------------------------------------------------------------------------------------


def test_all_keys_of_a_consumer_are_revoked_by_typing_how_many(now: StoppedClock) -> None:
    make("lab"), make("lab"), make("other")
    lab, ann = Consumer.objects.get(name="lab"), person("admin")
    ask: dict[str, Any] = {"action": "revoke_keys", "_selected_action": [lab.pk]}
    assert "lab: 2 keys" in text(ann.post(LIST, ask))
    ann.post(LIST, {**ask, "confirmed": "yes", "confirm_typed": "revoke"})
    assert ApiKey.objects.filter(revoked_at__isnull=True).count() == 3
    done = ann.post(LIST, {**ask, "confirmed": "yes", "confirm_typed": "revoke 2"}, follow=True)
    assert "2 keys are revoked" in text(done)
    assert [str(key.consumer) for key in ApiKey.objects.filter(revoked_at__isnull=True)] == ["other"]
    assert LogEntry.objects.count() == 2
    assert "None of them has a key" in text(ann.post(LIST, ask, follow=True))


@pytest.mark.parametrize("role", ["viewer", "operator", "finance"])
def test_who_may_not_manage_access_makes_and_ends_no_key(now: StoppedClock, role: str) -> None:
    made, ann = make("lab"), person(role)
    before = invariants.digest()
    answer = {"confirmed": "yes", "confirm_typed": "revoke 1"}
    ann.post(LIST, {"action": "revoke_keys", "_selected_action": [made.key.consumer_id], **answer})
    ann.post("/admin/billing/apikey/", {"action": "revoke", "_selected_action": [made.key.pk], **answer})
    ann.post("/admin/billing/apikey/", {"action": "rotate", "_selected_action": [made.key.pk], **answer})
    assert ann.post("/admin/billing/apikey/add/", {"consumer": "lab", "scopes": ["read"]}).status_code == 403
    assert invariants.digest() == before
    assert not LogEntry.objects.exists()
    assert "Make a key" not in text(ann.get(f"{LIST}{made.key.consumer_id}/change/"))
