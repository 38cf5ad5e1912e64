"""Ledger rows one by one: final hours, corrections, marks, traffic, two at once, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from billing import costs, ledger, metering, services, spending
from billing.models import LedgerDay, LedgerRow, MeterChange, MeterSegment
from billing.periods import ALL_TIME, month_of
from billing.remembered import Memory
from billing.tasks import accrue
from gpubroker.common import clock
from tests.billing.test_meter import account

START = datetime(2026, 3, 31, 22, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
Line = tuple[str, str, Decimal, Decimal | int]


class Now:
    def __init__(self) -> None:
        self.at = START


@pytest.fixture
def now() -> Iterator[Now]:
    moment = Now()
    with clock.use(lambda: moment.at):
        yield moment


def rows() -> list[Line]:
    """Hour, kind, dollars and seconds."""
    found = LedgerRow.objects.order_by("hour", "kind", "preserved")
    return [(f"{row.hour:%d %H}", row.kind, row.amount, row.seconds) for row in found]


@pytest.mark.django_db
def test_an_hour_is_a_row_when_it_is_over(now: Now) -> None:
    who = account()
    services.set_rate(who, "gpu", Decimal("1.2"), START)
    now.at = START + timedelta(minutes=29)
    accrue()
    assert rows() == []
    now.at = START + timedelta(minutes=90)
    accrue()
    assert rows() == [("31 22", "gpu", Decimal("0.6"), 1800), ("31 23", "gpu", Decimal("1.2"), 3600)]
    services.settle(who.rental_id, START + timedelta(minutes=100))
    now.at = START + timedelta(hours=9)
    accrue()
    assert rows()[2:] == [("01 00", "gpu", Decimal("0.2"), 600)]
    assert [(day.day.isoformat(), day.nanos) for day in LedgerDay.objects.order_by("day")] == [
        ("2026-03-31", 1_800_000_000), ("2026-04-01", 200_000_000),
    ]  # fmt: skip
    assert not MeterSegment.objects.filter(book_at__isnull=False).exists()


@pytest.mark.django_db
def test_nothing_is_booked_twice_and_nothing_done_where_nothing_is_due(now: Now) -> None:
    services.set_rate(account(), "gpu", Decimal("1"), START)
    now.at = START + 3 * HOUR
    assert ledger.accrue() > 0
    before = rows()
    with CaptureQueriesContext(connection) as captured:
        assert ledger.accrue() == 0
    assert rows() == before
    assert not [query["sql"] for query in captured if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]


@pytest.mark.django_db
def test_a_machine_that_died_earlier_is_given_back_from_the_rows(now: Now) -> None:
    who = account()
    services.set_rate(who, "disk", Decimal("0.1"), START)
    services.set_rate(who, "gpu", Decimal("2"), START)
    now.at = START + 5 * HOUR
    ledger.accrue()
    assert len(rows()) == 10
    services.settle(who.rental_id, START + timedelta(minutes=45))
    assert costs.of_period(ALL_TIME, now.at).total == Decimal("1.575")
    ledger.accrue()
    assert rows() == [
        ("31 22", "disk", Decimal("0.05"), 1800), ("31 22", "gpu", Decimal(1), 1800),
        ("31 23", "disk", Decimal("0.025"), 900), ("31 23", "gpu", Decimal("0.5"), 900),
    ]  # fmt: skip
    assert costs.of_period(ALL_TIME, now.at).total == Decimal("1.575")
    assert costs.of_period(month_of(now.at), now.at).total == 0


@pytest.mark.django_db
def test_a_bill_that_began_earlier_adds_to_the_rows(now: Now) -> None:
    who = account()
    services.set_rate(who, "disk", Decimal("0.6"), START)
    now.at = START + HOUR
    ledger.accrue()
    services.backdate({who.rental_id: START - timedelta(minutes=40)}, "disk")
    ledger.accrue()
    assert rows() == [("31 21", "disk", Decimal("0.1"), 600), ("31 22", "disk", Decimal("0.6"), 3600)]
    services.backdate({who.rental_id: START + timedelta(minutes=20)}, "disk")
    ledger.accrue()
    assert rows() == [("31 22", "disk", Decimal("0.1"), 600)]


@pytest.mark.django_db
def test_what_nobody_booked_for_days_is_caught_up_with(now: Now) -> None:
    who = account()
    services.set_rate(who, "gpu", Decimal("0.12345678"), START)
    now.at = START + timedelta(days=5, minutes=1)
    ledger.accrue()
    assert len(rows()) == 120
    services.settle(who.rental_id, START + timedelta(days=5))
    now.at += HOUR
    ledger.accrue()
    assert sum(amount for _, _, amount, _ in rows()) == Decimal("0.12345678") * 120
    assert not MeterSegment.objects.filter(book_at__isnull=False).exists()


@pytest.mark.django_db
def test_failed_attempts_are_marked_before_and_after_they_are_booked(now: Now) -> None:
    who, other = account(), account("sess-b")
    for each in (who, other):
        services.set_rate(each, "disk", Decimal(1), START)
    now.at = START + HOUR
    ledger.accrue()
    metering.mark_failed(who.rental_id)
    services.set_rate(who, "gpu", Decimal(1), now.at)
    now.at += HOUR
    ledger.accrue()
    marked = set(LedgerRow.objects.values_list("session_id", "kind", "failed_attempt"))
    assert marked == {("sess-a", "disk", True), ("sess-a", "gpu", True), ("sess-b", "disk", False)}
    assert costs.of_session("sess-a", now.at).failed == Decimal(3)
    assert costs.of_session("sess-b", now.at).failed == 0


@pytest.mark.django_db
def test_a_kept_disk_is_apart_from_the_disk_in_use(now: Now) -> None:
    who = account()
    services.set_rate(who, "disk", Decimal(6), START)
    for _ in range(2):
        metering.keep_disk(who.rental_id, START + timedelta(minutes=10))
    services.set_rate(who, "disk", Decimal(12), START + timedelta(minutes=20))
    now.at = START + HOUR
    ledger.accrue()
    found = LedgerRow.objects.order_by("preserved").values_list("preserved", "nanos", "microseconds")
    assert list(found) == [(False, 10**9, 600 * 10**6), (True, 3 * 10**9, 1200 * 10**6)]
    assert costs.of_session("sess-a", now.at).preserved == Decimal(9)


@pytest.mark.django_db
def test_traffic_is_what_was_billed_and_a_proof_does_not_shorten_it(now: Now) -> None:
    who = account()
    assert not metering.set_traffic(who.rental_id, START, Decimal(1))
    services.set_rate(who, "gpu", Decimal(1), START)
    for dollars in ("0.5", "0.37", "0.37"):
        assert metering.set_traffic(who.rental_id, START, Decimal(dollars))
    services.settle(who.rental_id, START)
    now.at = START + HOUR
    assert costs.of_session("sess-a", now.at).by_kind["bandwidth"] == Decimal("0.37")
    ledger.accrue()
    assert rows() == [("31 22", "bandwidth", Decimal("0.37"), 3600)]
    assert costs.of_period(month_of(START), now.at).gpu_hours == 0
    metering.set_traffic(who.rental_id, START, Decimal(0))
    ledger.accrue()
    assert rows() == []


@pytest.mark.django_db
def test_what_is_remembered_grows_by_itself_and_yields_to_every_change(now: Now) -> None:
    memory, who = Memory(), account()
    april = month_of(START + HOUR * 3)
    services.set_rate(who, "gpu", Decimal(1), START)
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: None, "0.5"),
        (lambda: services.set_rate(who, "disk", Decimal(1), now.at), "2.5"),
        (lambda: services.backdate({who.rental_id: now.at - timedelta(minutes=90)}, "disk"), "5"),
        (lambda: services.stop_kind(who.rental_id, "gpu", now.at), "6"),
        (lambda: metering.set_traffic(who.rental_id, now.at, Decimal(7)), "14"),
        (lambda: services.settle(who.rental_id, now.at), "14"),
    ]
    now.at = START + HOUR
    for change, expected in changes:
        change()
        now.at += HOUR
        for whose in (None, "me"):
            assert memory.of_period(april, now.at, whose) == costs.of_period(april, now.at, whose)
            assert memory.of_period(april, now.at, whose).total == Decimal(expected)
            with CaptureQueriesContext(connection) as captured:
                memory.of_period(april, now.at + timedelta(seconds=1), whose)
            assert len(captured) == 1
        ledger.accrue()


@pytest.mark.django_db
def test_changes_are_forgotten_but_the_newest_of_each(now: Now, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, who = Memory(), account()
    for rate in range(1, 6):
        services.set_rate(who, "gpu", Decimal(rate), now.at)
    now.at += HOUR
    before = memory.of_period(ALL_TIME, now.at)
    monkeypatch.setattr(ledger, "MOST_CHANGES", 3)
    ledger.accrue()
    assert MeterChange.objects.count() == 1
    assert memory.of_period(ALL_TIME, now.at) == before


@pytest.mark.django_db
def test_a_rolled_back_change_is_not_remembered(now: Now) -> None:
    memory, who = Memory(), account()
    services.set_rate(who, "gpu", Decimal(1), START)
    now.at += HOUR
    with transaction.atomic():
        services.set_rate(who, "disk", Decimal(1), START)
        assert memory.of_period(ALL_TIME, now.at).total == 2
        transaction.set_rollback(True)
    assert memory.of_period(ALL_TIME, now.at).total == 1
    services.set_rate(who, "disk", Decimal(3), START)
    assert memory.of_period(ALL_TIME, now.at).total == 4


@pytest.mark.django_db(transaction=True)
def test_two_that_book_at_once_book_everything_once(now: Now, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "TOGETHER", 5)
    accounts = [account(f"sess-{number}") for number in range(40)]
    for who in accounts:
        services.set_rates([services.Rate(who, kind, Decimal("0.7"), START) for kind in ("gpu", "disk")])
    now.at = START + timedelta(hours=3, minutes=30)

    def book(_: int) -> None:
        try:
            ledger.accrue()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(book, range(4)))
    ledger.accrue()
    assert LedgerRow.objects.count() == 80 * 4
    assert {row.amount for row in LedgerRow.objects.filter(hour__gt=START)} == {Decimal("0.7")}
    assert spending.spent(accounts[0].consumer_id or 0, ALL_TIME, now.at) == Decimal("0.7") * 80 * 4 - Decimal(28)
