"""Looking after budgets while sessions run: every few seconds each budget is compared with what its machines cost.

What costs more than was promised (a price that rose, a machine that is not gone in time) is promised as well where the
budget holds it. Where a hard one does not, sessions end earlier, the newest first, never with less than
:data:`GRACE` of warning, and no earlier than the money asks for. What a machine costs that is to be destroyed and is
still there is owed, whatever the limit: it is counted, and told.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction

from billing import budget_notices, budgets
from billing import budget_room as rooms
from billing import budget_spend as spend
from billing.budget_models import Budget, Reservation
from billing.budget_parts import TOTAL, Parts, Stretch, need
from gpubroker.common import clock, counters
from sessions_app import budget_end, worst_case
from sessions_app.models import Pricing, Rental, Session
from sessions_app.session_budget import open_rental
from sessions_app.states import ENDABLE, FINAL, LIVE, OPEN, Debt
from sessions_app.transitions import record

log = logging.getLogger(__name__)

BATCH = 50
EVERY = timedelta(seconds=15)
LEASE = timedelta(seconds=60)
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


def look_due() -> int:
    """Budgets that are due, each claimed by an atomic update that is its lease; how many."""
    now = clock.now()
    due = Budget.objects.filter(next_check_at__lte=now).order_by("next_check_at", "id")
    looked = 0
    for budget_id, consumer_id in list(due.values_list("id", "consumer_id")[:BATCH]):
        if not Budget.objects.filter(id=budget_id, next_check_at__lte=now).update(next_check_at=now + LEASE):
            continue
        try:
            look(consumer_id)
        except Exception:  # told, and tried again when its lease is over: the others are not to suffer
            log.exception("budget %s cannot be looked after", budget_id)
        else:
            # Unless it was set meanwhile, and so is due at once.
            mine = Budget.objects.filter(id=budget_id, next_check_at=now + LEASE)
            mine.update(next_check_at=clock.now() + EVERY)
        looked += 1
    return looked


def look(consumer_id: int) -> None:
    """One round for one consumer's budget."""
    adopt(consumer_id)
    cut = False
    for held in _held(consumer_id):
        try:
            cut |= _step(held)
        except Exception:  # told, and tried again in the next round: the consumer's others are not to suffer
            log.exception("what session %s holds of its budget cannot be looked after", held.session.id)
    cut |= _relieve(consumer_id)
    budget_notices.look(consumer_id, cut=cut)


def adopt(consumer_id: int) -> None:
    """What runs without a reservation, because it was there before the budget, gets one, whatever the limit."""
    if budgets.of_consumer(consumer_id) is None:
        return
    alive = Session.objects.filter(consumer_id=consumer_id, status__in=LIVE).values_list("id", flat=True)
    owing = Rental.objects.exclude(state=Debt.CLOSED).filter(session__consumer_id=consumer_id)
    ids = {*alive, *owing.values_list("session_id", flat=True)}
    known = set(Reservation.objects.filter(session_id__in=ids).values_list("session_id", flat=True))
    # Not locked, as sessions come before budgets: whatever they have become meanwhile, the next round puts right.
    for session in Session.objects.filter(id__in=ids - known).order_by("id"):
        budgets.reserve(worst_case.claim(session, open_rental(session), clock.now()), force=True)


def _held(consumer_id: int) -> list[Held]:
    """Oldest sessions first."""
    budget = budgets.of_consumer(consumer_id)
    if budget is None:
        return []
    now, parts = clock.now(), budgets.open_parts(budget)
    sessions = Session.objects.filter(id__in=parts).order_by("created_at", "id")
    rentals = {rental.session_id: rental for rental in Rental.objects.filter(session_id__in=parts, state__in=OPEN)}
    spent = spend.of_sessions(list(parts), now)
    return [Held(each, rentals.get(each.id), parts[each.id], spent.get(each.id, {})) for each in sessions]


def _step(held: Held) -> bool:
    """What one session's reservation needs now. Whether the session was cut short for it."""
    session, rental, now = held.session, held.rental, clock.now()
    if session.status in FINAL and rental is None:
        budgets.release(session.id)
        return False
    if session.status not in ENDABLE:
        _step_ending(held, now)
        return False
    claim = worst_case.claim(session, rental, now)
    # Only bids make a session that goes on cheaper: a lower one, or a pause.
    cheaper = session.pricing == Pricing.INTERRUPTIBLE and held.too_much(claim.future)
    if held.covered(claim.future) and not cheaper:
        return False
    try:
        with transaction.atomic():
            fresh = Session.objects.select_for_update(no_key=True).get(id=session.id)
            if fresh.status in ENDABLE:
                budgets.reserve(worst_case.claim(fresh, open_rental(fresh), now))
    except budgets.InsufficientBudget:
        return budget_end.squeeze(session.id)
    return False


def _step_ending(held: Held, now: datetime) -> None:
    """Its machine is being destroyed or its disk is kept: less may be needed, and more is owed whatever the limit."""
    session, rental = held.session, held.rental
    claim = worst_case.claim(session, rental, now)
    if rental is not None and rental.state == Debt.PRESERVED:
        change = held.too_much(claim.future) or not held.covered(claim.future)
    else:
        gpu, disk = worst_case.rates(session, rental)
        change = not held.covered([Stretch(now, now + AHEAD, gpu + disk)])
        if change:
            _tell_overrun(session, rental)
    if change:
        budgets.reserve(claim, force=True)


def _tell_overrun(session: Session, rental: Rental | None) -> None:
    """An alarm: it costs more than its worst case, because its machine is not proved gone."""
    counters.increment("gpu_budget_overruns_total", provider=session.provider)
    record(
        "budget_overrun", session_id=session.id, rental_id=rental.id if rental is not None else None,
        reason="its machine is not proved gone in time: it costs more than was reserved for it",
    )  # fmt: skip
    log.error("session %s costs more than was reserved for it: its machine is not proved gone", session.id)


def _relieve(consumer_id: int) -> bool:
    """More is promised than the limit: all margins are given up, and then the newest sessions end earlier, as many and
    as early as it takes."""
    budget, cut = budgets.of_consumer(consumer_id), False
    if budget is None:
        return False
    for give in (budget_end.trim, budget_end.squeeze):
        for held in reversed(_held(consumer_id)):
            if not rooms.overdrawn(budget, clock.now()):
                return cut
            cut |= held.session.status in ENDABLE and give(held.session.id)
    return cut
