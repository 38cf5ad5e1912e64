"""The hourly ledger against one exact computation: whatever the meter goes through, and whenever it is booked."""

from __future__ import annotations

import contextlib
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing import cost_groups, costs, ledger, metering, services, spending
from billing.ledger_models import REST_PER_NANO
from billing.models import Consumer, LedgerDay, LedgerRow, MeterSegment
from billing.periods import ALL_TIME, Period, days, month_of
from billing.remembered import Memory
from gpubroker.common import clock
from gpubroker.common.money import UNITS_PER_DOLLAR, quantize

HOUR = timedelta(hours=1)
START = datetime(2026, 1, 30, 12, 20, tzinfo=UTC)
#: Of the whole tail, and all of it clipped at days, months and odd moments.
PERIODS = (
    ALL_TIME, month_of(START), month_of(START + timedelta(days=3)), days(date(2026, 1, 31), date(2026, 1, 31)),
    days(date(2026, 1, 30), date(2026, 2, 1)), days(date(2030, 1, 1), date(2030, 1, 2)),
)  # fmt: skip


@dataclass
class World:
    """Rentals, a clock, and what is done to the meter."""

    now: datetime = START
    accounts: list[services.Account] = field(default_factory=list)

    def account(self, index: int) -> services.Account:
        return self.accounts[index % len(self.accounts)]


class Crash(Exception):
    pass


def rate(world: World, who: services.Account, at: datetime, value: int) -> None:
    services.set_rate(who, ("gpu", "disk")[value % 2], Decimal(value).scaleb(-8) * 997, at)


def stop(world: World, who: services.Account, at: datetime, value: int) -> None:
    services.stop_kind(who.rental_id, "gpu", at)


def settle(world: World, who: services.Account, at: datetime, value: int) -> None:
    services.settle(who.rental_id, at)


def backdate(world: World, who: services.Account, at: datetime, value: int) -> None:
    services.backdate({who.rental_id: at}, ("gpu", "disk")[value % 2])


def fail(world: World, who: services.Account, at: datetime, value: int) -> None:
    metering.mark_failed(who.rental_id)


def keep(world: World, who: services.Account, at: datetime, value: int) -> None:
    metering.keep_disk(who.rental_id, at)


def traffic(world: World, who: services.Account, at: datetime, value: int) -> None:
    metering.set_traffic(who.rental_id, at, Decimal(value).scaleb(-6))


def book(world: World, who: services.Account, at: datetime, value: int) -> None:
    ledger.accrue()


def crash(world: World, who: services.Account, at: datetime, value: int) -> None:
    with contextlib.suppress(Crash), transaction.atomic():
        ledger.accrue()
        raise Crash


Action = Callable[[World, services.Account, datetime, int], None]
ACTIONS: tuple[Action, ...] = (rate, rate, stop, settle, backdate, fail, keep, traffic, book, book, crash)
#: Up to two days between two actions, to the microsecond; each is said to happen within a day before or after "now".
gaps = st.integers(0, 48 * 3600 * 10**6).map(lambda micro: timedelta(microseconds=micro))
shifts = st.integers(-24 * 3600 * 10**6, 3600 * 10**6).map(lambda micro: timedelta(microseconds=micro))
steps = st.tuples(st.sampled_from(ACTIONS), gaps, shifts, st.integers(0, 3), st.integers(1, 90_000_000))


def exact(now: datetime, period: Period, chosen: Callable[[MeterSegment], bool] = lambda segment: True) -> Fraction:
    """The one computation: every segment, rate times time, in fractions of a dollar."""
    total = Fraction(0)
    for segment in MeterSegment.objects.all():
        start = max(segment.started_at, period.start)
        end = min(segment.ended_at or max(now, segment.started_at), period.end)
        span = max(end - start, timedelta(0)) // timedelta(microseconds=1)
        total += Fraction(segment.rate_per_hour) * Fraction(span, 3600 * 10**6) if chosen(segment) else 0
    return total


def printed(amount: Fraction) -> Decimal:
    return quantize(Decimal(amount.numerator) / Decimal(amount.denominator))


def near(amount: Decimal, expected: Fraction) -> bool:
    """Equal, but for the 28 digits that a ``Decimal`` has."""
    return abs(Fraction(amount) - expected) < Fraction(1, 10**15)


