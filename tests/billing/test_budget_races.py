"""I7 under concurrency: real transactions on connections of their own, on PostgreSQL and on SQLite; and a process that
dies at every step of a create."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.db import connections

from billing import budgets
from billing.budget_models import BudgetPeriod, Reservation
from billing.budget_parts import TOTAL
from billing.budgets import InsufficientBudget
from sessions_app import budget_end, budget_watch, worst_case
from sessions_app.ending import end_session, end_sessions
from sessions_app.extend import extend
from sessions_app.models import Session
from sessions_app.states import EndReason, Status
from tests import crashing
from tests.billing import budget_world as world
from tests.crashing import Outcome
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db(transaction=True)
#: SQLite lets one write at a time: there a few threads tell as much.
THREADS, EACH = (50, 20) if os.environ.get("DATABASE_URL") else (8, 12)
TIMES = 8 if os.environ.get("DATABASE_URL") else 3
TWO_HOURS = Decimal("2.1875")


@pytest.fixture
def time(sandbox: SandboxProcess, transactional_db: None) -> Iterator[world.StoppedClock]:
    with world.stopped() as moved:
        yield moved


class Checker:
    """Looks through a connection of its own, again and again, whether anything that is committed crosses a limit."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.looks = 0
        self.crossed: list[tuple[str, int, int, int]] = []
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Checker:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join(30)

    def _run(self) -> None:
        try:
            while not self.over.wait(0.002):
                rows = BudgetPeriod.objects.values_list("period", "settled_micros", "held_micros", "limit_micros")
                self.crossed += [row for row in rows if row[1] + row[2] > row[3]]
                self.looks += 1
        finally:
            connections.close_all()


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Each in a thread and on a connection of its own, from one starting shot: what it returned or raised. However
    loaded the machine is, only a deadlock lets the test time out."""
    shot = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        shot.wait()
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - handed to the test, which looks at it
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def threads(work: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    return at_once(*[partial(work, number) for number in range(count)])


@pytest.mark.timeout(600)
def test_many_creates_against_one_budget(time: world.StoppedClock) -> None:
    """Every other session that could be had is given back at once, so that there is always something to fight for."""
    world.list_offers(THREADS * EACH)
    fits = 37
    world.budget(monthly_limit=TWO_HOURS * fits + 1, total_limit=TWO_HOURS * fits)
    offers = iter(range(1, THREADS * EACH + 1))
    choosing = threading.Lock()

    def work(number: int) -> tuple[int, int]:
        made = refused = 0
        for _ in range(EACH):
            with choosing:
                offer = next(offers)
            try:
                session = world.rent(offer)
            except InsufficientBudget:
                refused += 1
            else:
                made += 1
                if made % 2:
                    end_session(session.id, EndReason.DONE)
        return made, refused

    with Checker() as checker:
        outcomes = threads(work)
    made, refused = (sum(each) for each in zip(*outcomes, strict=True))
    assert made + refused == THREADS * EACH
    assert (checker.crossed, checker.looks > 10) == ([], True)
    alive = Session.objects.filter(status=Status.PENDING).count()
    assert Session.objects.count() == made == Reservation.objects.count()
    assert Reservation.objects.filter(released_at__isnull=True).count() == alive <= fits
    assert world.counters(TOTAL) == world.counters() == (0, TWO_HOURS * alive)
    assert world.within_limits()


def test_the_guard_alone(time: world.StoppedClock) -> None:
    """Without the look that refuses most before it comes to the lock."""
    fits = 23
    budget = world.budget(total_limit=TWO_HOURS * fits)
    world.list_offers(1)
    world.rent(1)
    future = worst_case.of_session(Session.objects.get(), None, time.at)
    names = (f"sess-{number}" for number in itertools.count())
    choosing = threading.Lock()

    def work(number: int) -> int:
        got = 0
        for _ in range(10):
            with choosing:
                name = next(names)
            try:
                got += budgets.reserve(budgets.Claim(name, budget.consumer_id, future))
            except InsufficientBudget:
                continue
        return got

    with Checker() as checker:
        outcomes = threads(work, 8)
    assert (sum(outcomes), checker.crossed) == (fits - 1, [])
    assert world.counters(TOTAL) == (0, TWO_HOURS * fits)


def test_of_an_extension_and_a_create_one_gets_the_money(time: world.StoppedClock) -> None:
    world.list_offers(TIMES * 2)
    for number in range(TIMES):
        consumer = f"consumer-{number}"
        # 1.05 are needed for an hour more, 1.1375 for another session of an hour.
        world.budget(consumer, monthly_limit=TWO_HOURS + Decimal("1.2"))
        session = world.rent(2 * number + 1, consumer=consumer)
        outcomes = at_once(
            partial(extend, session.id, 1),
            partial(world.rent, 2 * number + 2, hours=1, consumer=consumer),
        )
        refused = [isinstance(each, InsufficientBudget) for each in outcomes]
        assert sorted(refused) == [False, True], outcomes
        hours = sorted(Session.objects.filter(consumer__name=consumer).values_list("reservation_hours", flat=True))
        assert hours == ([3] if refused[1] else [1, 2])
        assert world.within_limits(consumer)


def test_released_twice_at_once_is_released_once(time: world.StoppedClock) -> None:
    world.list_offers(TIMES)
    world.budget(monthly_limit=100)
    for number in range(TIMES):
        session = world.rent(number + 1)
        held = world.counters()[1]
        outcomes = at_once(*[partial(budgets.release, session.id)] * 4)
        assert sorted(outcomes) == [False, False, False, True]
        assert world.counters() == (0, held - TWO_HOURS)


def test_a_budget_made_while_sessions_are_made(time: world.StoppedClock) -> None:
    """Nobody is left out for good: what was created in the very moment in which the budget was made is found."""
    world.list_offers(THREADS * 2)
    works: list[Callable[[], Any]] = [partial(world.rent, number) for number in range(1, 9)]
    outcomes = at_once(*works, lambda: world.budget(monthly_limit=1000))
    assert [each for each in outcomes if isinstance(each, BaseException)] == []
    budget_watch.look_due()
    assert world.counters() == (0, TWO_HOURS * 8)
    assert Reservation.objects.count() == 8


def test_ending_many_and_changing_the_limit_do_not_wait_for_each_other_for_ever(time: world.StoppedClock) -> None:
    world.list_offers(12)
    names = [f"consumer-{number}" for number in range(4)]
    for name in names:
        world.budget(name, monthly_limit=100)
    sessions = [world.rent(offer, consumer=name).id for name in names for offer in (1, 2, 3)]
    outcomes = at_once(
        *[partial(end_session, session_id, EndReason.STAFF) for session_id in sessions[::2]],
        partial(budget_end.squeeze, sessions[0]),
        partial(end_sessions, sessions, EndReason.STAFF),
        partial(end_sessions, sessions[::-1], EndReason.STAFF),
        *[partial(world.budget, name, monthly_limit=50) for name in names],
    )
    assert [each for each in outcomes if isinstance(each, BaseException)] == []
    assert {world.counters(consumer=name) for name in names} == {(Decimal(0), Decimal(0))}


def test_a_process_that_dies_at_any_step_of_a_create_leaves_both_or_neither(time: world.StoppedClock) -> None:
    world.list_offers(100)
    world.budget(monthly_limit=1000, total_limit=1000)
    before = 0

    def work(step: int, last: Outcome | None) -> Outcome:
        nonlocal before
        outcome = crashing.run_until(step, lambda: world.rent(step))
        made = Session.objects.count()
        assert Reservation.objects.count() == made
        assert world.counters() == world.counters(TOTAL) == (0, TWO_HOURS * made)
        assert made in (before, before + 1)
        before = made
        return outcome

    outcomes = crashing.every_step(work)
    assert any("billing_budgetperiod" in name for name in outcomes[-1].steps)
    assert "before COMMIT" in outcomes[-1].steps
