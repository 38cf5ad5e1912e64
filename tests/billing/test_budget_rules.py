"""Whatever happens in whatever order: nothing is promised beyond a limit, and the counters are what the meter and the
reservations say (I7)."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing.budget_models import Budget, BudgetPeriod
from billing.budget_parts import TOTAL, Stretch, by_period, month_end, month_key, month_start, need
from gpubroker.common.errors import ApiError
from gpubroker.common.money import MICRO
from sessions_app import budget_watch, drive, meter, worst_case
from sessions_app.extend import extend
from sessions_app.models import Rental, Session
from sessions_app.states import ENDABLE, OPEN, EndReason, Status
from tests.billing import budget_world as world
from tests.sandbox import SandboxProcess

moments = st.timedeltas(timedelta(0), timedelta(days=2500)).map(lambda since: datetime(2024, 1, 1, tzinfo=UTC) + since)
spans = st.timedeltas(timedelta(0), timedelta(days=100))
rates = st.decimals(0, 100, places=6)
#: Sessions reach into the next month.
LAST_DAY = datetime(2026, 11, 30, 6, tzinfo=UTC)
KEEPING: dict[str, dict[str, Any]] = {
    "rent": {},
    "rent and keep": {"storage_policy": "preserve", "preserve_hours": 30},
}


def exact(rate: Decimal, span: timedelta) -> Fraction:
    return Fraction(rate) * Fraction(max(span, timedelta(0)) // timedelta(microseconds=1), 3600 * 1_000_000)


# -- Without a database ------------------------------------------------------------------------------------------


@given(moment=moments)
def test_a_moment_lies_in_its_month(moment: datetime) -> None:
    key = month_key(moment)
    assert month_start(key) <= moment < month_end(key)
    assert month_key(month_end(key)) > key


@given(st.lists(st.tuples(moments, spans, rates), max_size=5))
def test_the_months_add_up_to_the_total(parts: list[tuple[datetime, timedelta, Decimal]]) -> None:
    found = by_period(Stretch(start, start + span, rate) for start, span, rate in parts)
    total = sum((exact(rate, span) for _, span, rate in parts), Fraction(0))
    months = sum((Fraction(amount) for key, amount in found.items() if key != TOTAL), Fraction(0))
    assert abs(Fraction(found.get(TOTAL, Decimal(0))) - total) < Fraction(1, 10**15)
    assert abs(months - total) < Fraction(1, 10**15)


@given(start=moments, span=spans, rate=rates, spent=st.decimals(0, 1000, places=9))
def test_a_need_is_never_less_than_the_cost(start: datetime, span: timedelta, rate: Decimal, spent: Decimal) -> None:
    future = [Stretch(start, start + span, rate)]
    wanted = need({TOTAL: spent}, future)
    assert 0 <= Fraction(wanted[TOTAL], 10**6) - Fraction(spent) - exact(rate, span) < Fraction(2, 10**6)


@given(
    start=moments, hours=st.integers(1, 12), end=st.floats(0, 1), late=st.floats(0, 1), keep=st.integers(1, 720),
    keeps=st.booleans(), gpu=rates, disk=st.decimals(0, 1, places=6),
)  # fmt: skip
def test_the_worst_case_is_never_less_than_any_case(
    start: datetime, hours: int, end: float, late: float, keep: int, keeps: bool, gpu: Decimal, disk: Decimal
) -> None:
    """In no month: whenever it ends, however late its machine is gone or stopped, and with its disk kept or not."""
    until = start + timedelta(hours=hours)
    held = need({}, worst_case.stretches(gpu, disk, start, until, keep if keeps else None))
    ended = start + (until - start) * end
    gone = ended + worst_case.LATENESS * late
    actual = [Stretch(start, gone, gpu + disk)]
    if keeps:
        actual.append(Stretch(gone, gone + timedelta(hours=keep) + worst_case.LATENESS, disk))
    for period, amount in need({}, actual).items():
        assert amount <= held.get(period, 0) + 1


# -- With the books ----------------------------------------------------------------------------------------------

minutes = st.integers(1, 60)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("rent"), st.integers(1, 8), st.integers(1, 12)),
        st.tuples(st.just("rent and keep"), st.integers(1, 8), st.integers(1, 12)),
        st.tuples(st.just("boot"), st.integers(0, 9), st.integers(0, 0)),
        st.tuples(st.just("extend"), st.integers(0, 9), st.integers(1, 6)),
        st.tuples(st.just("end"), st.integers(0, 9), st.integers(0, 0)),
        st.tuples(st.just("gone"), st.integers(0, 9), st.integers(0, 0)),
        st.tuples(st.just("dearer"), st.integers(0, 9), st.integers(101, 300)),
        st.tuples(st.just("time"), minutes, st.integers(0, 0)),
        st.tuples(st.just("limit"), st.integers(1, 60), st.integers(0, 1)),
    ),
    max_size=10,
)


class Books:
    """One consumer with a budget, and everything that can happen to its sessions."""

    def __init__(self, time: world.StoppedClock) -> None:
        self.time = time

    def do(self, what: str, first: int, second: int) -> None:
        sessions = list(Session.objects.order_by("id"))
        session = sessions[first % len(sessions)] if sessions else None
        if what in KEEPING:
            with suppress(ApiError):
                world.rent(first, second, **KEEPING[what])
        elif what == "time":
            self.time.advance(minutes=first)
        elif what == "limit":
            world.budget(monthly_limit=first, total_limit=60 if second else first * 2)
        elif session is not None:
            self.do_to(session, what, second)

    def do_to(self, session: Session, what: str, amount: int) -> None:
        rental = Rental.objects.filter(session=session, state__in=OPEN).first()
        if what == "boot" and session.status == Status.PENDING and rental is not None:
            world.boot(session)
        elif what == "extend":
            with suppress(ApiError):
                extend(session.id, amount)
        elif what == "end" and session.status in ENDABLE:
            world.end(session, EndReason.DELETED)
        elif what == "gone" and rental is not None and session.status == Status.STOPPING:
            world.gone(session)
        elif what == "dearer" and session.status == Status.RUNNING and rental is not None:
            meter.run(rental, "gpu", world.GPU * amount / 100, self.time.at)

    def work(self) -> None:
        """What the scheduler does meanwhile."""
        for session in Session.objects.filter(status__in=ENDABLE).order_by("id"):
            drive._end_if_due([session.id])
        Budget.objects.update(next_check_at=self.time.at)
        budget_watch.look_due()

    def check(self) -> None:
        """What is promised never lies above the cap; and that it lies above the limit is nobody's promise."""
        for counter in BudgetPeriod.objects.all():
            assert counter.settled_micros + counter.held_micros <= (counter.cap_micros or 0)
        world.assert_books_agree()