@contextlib.contextmanager
def a_world() -> Iterator[World]:
    """Two consumers with two rentals each, and an orphan; gone at the end, as Hypothesis makes many in one test."""
    with transaction.atomic():
        world = World()
        for name in ("ada", "bob"):
            consumer = services.ensure_consumer(name)
            world.accounts += [
                services.Account(uuid.uuid4(), f"sess-{name}-{n}", consumer.pk, ("vastai", "tensordock")[n], f"GPU {n}")
                for n in range(2)
            ]
        world.accounts.append(services.Account(uuid.uuid4(), "", None, "vastai", ""))
        with clock.use(lambda: world.now):
            yield world
        transaction.set_rollback(True)


def sums_agree(now: datetime, period: Period, memory: Memory) -> None:
    """The summary, fresh and remembered, of all and of one; and what budgets ask."""
    ada = Consumer.objects.get(name="ada")
    hers = exact(now, period, lambda segment: segment.consumer_id == ada.id)
    summed = costs.of_period(period, now)
    assert near(summed.total, exact(now, period))
    assert memory.of_period(period, now) == summed
    for kind in MeterSegment.Kind.values:
        assert near(summed.by_kind[kind], exact(now, period, of_kind(kind)))
    assert near(memory.of_period(period, now, "ada").total, hers)
    assert near(spending.spent(ada.id, period, now), hers)


def groups_agree(now: datetime, period: Period, group_by: str) -> None:
    """Exact inside; as printed, the totals add up to the printed total, none a millionth off."""
    whole = exact(now, period)
    groups = cost_groups.grouped(group_by, period, now)
    assert sum(group.total for group in groups.values()) == whole * UNITS_PER_DOLLAR
    assert sum(group.failed for group in groups.values()) == exact(now, period, marked_failed) * UNITS_PER_DOLLAR
    assert sum(group.kept for group in groups.values()) == exact(now, period, marked_kept) * UNITS_PER_DOLLAR
    lines = [line["total_cost"] for line in cost_groups.shown(group_by, groups)]
    assert sum(lines, Decimal(0)) == printed(whole)
    for line, group in zip(lines, groups.values(), strict=True):
        assert abs(Fraction(line) - Fraction(group.total, UNITS_PER_DOLLAR)) < Fraction(1, 10**6)


def of_kind(kind: str) -> Callable[[MeterSegment], bool]:
    return lambda segment: segment.kind == kind


def marked_failed(segment: MeterSegment) -> bool:
    return segment.failed_attempt


def marked_kept(segment: MeterSegment) -> bool:
    return segment.preserved


def rows_are_what_is_booked() -> None:
    """Row by row and day by day, with nothing left over of what was taken back."""
    hours: defaultdict[tuple[uuid.UUID, datetime, str, bool], int] = defaultdict(int)
    for s in MeterSegment.objects.filter(booked_to__isnull=False):
        assert s.booked_from is not None
        assert s.booked_to is not None
        for hour, span in ledger.hours(s.booked_from, s.booked_to):
            hours[s.rental_id, hour, s.kind, s.preserved] += int(s.rate_per_hour.scaleb(8)) * span
    units = {
        (row.rental_id, row.hour, row.kind, row.preserved): Fraction(row.amount) for row in LedgerRow.objects.all()
    }
    assert units.keys() == hours.keys()
    assert all(
        abs(units[key] - Fraction(amount, UNITS_PER_DOLLAR)) < Fraction(1, 10**18) for key, amount in hours.items()
    )
    booked = [Fraction(row.nanos * REST_PER_NANO + row.rest) for row in LedgerDay.objects.all()]
    assert sum(booked, Fraction(0)) == sum(hours.values())


@pytest.mark.django_db
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(steps, min_size=1, max_size=10), period=st.sampled_from(PERIODS),
       group_by=st.sampled_from(cost_groups.GROUPS))  # fmt: skip
def test_ledger_and_tail_are_the_meter(
    history: list[tuple[Action, timedelta, timedelta, int, int]], period: Period, group_by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Rates, stops, proofs, earlier and later beginnings, marks and traffic, booked at any time, again, and in vain."""
    monkeypatch.setattr(ledger, "TOGETHER", 3)
    monkeypatch.setattr(ledger, "CATCH_UP", 7)
    memory = Memory()
    with a_world() as world:
        for act, gap, shift, index, value in history:
            world.now += gap
            act(world, world.account(index), world.now + shift, value)
        for bookings in (0, 1, 1):
            for _ in range(bookings):
                ledger.accrue()
            sums_agree(world.now, period, memory)
            groups_agree(world.now, period, group_by)
        rows_are_what_is_booked()
        world.now += timedelta(minutes=61)
        sums_agree(world.now, period, memory)
