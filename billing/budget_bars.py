"""Budgets as bars: of each limit what is spent, what is reserved and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.utils.html import format_html

from billing import budget_selectors
from billing.budget_models import Budget
from billing.budget_parts import TOTAL, month_key
from billing.budgets import limit_of
from gpubroker.common.money import from_micros

ZERO, FULL = Decimal(0), Decimal(100)
#: Percent from which a bar is shown as nearly full.
NEAR = 80


@dataclass(frozen=True, slots=True)
class Bars:
    """One limit, in dollars; percents are of the limit, whole, and none of them is above 100."""

    #: ``total``, or the month, such as ``2026-11``.
    period: str
    limit: Decimal
    #: Spent and reserved together.
    committed: Decimal
    spent: Decimal | None = None
    reserved: Decimal | None = None
    forecast: Decimal | None = None
    runs_dry_at: str | None = None

    @property
    def left(self) -> Decimal:
        return max(self.limit - self.committed, ZERO)

    @property
    def over(self) -> Decimal:
        return max(self.committed - self.limit, ZERO)

    @property
    def share(self) -> int:
        """Percent of the limit that is spent or reserved; above 100 where it is over."""
        return _percent(self.committed, self.limit)

    @property
    def state(self) -> str:
        return "over" if self.over else "near" if self.share >= NEAR else ""

    @property
    def items(self) -> list[dict[str, Any]]:
        """As the theme's progress bar takes them."""
        spent = min(_percent(self.spent or ZERO, self.limit), 100)
        reserved = min(_percent(self.reserved or ZERO, self.limit), 100 - spent)
        full = "bg-red-600" if self.over else ""
        return [
            {"title": "spent", "value": spent, "progress_class": full},
            {"title": "reserved", "value": reserved, "progress_class": "bg-primary-300 dark:bg-primary-800"},
        ]


def _percent(part: Decimal, whole: Decimal) -> int:
    if whole <= ZERO:
        return 100 if part > ZERO else 0
    return int(part * FULL / whole)


def bars(budget: Budget, now: datetime, spent: Decimal = ZERO) -> list[Bars]:
    """From the budget's counters, which are exact in sum: no query, where its periods are prefetched. ``spent``: in
    this month, which counts where nothing has been asked of the month yet."""
    counted = {row.period: from_micros(row.settled_micros + row.held_micros) for row in budget.periods.all()}
    month = month_key(now)
    limits = {period: limit_of(budget, period) for period in (month, TOTAL)}
    usual = {month: spent, TOTAL: ZERO}
    return [
        Bars(period, limit, counted.get(period, usual[period])) for period, limit in limits.items() if limit is not None
    ]


def monthly_and_total(budget: Budget, now: datetime) -> list[Bars]:
    """As ``GET /budgets`` tells them, to this second."""
    told = budget_selectors.shown(budget, now)
    return [_told(told[name]) for name in ("monthly", "total") if told[name] is not None]


def _told(limit: Mapping[str, Any]) -> Bars:
    return Bars(
        limit["period"] or TOTAL, limit["limit"], limit["spent"] + limit["reserved"], limit["spent"],
        limit["reserved"], limit["forecast"], limit["runs_dry_at"],
    )  # fmt: skip


def bar(found: Bars) -> str:
    """A bar for a list."""
    return format_html(
        '<span style="display: inline-block; min-width: 9rem"><progress class="console-bar {}" max="100" value="{}" '
        'aria-label="{}"></progress> <span class="block text-xs whitespace-nowrap">${} of ${}</span></span>',
        found.state, min(found.share, 100), f"spent and reserved, {found.period}", f"{found.committed:.2f}",
        f"{found.limit:.2f}",
    )  # fmt: skip
