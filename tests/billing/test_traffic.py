"""Traffic, which providers tell in their charges: on the meter once, in the hour and the month that it belongs to."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import charges, costs, ledger, metering, services, statements, traffic
from billing.models import ChargeFetch, Consumer, LedgerRow, MeterSegment, ProviderCharge
from billing.periods import month_of
from gpubroker.common import clock
from providers.extras import Charge, ChargeItem
from sessions_app import charge_matching
from sessions_app.models import Rental
from sessions_app.states import Debt
from tests.billing import budget_world as world
from tests.billing.test_matching import Ticking, metered
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_rental

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def now() -> Iterator[Ticking]:
    ticking = Ticking(NOON + 5 * HOUR)
    with clock.use(ticking):
        yield ticking


def told(machine: str, *dollars: str, start: datetime | None = NOON, kind: str = "bwd", label: str = "") -> None:
    """The provider's charge: a dollar of GPU, and so much of traffic."""
    parts = tuple(ChargeItem(kind, "some GB", Decimal(each)) for each in dollars)
    amount = Decimal(1) + sum((part.amount for part in parts), Decimal(0))
    end = None if start is None else start + HOUR
    charges.keep("vastai", [Charge(f"instance-{machine}", machine, label, "1x", amount, start, end, parts)])


def book() -> int:
    charge_matching.assign("vastai", NOON - 3 * timedelta(days=1))
    return traffic.book("vastai")


def bandwidth() -> list[tuple[str, Decimal]]:
    """Hour and dollars of what stands on the meter."""
    found = MeterSegment.objects.filter(kind="bandwidth").order_by("started_at", "id")
    return [(f"{row.started_at:%d %H}", row.rate_per_hour) for row in found if row.ended_at != row.started_at]


def test_what_is_billed_is_on_the_meter_once(now: Ticking) -> None:
    metered("1")
    told("1", "0.25", "0.05")
    assert (book(), bandwidth()) == (1, [("10 12", Decimal("0.3"))])
    told("1", "0.25", "0.05")
    assert (book(), bandwidth()) == (0, [("10 12", Decimal("0.3"))])
    ledger.accrue()
    assert [row.amount for row in LedgerRow.objects.filter(kind="bandwidth")] == [Decimal("0.3")]
    # Charges come late, and are taken back.
    for dollars, left in (("0.75", [("10 12", Decimal("0.75"))]), ("0", [])):
        told("1", dollars)
        assert (book(), bandwidth()) == (1, left)
    ledger.accrue()
    assert not LedgerRow.objects.filter(kind="bandwidth").exists()


def test_costs_and_statements_tell_it(now: Ticking) -> None:
    metered("1")
    told("1", "0.5", kind="bwu")
    book()
    assert costs.of_session("sess-1", now.at).by_kind["bandwidth"] == Decimal("0.5")
    assert costs.of_period(month_of(NOON), now.at).total == Decimal("1.5")
    statement = statements.statement(Consumer.objects.get(name="me"), date(2026, 3, 1))
    assert (statement.total, statement.columns["bandwidth_cost"]) == (Decimal("1.5"), Decimal("0.5"))


def test_charges_that_begin_in_one_hour_add_up(now: Ticking) -> None:
    metered("1")
    told("1", "0.1")
    book()
    told("1", "0.2", start=NOON + HOUR / 2)
    told("1", "0.4", start=NOON + HOUR)
    assert (book(), bandwidth()) == (2, [("10 12", Decimal("0.3")), ("10 13", Decimal("0.4"))])
    told("1", "0.1", start=NOON + HOUR / 2)
    assert (book(), bandwidth()) == (1, [("10 12", Decimal("0.2")), ("10 13", Decimal("0.4"))])


def test_it_keeps_its_hour_which_is_none_before_the_machine_began(now: Ticking) -> None:
    """Vendors cut by the day; one that tells no beginning at all is placed as well."""
    rental = metered("1")
    told("1", "0.1", start=NOON - 12 * HOUR)
    told("1", "0.2", start=None)
    assert (book(), bandwidth()) == (2, [("10 12", Decimal("0.3"))])
    services.backdate({rental.id: NOON - 2 * HOUR}, "gpu")
    told("1", "0.15", start=NOON - 12 * HOUR)
    assert (book(), bandwidth()) == (1, [("10 12", Decimal("0.35"))])