@pytest.mark.django_db
@hypothesis_settings(
    max_examples=8, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(some=steps, limit=st.integers(1, 40))
def test_the_counters_are_what_the_books_say(
    sandbox: SandboxProcess, some: list[tuple[str, int, int]], limit: int
) -> None:
    with world.stopped(LAST_DAY) as time, transaction.atomic():
        world.list_offers()
        world.budget(monthly_limit=limit, total_limit=60)
        books = Books(time)
        for step in some:
            books.do(*step)
            books.work()
            books.check()
        finish(time)
        transaction.set_rollback(True)


@pytest.mark.django_db
@hypothesis_settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(some=steps, limit=st.integers(1, 40))
def test_no_promise_crosses_a_limit(sandbox: SandboxProcess, some: list[tuple[str, int, int]], limit: int) -> None:
    """Where no limit is lowered, no price rises and every machine is gone in time, spent and reserved never lie above
    the limit, not at any moment."""
    with world.stopped(LAST_DAY) as time, transaction.atomic():
        world.list_offers()
        world.budget(monthly_limit=limit, total_limit=60)
        books = Books(time)
        for what, first, second in some:
            if what not in ("limit", "dearer", "time"):
                books.do(what, first, second)
            for _ in range(first // 4 if what == "time" else 1):
                time.advance(minutes=4)
                books.work()
                for session in Session.objects.filter(status=Status.STOPPING):
                    world.gone(session)
            assert world.within_limits()
            shown = [each for each in (world.shown()["monthly"], world.shown()["total"]) if each is not None]
            assert all(each["spent"] + each["reserved"] <= each["limit"] and each["over"] == 0 for each in shown)
            world.assert_books_agree()
        transaction.set_rollback(True)


def finish(time: world.StoppedClock) -> None:
    """Everything ends: nothing stays reserved, and what is settled is what it cost."""
    for session in Session.objects.filter(status__in=ENDABLE):
        world.end(session, EndReason.DELETED)
    for session in Session.objects.filter(status=Status.STOPPING):
        world.gone(session)
    time.advance(minutes=1)
    Budget.objects.update(next_check_at=time.at)
    budget_watch.look_due()
    shown = world.shown()["total"]
    settled, held = world.counters(TOTAL)
    assert (held, shown["reserved"]) == (0, 0)
    assert abs(settled - shown["spent"]) <= MICRO
