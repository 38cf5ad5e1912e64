"""Setting a consumer's budget, and taking it away: decisions of staff. What is spent and promised already stays."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing import budget_spend as spend
from billing.budget_models import Budget, BudgetPeriod
from billing.budget_parts import TOTAL, in_order, month_key
from billing.budgets import limit_of, lock, open_parts, settled_in
from billing.models import Consumer
from gpubroker.common import clock
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.money import micros

log = logging.getLogger(__name__)

USUAL_THRESHOLDS = (50, 80, 95)
MOST_THRESHOLDS = 10


@dataclass(frozen=True, slots=True)
class Wish:
    """Dollars; ``None``: no such limit. Thresholds in percent."""

    monthly_limit: Decimal | None = None
    total_limit: Decimal | None = None
    hard: bool = True
    thresholds: Collection[int] = USUAL_THRESHOLDS


def not_found(name: str) -> ApiError:
    return ApiError(404, f"budget of {name} not found", consumer_id=name)


def found(name: str) -> Budget:
    budget = Budget.objects.select_related("consumer").filter(consumer__name=name).first()
    if budget is None:
        raise not_found(name)
    return budget


def put(consumer: Consumer, wish: Wish, by: str) -> Budget:
    """The consumer's limits from now on, in place of those before; to be followed, in the same transaction, by
    :func:`count`. 400 for no limit at all and for thresholds out of range."""
    if wish.monthly_limit is None and wish.total_limit is None:
        raise BadField("monthly_limit", "give monthly_limit, total_limit or both; DELETE takes a budget away")
    thresholds = sorted(set(wish.thresholds))
    if len(thresholds) > MOST_THRESHOLDS or any(not 1 <= each <= 100 for each in thresholds):
        raise BadField("thresholds", f"at most {MOST_THRESHOLDS} whole percents from 1 to 100")
    now = clock.now()
    values = {
        "hard": wish.hard, "monthly_limit": wish.monthly_limit, "total_limit": wish.total_limit,
        "thresholds": thresholds, "updated_at": now, "updated_by": by[:160], "next_check_at": now,
    }  # fmt: skip
    lock([consumer.pk])
    budget, made = Budget.objects.update_or_create(consumer=consumer, defaults=values)
    log.info("budget of %s %s by %s", consumer.name, "made" if made else "changed", by)
    return budget


def count(budget: Budget) -> None:
    """Its counters anew, from the meter and from what is promised: under a limit that is new, or another one."""
    now = clock.now()
    parts = open_parts(budget)
    open_spent = spend.of_sessions(list(parts), now)
    BudgetPeriod.objects.filter(budget=budget, period=TOTAL).exclude(budget__total_limit__isnull=False).delete()
    BudgetPeriod.objects.filter(budget=budget, budget__monthly_limit__isnull=True).exclude(period=TOTAL).delete()
    counters = BudgetPeriod.objects.filter(budget=budget)
    if not budget.hard:
        counters.update(cap_micros=None)  # of months that are over, too: late costs still come to them
    # Months to come have counters as soon as a session was promised something of them, even if none is any more.
    ahead = counters.filter(period__gte=month_key(now)).values_list("period", flat=True)
    for period in in_order({TOTAL, month_key(now), *ahead, *(key for each in parts.values() for key in each)}):
        limit = limit_of(budget, period)
        if limit is not None:
            held = sum(each.get(period, 0) for each in parts.values())
            _write(budget, period, micros(limit), settled_in(budget, period, now, open_spent), held, now, open_spent)


def _write(
    budget: Budget, period: str, limit: int, settled: int, held: int, now: datetime, open_spent: dict[str, spend.Spent]
) -> None:
    before = BudgetPeriod.objects.filter(budget=budget, period=period).first()
    spent = settled + micros(sum((each.get(period, Decimal(0)) for each in open_spent.values()), Decimal(0)))
    passed = [each for each in budget.thresholds if limit and spent * 100 >= each * limit]
    told = min(before.told_percent, max(passed, default=0)) if before is not None else 0
    exhausted = before.exhausted_at if before is not None and before.limit_micros == limit else None
    BudgetPeriod.objects.update_or_create(
        budget=budget, period=period,
        defaults={
            "limit_micros": limit, "settled_micros": settled, "held_micros": held, "told_percent": told,
            "cap_micros": max(limit, settled + held) if budget.hard else None, "exhausted_at": exhausted,
        },
    )  # fmt: skip


def delete(name: str, by: str) -> None:
    """The consumer may spend what it likes from now on. 404 when there is no budget."""
    with transaction.atomic():
        budget = found(name)
        lock([budget.consumer_id])
        Budget.objects.filter(id=budget.id).delete()
    log.info("budget of %s deleted by %s", name, by)
