"""Promising, spending and releasing under a budget, and the rule that it is never crossed (I7)."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F

from billing import budgets
from billing.budget_models import Budget, BudgetPeriod, Reservation
from providers.base import Instance, Phase
from sessions_app import alternatives, attempts, budget_watch, ending, launch, preserve, worst_case
from sessions_app.extend import extend
from sessions_app.models import Rental, Session
from sessions_app.states import Debt, EndReason, Status
from tests.billing import budget_world as world
from tests.billing.budget_world import StoppedClock, boot, budget, counters, end, gone, refused, rent, shown
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess
from tests.sessions_app import many

pytestmark = pytest.mark.django_db
#: Two hours and five minutes for the destroy at a dollar an hour, and 5 %.
TWO_HOURS = Decimal("2.1875")


@pytest.fixture
def time(sandbox: SandboxProcess) -> Iterator[StoppedClock]:
    with world.stopped() as moved:
        world.list_offers()
        yield moved


# -- Promising ---------------------------------------------------------------------------------------------------


def test_a_create_reserves_its_worst_case(time: StoppedClock) -> None:
    budget(monthly_limit=5, total_limit=100)
    session = rent(1)
    held = world.reservation(session)
    micros = int(TWO_HOURS * 10**6)
    assert (held.amount, held.parts, held.released_at) == (TWO_HOURS, {"total": micros, "2026-11": micros}, None)
    assert counters() == counters("total") == (0, TWO_HOURS)
    assert world.within_limits()


def test_with_a_kept_disk_its_price_too(time: StoppedClock) -> None:
    """A quarter of an hour more for the stop, then the disk for its hours and for a destroy of its own."""
    budget(monthly_limit=50)
    session = rent(1, storage_policy="preserve", preserve_hours=100)
    machine, disk = Decimal(2) + Decimal(20) / 60, (Decimal(100) + Decimal(5) / 60) / 100
    assert world.reservation(session).amount == ((machine + disk) * Decimal("1.05")).quantize(world.MICRO, "ROUND_UP")


def test_without_a_budget_nothing_is_reserved(time: StoppedClock) -> None:
    rent(1)
    assert (Reservation.objects.count(), BudgetPeriod.objects.count()) == (0, 0)


def test_what_does_not_fit_is_refused_with_the_shortfall_and_changes_nothing(time: StoppedClock) -> None:
    budget(monthly_limit=4, total_limit=3)
    rent(1)
    refusal = refused(lambda: rent(2))
    assert refusal.message == (
        "the total budget of me cannot carry this: it may cost up to $2.1875, and $0.8125 of $3.00 are left"
    )
    assert refusal.extra == {
        "error_type": "insufficient_budget", "consumer_id": "me", "budget": "total", "period": None,
        "limit": 3, "spent": 0, "reserved": TWO_HOURS, "needed": TWO_HOURS, "shortfall": Decimal("1.375"),
    }  # fmt: skip


def test_the_lock_decides_and_not_the_first_look(time: StoppedClock) -> None:
    """What is refused before anything costly is done may have been true a moment ago."""
    budget(monthly_limit=4)
    session = rent(1)
    other = many.session(Status.PENDING, consumer=world.ME, price_per_hour=Decimal(3))
    claim = budgets.Claim(other.id, other.consumer_id, worst_case.of_session(other, None, time.at))
    refusal = refused(lambda: budgets.reserve(claim))
    assert refusal.extra["budget"] == "monthly"
    assert counters() == (0, world.reservation(session).amount)


def test_exactly_the_limit_fits_and_a_millionth_less_does_not(time: StoppedClock) -> None:
    budget(monthly_limit=TWO_HOURS - world.MICRO)
    refused(lambda: rent(1))
    budget(monthly_limit=TWO_HOURS)
    rent(1)
    assert counters() == (0, TWO_HOURS)


def test_a_soft_budget_refuses_nothing(time: StoppedClock) -> None:
    budget(monthly_limit=1, hard=False)
    rent(1)
    rent(2)
    assert counters() == (0, 2 * TWO_HOURS)
    assert shown()["monthly"]["left"] == 0


def test_another_consumers_budget_is_another(time: StoppedClock) -> None:
    budget(monthly_limit=0)
    refused(lambda: rent(1))
    rent(1, consumer="you")
    assert Session.objects.get().consumer.name == "you"


def test_the_database_itself_refuses_to_cross(time: StoppedClock) -> None:
    budget(monthly_limit=4)
    with pytest.raises(IntegrityError), transaction.atomic():
        BudgetPeriod.objects.update(held_micros=F("held_micros") + 4_000_001)
    with pytest.raises(IntegrityError), transaction.atomic():
        BudgetPeriod.objects.update(settled_micros=-1)


# -- Spending ----------------------------------------------------------------------------------------------------


def test_spent_and_reserved_are_one_sum_while_it_runs(time: StoppedClock) -> None:
    budget(monthly_limit=5)
    session = rent(1)
    boot(session)
    for minutes in (0, 1, 59, 60, 5):
        time.advance(minutes=minutes)
        now = shown()["monthly"]
        assert now["spent"] + now["reserved"] == TWO_HOURS
        world.assert_books_agree()
    assert shown()["monthly"]["spent"] == TWO_HOURS - shown()["monthly"]["reserved"] == Decimal("2.083333")


def test_its_real_cost_takes_the_reservations_place_at_the_proof(time: StoppedClock) -> None:
    budget(monthly_limit=5, total_limit=5)
    session = rent(1)
    boot(session)
    time.advance(minutes=30)
    end(session)
    assert counters() == (0, TWO_HOURS)
    time.advance(minutes=1)
    gone(session)
    cost = (Decimal(31) / 60).quantize(world.MICRO)
    assert counters() == counters("total") == (cost, 0)
    held = world.reservation(session)
    assert (held.cost, held.released_at) == (cost, time.at)
    rent(2)
    world.assert_books_agree()


def test_released_once(time: StoppedClock) -> None:
    budget(monthly_limit=5)
    session = rent(1)
    boot(session)
    time.advance(minutes=30)
    end(session)
    gone(session)
    before = counters()
    assert budgets.release(session.id) is False
    ending.release_budget(session.id)
    assert ending.finish_session(session.id) is False
    assert counters() == before == (Decimal("0.5"), 0)


def test_nothing_is_released_while_a_machine_may_be_billed(time: StoppedClock) -> None:
    budget(monthly_limit=5)
    session = rent(1)
    boot(session)
    end(session)
    ending.release_budget(session.id)
    assert counters() == (0, TWO_HOURS)


def test_a_session_that_was_never_asked_for_gives_all_of_it_back(time: StoppedClock) -> None:
    budget(monthly_limit=5)
    session = rent(1)
    end(session)
    assert Session.objects.get().status == Status.STOPPED
    assert counters() == (0, 0)
    assert world.reservation(session).cost == 0


def test_so_does_one_that_could_not_be_launched(time: StoppedClock) -> None:
    budget(monthly_limit=5)
    session = rent(1)
    launch.fail_create(world.machine(session), EndReason.REFUSED, "no")
    assert (Session.objects.get().status, counters()) == (Status.FAILED, (0, 0))


def test_many_of_several_consumers_may_be_over_at_once(time: StoppedClock) -> None:
    names = ("me", "you")
    sessions = [rent(1, consumer=name) for name in names if budget(name, monthly_limit=5)]
    assert sorted(ending.end_sessions([each.id for each in sessions], EndReason.STAFF)) == sorted(
        each.id for each in sessions
    )
    assert [counters(consumer=name) for name in names] == [(0, 0), (0, 0)]


def test_a_kept_disk_holds_what_it_may_still_cost(time: StoppedClock) -> None:
    budget(monthly_limit=50)
    session = rent(1, storage_policy="preserve", preserve_hours=100)
    rental = boot(session)
    whole = world.reservation(session).amount
    time.advance(hours=1)
    end(session)
    Rental.objects.filter(id=rental.id).update(stop_answered_at=time.at)
    rental.refresh_from_db()
    standing = Instance(rental.instance_id, rental.label, Phase.STOPPED, "exited", "")
    preserve._preserved(rental, standing)
    assert (Session.objects.get().status, counters()) == (Status.STOPPED, (0, whole))
    budget_watch.look(session.consumer_id)
    ahead = (100 + Decimal(5) / 60) / 100 * Decimal("1.05")
    assert counters() == (0, (1 + ahead).quantize(world.MICRO, "ROUND_UP"))
    time.advance(hours=100)
    world.assert_books_agree()
    preserve.expire(Rental.objects.get())
    gone(session)
    assert counters() == (2, 0)


# -- Extending, another attempt, a bid ---------------------------------------------------------------------------


def test_an_extension_reserves_its_hours(time: StoppedClock) -> None:
    budget(monthly_limit=4)
    session = rent(1)
    boot(session)
    time.advance(hours=1)
    extend(session.id, 1)
    # An hour spent, two to come and the five minutes.
    assert counters() == (0, 1 + (2 + Decimal(5) / 60) * Decimal("1.05"))
    refusal = refused(lambda: extend(session.id, 1))
    assert refusal.extra["needed"] == Decimal("1.05")
    assert Session.objects.get().reservation_hours == 3


def test_another_attempt_reserves_what_it_costs_more(time: StoppedClock) -> None:
    budget(monthly_limit=Decimal("2.4"))
    session = rent(1, auto_retry=True, max_retries=3)
    boot_and_fail(session)
    assert (Session.objects.get().offer_id, counters()) == ("vastai-2", (0, TWO_HOURS))
    world.list_offers(price_per_hour=Decimal("1.29"))
    boot_and_fail(session)
    # 1.30 an hour do not fit, and there is nothing else.
    found = Session.objects.get()
    assert (found.status, found.end_reason, counters()) == (Status.FAILED, "boot_failed", (0, 0))
    assert found.end_message.endswith("(2 attempts made; no other offer fits)")


def test_a_cheaper_offer_is_taken_where_the_better_one_is_too_dear(time: StoppedClock) -> None:
    budget(monthly_limit=Decimal("2.2"))
    session = rent(1, auto_retry=True, max_retries=3)
    prices = {"2": Decimal("1.2"), "3": Decimal("0.99"), "4": Decimal("1.3")}
    apply([
        row(number, machine_id=number, price_per_hour=price, disk_gb=500.0, reliability=0.99,
                  storage_price_per_gb_month=Decimal("0.9"))
        for number, price in prices.items()
    ])  # fmt: skip
    boot_and_fail(session)
    assert (Session.objects.get().offer_id, counters()) == ("vastai-3", (0, TWO_HOURS))


def test_an_attempt_is_not_begun_when_others_took_the_money_meanwhile(time: StoppedClock) -> None:
    budget(monthly_limit=Decimal("2.4"))
    session = rent(1, auto_retry=True, max_retries=3)
    plan = alternatives.choose(session, list(session.rentals.all()))
    assert plan is not None
    Budget.objects.update(monthly_limit=1)
    BudgetPeriod.objects.update(limit_micros=1_000_000)
    dear = Session.objects.get()
    dear_plan = type(plan)(
        plan.offer, plan.disk_gb, plan.docker_image, plan.launch_options, plan.disk_estimate, Decimal(2)
    )
    last = world.machine(session)
    Rental.objects.filter(id=last.id).update(failure="boot_failed", failure_message="it exited")
    last.refresh_from_db()
    ending.close_rental(last, {Debt.INTENDED}, {"call": "none", "answer": "never asked"})
    with transaction.atomic():
        attempts._begin_within_budget(dear, last, dear_plan)
    found = Session.objects.get()
    assert (found.status, found.offer_id, Rental.objects.count(), counters()) == ("failed", "vastai-1", 1, (0, 0))
    assert "the monthly budget of me for 2026-11 cannot carry this" in found.end_message


def boot_and_fail(session: Session) -> None:
    rental = world.launched(session)
    assert attempts.fail(rental, EndReason.BOOT_FAILED, "it exited")
    gone(session)
    attempts.next_attempt(session.id)
