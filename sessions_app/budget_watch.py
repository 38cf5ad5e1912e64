"""Looking after budgets while sessions run: every few seconds each budget is compared with what its machines cost.

What costs more than was promised (a price that rose, a machine that is not gone in time) is promised as well where the
budget holds it. Where a hard one does not, sessions end earlier, the newest first, never with less than
:data:`GRACE` of warning, and no earlier than the money asks for. What a machine costs that is to be destroyed and is
still there is owed, whatever the limit: it is counted, and told.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import connection, transaction

from billing import budget_notices, budgets
from billing import budget_room as rooms
from billing.budget_models import Budget, Reservation
from gpubroker.common import clock, counters
from sessions_app import budget_end, worst_case
from sessions_app.budget_held import Held, calm, held_by
from sessions_app.models import Rental, Session
from sessions_app.session_budget import open_rental
from sessions_app.states import ENDABLE, LIVE, Debt
from sessions_app.transitions import record

log = logging.getLogger(__name__)

#: Budgets that are looked at together.
BATCH = 500
EVERY = timedelta(seconds=15)
LEASE = timedelta(seconds=60)


def look_due() -> int:
    """Budgets that are due, claimed together by a lease; how many. Those for which something may have to be done are
    looked after one by one."""
    now = clock.now()
    ids = _claim(now)
    quiet = calm(ids, now) if ids else set()
    _next(quiet, now)
    for budget_id, consumer_id in Budget.objects.filter(id__in=set(ids) - quiet).values_list("id", "consumer_id"):
        try:
            look(consumer_id)
        except Exception:  # told, and tried again when its lease is over: the others are not to suffer
            log.exception("budget %s cannot be looked after", budget_id)
        else:
            _next([budget_id], now)
    return len(ids)


def _claim(now: datetime) -> list[int]:
    due = Budget.objects.filter(next_check_at__lte=now)
    some = list(due.order_by("next_check_at", "id").values_list("id", flat=True)[:BATCH])
    if not some:
        return []
    skip = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        free = due.filter(id__in=some).order_by("id").select_for_update(skip_locked=skip, no_key=True)
        ids = list(free.values_list("id", flat=True))
        Budget.objects.filter(id__in=ids).update(next_check_at=now + LEASE)
    return ids


def _next(ids: Collection[int], claimed_at: datetime) -> None:
    """Unless one was set meanwhile, and so is due at once."""
    mine = Budget.objects.filter(id__in=ids, next_check_at=claimed_at + LEASE)
    mine.update(next_check_at=clock.now() + EVERY)


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
    return [] if budget is None else held_by([budget], clock.now()).get(budget.pk, [])


def _step(held: Held) -> bool:
    """What one session's reservation needs now. Whether the session was cut short for it."""
    session, now = held.session, clock.now()
    if held.over:
        budgets.release(session.id)
        return False
    if not held.wants_change(now):
        return False
    if session.status not in ENDABLE:
        # Its machine is being destroyed or its disk is kept: less may be needed, and more is owed whatever the limit.
        if not held.keeps_disk:
            _tell_overrun(session, held.rental)
        budgets.reserve(worst_case.claim(session, held.rental, now), force=True)
        return False
    try:
        with transaction.atomic():
            fresh = Session.objects.select_for_update(no_key=True).get(id=session.id)
            if fresh.status in ENDABLE:
                budgets.reserve(worst_case.claim(fresh, open_rental(fresh), now))
    except budgets.InsufficientBudget:
        return budget_end.squeeze(session.id)
    return False


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
