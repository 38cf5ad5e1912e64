"""What sessions hold of budgets: read for many budgets at once, and whether something is to be done about it.

Nearly always nothing is. So the watch reads a few things of hundreds of budgets together, and looks after those one by
one for which that shows a reason (:func:`calm` says which it need not). It is a filter, not a judge: whoever looks
after a budget reads everything again.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import Exists, OuterRef

from billing import budget_notices, budgets
from billing import budget_room as rooms
from billing import budget_spend as spend
from billing.budget_models import Budget, BudgetPeriod, Reservation
from billing.budget_parts import TOTAL, ZERO, Parts, Stretch, month_key, need
from gpubroker.common.money import micros
from sessions_app import worst_case
from sessions_app.models import Pricing, Rental, Session
from sessions_app.states import ENDABLE, FINAL, LIVE, OPEN, Debt

log = logging.getLogger(__name__)

#: A machine that is to be destroyed has so much paid ahead at least; then as much more as a slow destroy may take.
AHEAD = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Held:
    """A session with an open reservation."""

    session: Session
    rental: Rental | None
    parts: Parts
    spent: spend.Spent

    def covered(self, future: Iterable[Stretch]) -> bool:
        """What it holds is enough for that, without any margin."""
        return all(amount <= self.parts.get(period, 0) for period, amount in need(self.spent, future).items())

    def too_much(self, future: Iterable[Stretch]) -> bool:
        """Less is enough for that, with the whole margin."""
        return need(self.spent, future, budgets.margin())[TOTAL] * 100 <= self.parts.get(TOTAL, 0) * 99

    @property
    def over(self) -> bool:
        """Nothing of it is billed any more."""
        return self.session.status in FINAL and self.rental is None

    def wants_change(self, now: datetime) -> bool:
        """Whether it holds too little, or noticeably too much."""
        future = worst_case.of_session(self.session, self.rental, now)
        if self.session.status in ENDABLE:
            # Only bids make a session that goes on cheaper: a lower one, or a pause.
            cheaper = self.session.pricing == Pricing.INTERRUPTIBLE and self.too_much(future)
            return not self.covered(future) or cheaper
        if self.keeps_disk:
            return self.too_much(future) or not self.covered(future)
        return self.overruns(now)

    @property
    def keeps_disk(self) -> bool:
        return self.rental is not None and self.rental.state == Debt.PRESERVED

    def overruns(self, now: datetime) -> bool:
        """Its machine is to be destroyed, and what it holds does not last for another minute."""
        gpu, disk = worst_case.rates(self.session, self.rental)
        return not self.covered([Stretch(now, now + AHEAD, gpu + disk)])


def held_by(found: Sequence[Budget], now: datetime) -> dict[int, list[Held]]:
    """By the budget's id, oldest sessions first; four queries."""
    waiting = Reservation.objects.filter(budget__in=found, released_at__isnull=True)
    rows = {row.session_id: row for row in waiting.only("session_id", "budget_id", "parts")}
    if not rows:
        return {}
    sessions = Session.objects.filter(id__in=rows).order_by("created_at", "id")
    rentals = {rental.session_id: rental for rental in Rental.objects.filter(session_id__in=rows, state__in=OPEN)}
    spent = spend.of_sessions(list(rows), now)
    held: dict[int, list[Held]] = defaultdict(list)
    for each in sessions:
        row = rows[each.id]
        held[row.budget_id].append(Held(each, rentals.get(each.id), row.parts, spent.get(each.id, {})))
    return held


@dataclass(frozen=True, slots=True)
class Seen:
    """A budget, its counters with it, with what is held of it and what its consumer has spent by period."""

    budget: Budget
    held: Sequence[Held]
    spent: spend.Spent

    def is_calm(self, now: datetime) -> bool:
        """Whether looking after it would change nothing."""
        if any(each.over or each.wants_change(now) for each in self.held) or rooms.overdrawn(self.budget, now):
            return False
        counters = {row.period: row for row in self.budget.periods.all()}
        asked = [period for period in (TOTAL, month_key(now)) if budgets.limit_of(self.budget, period) is not None]
        return all(period in counters and self._agrees(counters[period]) for period in asked)

    def _agrees(self, row: BudgetPeriod) -> bool:
        """The counters are in step with the meter, and no warning is due."""
        theirs = sum((each.spent.get(row.period, ZERO) for each in self.held), ZERO)
        settled = max(micros(self.spent.get(row.period, ZERO) - theirs), 0)
        told = not budget_notices.to_tell(self.budget, row, settled + micros(theirs))
        return settled == row.settled_micros and told


def calm(ids: Collection[int], now: datetime) -> set[int]:
    """Which of these budgets nothing is to be done about now; a dozen queries, however many they are."""
    found = list(Budget.objects.filter(id__in=ids).prefetch_related("periods"))
    consumers = [budget.consumer_id for budget in found]
    held, new = held_by(found, now), _without_reservation(consumers)
    spent = {period: spend.of_consumers(consumers, period, now) for period in (TOTAL, month_key(now))}
    return {
        budget.pk for budget in found
        if budget.consumer_id not in new and _is_calm(budget, held.get(budget.pk, []), spent, now)
    }  # fmt: skip


def _is_calm(
    budget: Budget, held: Sequence[Held], spent: Mapping[str, Mapping[int, Decimal]], now: datetime
) -> bool:  # fmt: skip
    mine = {period: amounts.get(budget.consumer_id, ZERO) for period, amounts in spent.items()}
    try:
        return Seen(budget, held, mine).is_calm(now)
    except Exception:
        log.debug("budget %s cannot be judged", budget.pk, exc_info=True)
        return False  # whoever looks after it tells why


def _without_reservation(consumers: Sequence[int]) -> set[int]:
    """Consumers with something that runs, or is owed, and is not promised: it was there before the budget."""
    alive = Session.objects.filter(consumer_id__in=consumers, status__in=LIVE)
    owing = Rental.objects.exclude(state=Debt.CLOSED).filter(session__consumer_id__in=consumers)
    new = alive.exclude(Exists(Reservation.objects.filter(session_id=OuterRef("id"))))
    late = owing.exclude(Exists(Reservation.objects.filter(session_id=OuterRef("session_id"))))
    found = [*new.values_list("consumer_id", flat=True), *late.values_list("session__consumer_id", flat=True)]
    return {consumer for consumer in found if consumer is not None}
