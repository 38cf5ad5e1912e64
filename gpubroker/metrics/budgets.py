"""Gauges of budgets, all together: whose they are is no label, as ``/metrics`` is open. The API tells each one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

from django.db.models import FilteredRelation, Q

from billing.budget_parts import TOTAL, month_key
from billing.models import Budget
from gpubroker.common import clock
from gpubroker.common.money import from_micros
from gpubroker.metrics.samples import Sample

STATES = ("calm", "warned", "exhausted")


def budgets() -> Iterator[Sample]:
    """One row for each budget, by its key: past months are not read."""
    for name, period, limit in (("month", month_key(clock.now()), "monthly_limit"), ("total", TOTAL, "total_limit")):
        rows = Budget.objects.filter(**{f"{limit}__isnull": False}).annotate(
            now=FilteredRelation("periods", condition=Q(periods__period=period))
        )
        states: Counter[str] = Counter()
        shares: list[Decimal] = []
        free = Decimal(0)
        columns = (limit, "now__settled_micros", "now__held_micros", "now__told_percent", "now__exhausted_at")
        for most, settled, held, told, exhausted_at in rows.values_list(*columns):
            left = max(most - from_micros((settled or 0) + (held or 0)), Decimal(0))
            free += left
            shares.append(left / most if most else Decimal(0))
            states["exhausted" if exhausted_at else "warned" if told else "calm"] += 1
        for state in STATES:
            yield Sample("gpu_budgets", (name, state), states[state])
        yield Sample("gpu_budget_left_dollars", (name,), float(free))
        yield Sample("gpu_budget_least_left_ratio", (name,), float(min(shares, default=Decimal(1))))
