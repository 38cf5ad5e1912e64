"""The meter against one exact computation (I11), whatever is repeated, late, or given back."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing import selectors, services
from billing.models import MeterSegment
from gpubroker.common.money import exact_cost, quantize, storage_per_hour

START = datetime(2026, 1, 30, 12, tzinfo=UTC)
rates = st.decimals(0, 100, places=6)
gaps = st.integers(0, 40 * 3600 * 1_000_000).map(lambda micro: timedelta(microseconds=micro))


def account(session_id: str = "sess-a") -> services.Account:
    consumer = services.ensure_consumer("me")
    return services.Account(uuid.uuid4(), session_id, consumer.id, "vastai", "RTX 4090")


def exact(rate: Decimal, span: timedelta) -> Fraction:
    return Fraction(rate) * Fraction(span // timedelta(microseconds=1), 3600 * 1_000_000)


@given(rate=rates, span=gaps)
def test_exact_cost_is_rate_times_time(rate: Decimal, span: timedelta) -> None:
    assert abs(Fraction(exact_cost(rate, span)) - exact(rate, span)) < Fraction(1, 10**18)
    assert exact_cost(rate, -span) == 0


@given(st.lists(st.tuples(rates, gaps), max_size=20))
def test_sums_are_rounded_once(parts: list[tuple[Decimal, timedelta]]) -> None:
    total = quantize(sum((exact_cost(rate, span) for rate, span in parts), Decimal(0)))
    assert abs(Fraction(total) - sum((exact(rate, span) for rate, span in parts), Fraction(0))) <= Fraction(
        1, 2 * 10**6
    )


def test_storage_is_priced_by_the_month_of_720_hours() -> None:
    assert storage_per_hour(Decimal("0.15"), 100) == Decimal("15") / 720


@pytest.mark.django_db
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(gaps, rates, st.integers(1, 3)), min_size=1, max_size=6), tail=gaps, early=gaps)
def test_meter_agrees_with_the_exact_computation(
    steps: list[tuple[timedelta, Decimal, int]], tail: timedelta, early: timedelta
) -> None:
    """Rates change at known times, every call is repeated, and the end may come earlier than was counted."""
    with transaction.atomic():
        who = account()
        at, timeline = START, []
        for gap, rate, repeats in steps:
            at += gap
            timeline.append((at, rate))
            for _ in range(repeats):
                services.set_rate(who, "gpu", rate, at)
        end = max(at + tail - early, START)
        for _ in range(2):
            services.settle(who.rental_id, end)
        expected = Fraction(0)
        for index, (since, rate) in enumerate(timeline):
            until = timeline[index + 1][0] if index + 1 < len(timeline) else end
            expected += exact(rate, max(min(until, end) - min(since, end), timedelta(0)))
        costs = selectors.of_session("sess-a", end + timedelta(days=9))
        assert abs(Fraction(costs.total) - expected) < Fraction(1, 10**12)
        assert not MeterSegment.objects.filter(ended_at__isnull=True).exists()
        transaction.set_rollback(True)


@pytest.mark.django_db
def test_running_counts_to_now_and_kinds_are_apart() -> None:
    who = account()
    services.set_rate(who, "disk", Decimal("0.01"), START)
    services.set_rate(who, "gpu", Decimal("0.50"), START + timedelta(minutes=6))
    costs = selectors.of_session("sess-a", START + timedelta(hours=1))
    assert costs.by_kind == {"disk": Decimal("0.01"), "gpu": Decimal("0.45")}
    assert (costs.total, costs.gpu_hours) == (Decimal("0.46"), Decimal("0.9"))


@pytest.mark.django_db
def test_periods_clip_at_utc_midnight_and_add_up() -> None:
    who = account()
    services.set_rate(who, "gpu", Decimal("1"), START)
    services.settle(who.rental_id, START + timedelta(hours=36))
    now = START + timedelta(days=10)
    january = selectors.of_period(selectors.days(date(2026, 1, 30), date(2026, 1, 31)), now)
    february = selectors.of_period(selectors.month_of(datetime(2026, 2, 5, tzinfo=UTC)), now)
    assert (january.total, february.total) == (Decimal(36), Decimal(0))
    assert selectors.of_period(selectors.days(date(2026, 1, 31), date(2026, 1, 31)), now).total == Decimal(24)
    assert selectors.of_period(selectors.month_of(START), now, "somebody else").total == Decimal(0)
    assert selectors.of_period(selectors.month_of(START), now, "me").shown() == {
        "total_cost": 36.0, "session_count": 1, "hours_used": 36.0,
        "by_provider": {"vastai": 36.0}, "by_gpu_type": {"RTX 4090": 36.0},
    }  # fmt: skip


@pytest.mark.django_db
def test_a_stopped_gpu_costs_only_its_disk() -> None:
    who = account()
    services.set_rate(who, "disk", Decimal("0.02"), START)
    services.set_rate(who, "gpu", Decimal("1"), START)
    services.stop_kind(who.rental_id, "gpu", START + timedelta(hours=1))
    services.set_rate(who, "gpu", Decimal("2"), START + timedelta(hours=3))
    services.settle(who.rental_id, START + timedelta(hours=4))
    assert selectors.of_session("sess-a", START + timedelta(hours=9)).by_kind == {
        "disk": Decimal("0.08"), "gpu": Decimal("3"),
    }  # fmt: skip
