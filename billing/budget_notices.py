"""Warnings of a budget: each threshold once per period, and once that it is used up."""

from __future__ import annotations

import logging
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing import budget_spend as spend
from billing import outbox, webhook_kinds
from billing.budget_models import Budget, BudgetPeriod
from billing.budget_parts import TOTAL, month_key
from billing.budgets import ensure_period, limit_of, lock, open_parts, settled_in
from gpubroker.common import clock
from gpubroker.common.money import from_micros, micros

log = logging.getLogger(__name__)


def look(consumer_id: int, *, cut: bool = False) -> None:
    """Bring the counters in step with the meter, and tell what has to be told.

    ``cut``: sessions were ended earlier because nothing is left, so it is used up, whatever is spent.
    """
    now = clock.now()
    with transaction.atomic():
        for budget in lock([consumer_id]):
            parts = open_parts(budget)
            open_spent = spend.of_sessions(list(parts), now)
            for period in (TOTAL, month_key(now)):
                if limit_of(budget, period) is not None:
                    row = _in_step(budget, period, now, open_spent)
                    theirs = sum((each.get(period, Decimal(0)) for each in open_spent.values()), Decimal(0))
                    _tell(budget, row, row.settled_micros + micros(theirs), now, cut)


def _in_step(budget: Budget, period: str, now: datetime, open_spent: dict[str, spend.Spent]) -> BudgetPeriod:
    """With what the meter came to say of sessions that are over, or that were there before the budget was."""
    row = ensure_period(budget, period, now)
    settled = settled_in(budget, period, now, open_spent)
    if settled != row.settled_micros:
        row.settled_micros = settled
        if budget.hard:
            row.cap_micros = max(row.limit_micros, settled + row.held_micros)
        row.save(update_fields=["settled_micros", "cap_micros"])
    return row


def to_tell(budget: Budget, row: BudgetPeriod, spent: int) -> bool:
    """Whether something is to be told, ``spent`` micro-dollars being spent."""
    return bool(_passed(budget, row, spent)) or (spent >= row.limit_micros and row.exhausted_at is None)


def _passed(budget: Budget, row: BudgetPeriod, spent: int) -> list[int]:
    """Thresholds that were not told yet, in percent."""
    limit = row.limit_micros
    return [each for each in budget.thresholds if limit and spent * 100 >= each * limit > row.told_percent * limit]


def _tell(budget: Budget, row: BudgetPeriod, spent: int, now: datetime, cut: bool) -> None:
    passed = _passed(budget, row, spent)
    notices = [(webhook_kinds.BUDGET_THRESHOLD, {"percent": each}) for each in passed]
    used_up = spent >= row.limit_micros or (cut and row.settled_micros + row.held_micros >= row.limit_micros)
    if used_up and row.exhausted_at is None:
        notices.append((webhook_kinds.BUDGET_EXHAUSTED, {}))
        row.exhausted_at = now
        log.warning("the %s budget of %s is used up", row.period, budget.consumer.name)
    if not notices:
        return
    row.told_percent = max([row.told_percent, *passed])
    row.save(update_fields=["told_percent", "exhausted_at"])
    said = _data(budget, row, spent)
    outbox.emit_all(
        outbox.Notice(kind, budget.consumer_id, budget.consumer.name, {**said, **more}) for kind, more in notices
    )


def _data(budget: Budget, row: BudgetPeriod, spent: int) -> dict[str, Any]:
    committed = row.settled_micros + row.held_micros
    return {
        "budget": "total" if row.period == TOTAL else "monthly",
        "period": None if row.period == TOTAL else row.period,
        "mode": "hard" if budget.hard else "soft",
        "limit": from_micros(row.limit_micros),
        "spent": from_micros(spent),
        "reserved": from_micros(max(committed - spent, 0)),
        "left": from_micros(max(row.limit_micros - max(committed, spent), 0)),
    }
