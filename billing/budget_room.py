"""What a consumer's budget still holds, for whoever has to choose: another offer, an earlier end, an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from billing import budget_spend as spend
from billing.budget_models import Budget
from billing.budget_parts import TOTAL, Stretch, by_period, month_key, need
from billing.budgets import limit_of, margin, of_consumer, settled_in
from gpubroker.common import clock
from gpubroker.common.money import from_micros, micros


@dataclass(frozen=True, slots=True)
class Headroom:
    """As it was when it was looked at: only :func:`billing.budgets.reserve` decides."""

    budget: Budget
    #: Micro-dollars by period, negative where too much is promised; what the session itself holds counts as room.
    rooms: dict[str, int]
    spent: spend.Spent = field(default_factory=dict)

    def room(self, period: str) -> int | None:
        """``None``: no limit. A month that nothing reaches into yet has all of it."""
        limit = limit_of(self.budget, period)
        return None if limit is None else self.rooms.get(period, micros(limit))

    def fits(self, future: Sequence[Stretch], share: Decimal | None = None) -> bool:
        """Whether the session may still cost that much. Months that are over are no reason to refuse any more."""
        wanted, ahead = need(self.spent, future, margin() if share is None else share), by_period(future)
        rooms = {period: self.room(period) for period in ahead}
        return all(room is None or wanted[period] <= room for period, room in rooms.items())


def headroom(consumer_id: int, session_id: str = "") -> Headroom | None:
    """For a session that holds something already, or for a new one; ``None``: no budget."""
    budget = of_consumer(consumer_id)
    if budget is None:
        return None
    now = clock.now()
    own = budget.reservations.filter(session_id=session_id, released_at__isnull=True).values_list("parts", flat=True)
    mine = own.first() or {}
    rooms = {
        row.period: row.limit_micros - row.settled_micros - row.held_micros + mine.get(row.period, 0)
        for row in budget.periods.all()
    }
    month = month_key(now)
    for period in (TOTAL, month):
        limit = limit_of(budget, period)
        if limit is not None and period not in rooms:
            rooms[period] = micros(limit) - settled_in(budget, period, now)
    return Headroom(budget, rooms, spend.of_session(session_id, now) if session_id else {})


def overdrawn(budget: Budget, now: datetime) -> bool:
    """More is promised than a hard budget holds, now or in months to come: a limit was lowered, or prices rose."""
    rows = budget.periods.all() if budget.hard else []
    return any(
        row.settled_micros + row.held_micros > row.limit_micros
        for row in rows
        if row.period == TOTAL or row.period >= month_key(now)
    )


def unused(headroom: Headroom, period: str) -> Decimal | None:
    """Dollars; never below 0."""
    room = headroom.room(period)
    return None if room is None else from_micros(max(room, 0))