def test_an_hour_that_is_not_over_waits(now: Ticking) -> None:
    metered("1")
    now.at = NOON + timedelta(minutes=59)
    told("1", "0.1")
    assert (book(), bandwidth()) == (0, [])
    now.at = NOON + HOUR
    assert (book(), bandwidth()) == (1, [("10 12", Decimal("0.1"))])


def test_a_machine_that_is_found_to_be_ours_later(now: Ticking) -> None:
    told("7", "0.1")
    assert (book(), bandwidth()) == (0, [])
    ProviderCharge.objects.update(fetched_at=NOON - timedelta(days=30))
    rental = make_rental(None, Debt.LIVE, instance_id="7", origin="orphan", created_at=now.at)
    # The meter does not know it yet: its traffic waits.
    assert book() == 0
    assert ProviderCharge.objects.get().rental_id == rental.id
    services.set_rate(services.Account(rental.id, "", None, "vastai", ""), "gpu", Decimal(1), NOON)
    assert (book(), bandwidth()) == (1, [("10 12", Decimal("0.1"))])


@pytest.mark.parametrize(("dollars", "kept"), [("-3", []), ("2000000", [("10 12", metering.MOST)])])
def test_what_no_meter_can_hold(now: Ticking, dollars: str, kept: list[tuple[str, Decimal]]) -> None:
    metered("1")
    told("1", dollars)
    assert (book(), bandwidth(), book()) == (1, kept, 0)


def test_many_take_few_queries(now: Ticking) -> None:
    consumer = services.ensure_consumer("me").pk
    rentals = {str(number): uuid.uuid4() for number in range(300)}
    MeterSegment.objects.bulk_create(
        MeterSegment(
            rental_id=each, session_id="s", consumer_id=consumer, provider="vastai", gpu_type="x", kind="gpu",
            rate_per_hour=1, started_at=NOON, ended_at=NOON + HOUR,
        )
        for each in rentals.values()
    )  # fmt: skip
    traffic_of = [ChargeItem("bwd", "", Decimal("0.1"))]
    rows = [Charge(f"instance-{name}", name, "", "", Decimal(1), NOON, None, tuple(traffic_of)) for name in rentals]
    charges.keep("vastai", rows)
    for charge in ProviderCharge.objects.all():
        ProviderCharge.objects.filter(pk=charge.pk).update(rental_id=rentals[charge.instance_id])
    with CaptureQueriesContext(connection) as captured:
        assert traffic.book("vastai") == 300
    assert len(captured) <= 25
    assert sum(dollars for _, dollars in bandwidth()) == 30


def test_a_budget_counts_it_once_when_it_is_known(sandbox: SandboxProcess) -> None:
    with world.stopped() as time:
        world.list_offers()
        world.budget(monthly_limit=5)
        session = world.rent(1)
        rental = world.boot(session)
        Rental.objects.filter(id=rental.id).update(instance_id="9")
        time.advance(hours=1)
        world.end(session)
        world.gone(session)
        assert world.counters() == (1, 0)
        told("9", "0.25", start=time.at - HOUR)
        for _ in range(2):
            charge_matching.assign("vastai", time.at - 24 * HOUR)
            traffic.book("vastai")
            time.advance(seconds=15)
            world.look()
            assert world.counters() == (Decimal("1.25"), 0)
        world.assert_books_agree()


def test_a_month_matches_the_marketplace_with_its_traffic(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = api.create(reservation_hours=5)["session"]["id"]
    driver.until_metered(session_id)
    machine = Rental.objects.get(session_id=session_id).instance_id
    for dollars in (0.05, 0.15):
        market.admin("POST", f"instances/{machine}/traffic", {"dollars": dollars})
        time.advance(hours=2)
        market.advance(7200)
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    for _ in range(2):
        charges.ask("vastai", clock.now().date() - timedelta(days=1))
        while charges.claim_due():
            charge_matching.step("vastai")
    bill = market.ledger()[0]
    found = api.get("/costs", session_id=session_id)
    assert bill["traffic_dollars"] == pytest.approx(0.2)
    assert found["bandwidth_cost"] == pytest.approx(0.2, abs=0.0005)
    assert found["total_cost"] == pytest.approx(bill["total_dollars"], rel=0.001)
    assert ChargeFetch.objects.get().error == ""
    assert api.get("/providers/vastai/findings")["findings"] == []
