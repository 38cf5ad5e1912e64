"""A session and its consumer's budget: its worst case is promised in the transaction that makes it possible."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from billing import budget_room as rooms
from billing import budgets
from billing.budget_parts import TOTAL, Stretch, month_key, need
from billing.models import Consumer
from gpubroker.common import clock
from gpubroker.common.money import as_number, from_micros, storage_per_hour
from sessions_app import worst_case
from sessions_app.models import Rental, Session
from sessions_app.planning import Plan, Wish
from sessions_app.preserve import DEFAULT_HOURS
from sessions_app.states import OPEN

log = logging.getLogger(__name__)


def reserve(session: Session, rental: Rental | None = None) -> None:
    """As the session stands in the caller's transaction, which holds its row; 402 when the budget does not hold it."""
    budgets.reserve(worst_case.claim(session, rental, clock.now()))


def give_back(session: Session) -> None:
    """What was promised for something that did not come true; the caller's transaction holds the session's row."""
    try:
        reserve(session, open_rental(session))
    except budgets.InsufficientBudget as refusal:  # it is even more, for another reason: the budget watch sees to it
        log.warning("what session %s holds of its budget is not lowered: %s", session.id, refusal.message)


def reserve_attempt(session: Session, plan: Plan) -> None:
    """The same session, about to go on with another offer."""
    budgets.reserve(worst_case.claim_of_plan(session, plan, clock.now()))


def open_rental(session: Session) -> Rental | None:
    return session.rentals.filter(state__in=OPEN).first()


def check_new(wish: Wish, planned: Plan) -> None:
    """Refuses (402) what the create would be refused for in the end, before anything costly is done for it."""
    consumer_id = Consumer.objects.filter(name=wish.consumer_id).values_list("id", flat=True).first()
    if consumer_id is not None:
        budgets.check(consumer_id, _future(wish, planned))


def affordable(session: Session) -> Callable[[Plan], bool]:
    """Whether the session may go on with an offer, as far as its budget goes."""
    head = rooms.headroom(session.consumer_id, session.id)
    if head is None or not head.budget.hard:
        return lambda plan: True
    now = clock.now()
    return lambda plan: head.fits(worst_case.claim_of_plan(session, plan, now).future)


def estimated(wish: Wish, planned: Plan) -> dict[str, Any] | None:
    """For an estimate: what a create would need of the budget; ``None``: there is no budget."""
    consumer_id = Consumer.objects.filter(name=wish.consumer_id).values_list("id", flat=True).first()
    head = rooms.headroom(consumer_id) if consumer_id is not None else None
    if head is None:
        return None
    future = _future(wish, planned)
    left = [rooms.unused(head, period) for period in (month_key(clock.now()), TOTAL)]
    return {
        "mode": "hard" if head.budget.hard else "soft",
        "needed": from_micros(need({}, future, budgets.margin())[TOTAL]),
        "monthly_left": _number(left[0]),
        "total_left": _number(left[1]),
        "fits": head.fits(future) or not head.budget.hard,
    }


def _number(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else as_number(amount)


def _future(wish: Wish, planned: Plan) -> list[Stretch]:
    now = clock.now()
    disk = storage_per_hour(planned.offer.storage_price_per_gb_month, planned.disk_gb)
    keep = (wish.preserve_hours or DEFAULT_HOURS) if wish.storage_policy == "preserve" else None
    return worst_case.stretches(planned.price_per_hour, disk, now, now + timedelta(hours=wish.reservation_hours), keep)
