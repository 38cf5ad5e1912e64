"""What a session may still cost at most, as spans of time at a price. The whole machine until its end and until a slow
destroy is proved, then a kept disk until its own deadline.

At every moment this is no less than what the session can cost then: one that ends earlier moves its disk's time into
the dearer time of its machine, and attempts follow one another.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from billing.budget_parts import Stretch
from billing.budgets import Claim
from gpubroker.common.money import storage_per_hour
from sessions_app.models import Rental, Session
from sessions_app.planning import Plan
from sessions_app.preserve import DEFAULT_HOURS, STOP_PATIENCE
from sessions_app.states import ENDABLE, Debt
from sessions_app.warning import end_of

#: How long after its end a machine may cost until its destroy is proved.
LATENESS = timedelta(minutes=5)


def stretches(gpu: Decimal, disk: Decimal, now: datetime, end: datetime, keep_hours: int | None) -> list[Stretch]:
    """``gpu`` and ``disk`` in dollars per hour; ``keep_hours``: how long the disk is kept after the end, if it is."""
    late = max(end, now) + LATENESS
    if keep_hours is None:
        return [Stretch(now, late, gpu + disk)]
    late += STOP_PATIENCE
    return [Stretch(now, late, gpu + disk), Stretch(late, late + timedelta(hours=keep_hours) + LATENESS, disk)]


def of_session(
    session: Session, rental: Rental | None, now: datetime, *, end: datetime | None = None, keep: bool = True
) -> list[Stretch]:
    """From now on. ``rental``: its open one. ``end``: instead of its own; ``keep``: whether a preserved disk counts."""
    gpu, disk = rates(session, rental)
    hours = keep_hours(session) if keep else None
    if rental is not None and rental.state == Debt.PRESERVED:
        until = rental.preserve_until or now + timedelta(hours=hours or DEFAULT_HOURS)
        return [Stretch(now, max(until, now) + LATENESS, disk)]
    if session.status in ENDABLE:
        return stretches(gpu, disk, now, end or end_of(session), hours)
    return stretches(gpu, disk, now, now, hours if rental is not None and rental.state == Debt.PARKING else None)


def rates(session: Session, rental: Rental | None) -> tuple[Decimal, Decimal]:
    """GPU and disk, dollars per hour: as agreed, or as the provider bills, whichever is more."""
    gpu = [session.price_per_hour, session.bid_price]
    disk = [storage_per_hour(session.storage_price_per_gb_month, session.disk_gb)]
    if rental is not None:
        gpu += [rental.gpu_rate, rental.price_actual, rental.bid_wanted]
        disk += [rental.disk_rate] if rental.disk_rate is not None else []
    return max(rate for rate in gpu if rate is not None), max(disk)


def keep_hours(session: Session) -> int | None:
    return (session.preserve_hours or DEFAULT_HOURS) if session.storage_policy == "preserve" else None


def claim(session: Session, rental: Rental | None, now: datetime) -> Claim:
    return Claim(session.id, session.consumer_id, of_session(session, rental, now))


def claim_of_plan(session: Session, plan: Plan, now: datetime) -> Claim:
    """The same session on another offer."""
    disk = storage_per_hour(plan.offer.storage_price_per_gb_month, session.disk_gb)
    future = stretches(plan.price_per_hour, disk, now, end_of(session), keep_hours(session))
    return Claim(session.id, session.consumer_id, future)
