"""Promising money, under a lock: nothing is promised that a hard budget does not hold (rule I7).

A session's reservation is its worst case: what it has cost and what it may still cost. As it runs, the one grows as the
other shrinks, so ``spent + reserved`` of a limit stays, and stands in the database as one sum of two counters
(:class:`BudgetPeriod`). Who promises moves that sum by one guarded update, in the transaction that writes the session.

Locks: sessions first, budgets last and in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest

from billing import budget_spend as spend
from billing.budget_models import Budget, BudgetPeriod, Reservation
from billing.budget_parts import TOTAL, Parts, Stretch, in_order, need
from gpubroker.common import clock
from gpubroker.common.errors import ApiError
from gpubroker.common.money import as_number, from_micros, micros, micros_up

ERROR_TYPE = "insufficient_budget"
COMMITTED = F("settled_micros") + F("held_micros")


class InsufficientBudget(ApiError):
    """402, with the shortfall and whose limit it is."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a session may cost from now on, without margin; what it has cost so far is read from the meter."""

    session_id: str
    consumer_id: int
    future: Sequence[Stretch]


def margin() -> Decimal:
    return Decimal(settings.BUDGET_MARGIN_PERCENT) / 100


def limit_of(budget: Budget, period: str) -> Decimal | None:
    return budget.total_limit if period == TOTAL else budget.monthly_limit


def of_consumer(consumer_id: int) -> Budget | None:
    return Budget.objects.select_related("consumer").filter(consumer_id=consumer_id).first()


def lock(consumer_ids: Collection[int]) -> list[Budget]:
    """The budgets of these consumers, as far as they have any, locked until the transaction ends."""
    rows = Budget.objects.filter(consumer_id__in=consumer_ids).order_by("id")
    return list(rows.select_for_update(no_key=True, of=("self",)).select_related("consumer"))


def reserve(claim: Claim, *, force: bool = False, share: Decimal | None = None) -> bool:
    """Promise the session's worst case in place of what was promised before; inside the transaction that changes it.

    402 when a hard budget does not hold it, and then nothing is changed. ``force``: it is owed already, whatever the
    limit. ``share``: another margin than the usual one. ``False``: the consumer has no budget.
    """
    with transaction.atomic():
        found = lock([claim.consumer_id])
        if not found:
            return False
        now = clock.now()
        wanted = need(spend.of_session(claim.session_id, now), claim.future, margin() if share is None else share)
        _hold(found[0], claim.session_id, wanted, force, now)
    return True


def _hold(budget: Budget, session_id: str, wanted: Parts, force: bool, now: datetime) -> None:
    row = Reservation.objects.filter(session_id=session_id).first()
    if row is not None and row.released_at is not None:
        return  # the session is over: nothing more can come of it
    before: Mapping[str, int] = row.parts if row is not None else {}
    for period in in_order({*before, *wanted}):
        more = wanted.get(period, 0) - before.get(period, 0)
        if more and limit_of(budget, period) is not None:
            _move(budget, period, more, force, now)
    values: dict[str, Any] = {"amount": from_micros(wanted.get(TOTAL, 0)), "parts": wanted, "changed_at": now}
    if row is None:
        Reservation.objects.create(session_id=session_id, budget=budget, created_at=now, **values)
    else:
        Reservation.objects.filter(id=row.id, released_at__isnull=True).update(**values)


def _move(budget: Budget, period: str, more: int, force: bool, now: datetime) -> None:
    counters = BudgetPeriod.objects.filter(id=ensure_period(budget, period, now).id)
    if more > 0 and budget.hard and not force:
        held = counters.filter(limit_micros__gte=COMMITTED + more).update(held_micros=F("held_micros") + more)
        if not held:
            raise _short(budget, counters.get(), more, now)
    else:
        counters.update(held_micros=F("held_micros") + more, **_cap(budget, more))


def _cap(budget: Budget, more: int) -> dict[str, Any]:
    """The limit; above it only what is owed already."""
    return {"cap_micros": Greatest(F("limit_micros"), COMMITTED + more)} if budget.hard else {}


def ensure_period(budget: Budget, period: str, now: datetime) -> BudgetPeriod:
    """The counters of a limit that there is; a new month begins with what it has cost without a reservation."""
    row = BudgetPeriod.objects.filter(budget=budget, period=period).first()
    if row is not None:
        return row
    limit = micros(limit_of(budget, period) or Decimal(0))
    held = sum(parts.get(period, 0) for parts in open_parts(budget).values())
    settled = settled_in(budget, period, now)
    return BudgetPeriod.objects.create(
        budget=budget, period=period, limit_micros=limit, held_micros=held, settled_micros=settled,
        cap_micros=max(limit, held + settled) if budget.hard else None,
    )  # fmt: skip


def open_parts(budget: Budget) -> dict[str, Parts]:
    """By session, of the reservations that are not released."""
    return dict(budget.reservations.filter(released_at__isnull=True).values_list("session_id", "parts"))


def settled_in(budget: Budget, period: str, now: datetime, open_spent: Mapping[str, spend.Spent] | None = None) -> int:
    """What the meter says beyond what sessions with an open reservation have cost."""
    if open_spent is None:
        open_spent = spend.of_sessions(list(open_parts(budget)), now)
    theirs = sum((spent.get(period, Decimal(0)) for spent in open_spent.values()), Decimal(0))
    return max(micros(spend.of_consumer(budget.consumer_id, period, now) - theirs), 0)


def release(session_id: str) -> bool:
    """The session is over, and nothing of it is billed any more: its real cost takes the reservation's place.

    ``False``: there is no reservation, or it was released before.
    """
    row = Reservation.objects.filter(session_id=session_id, released_at__isnull=True).select_related("budget").first()
    if row is None:
        return False
    with transaction.atomic():
        found = lock([row.budget.consumer_id])
        mine = Reservation.objects.filter(id=row.id, released_at__isnull=True)
        row = mine.first()
        if not found or row is None:
            return False
        now = clock.now()
        spent = spend.of_session(session_id, now)
        periods = [key for key in in_order({*row.parts, *spent}) if limit_of(found[0], key) is not None]
        counters = {key: ensure_period(found[0], key, now) for key in periods}
        mine.update(released_at=now, changed_at=now, cost=as_number(spent.get(TOTAL, Decimal(0))))
        for key in periods:
            held, cost = row.parts.get(key, 0), micros(spent.get(key, Decimal(0)))
            BudgetPeriod.objects.filter(id=counters[key].id).update(
                held_micros=F("held_micros") - held, settled_micros=F("settled_micros") + cost,
                **_cap(found[0], cost - held),
            )  # fmt: skip
    return True


def check(consumer_id: int, future: Sequence[Stretch]) -> None:
    """Refuses (402) what :func:`reserve` would refuse of a new session now; changes nothing."""
    budget = of_consumer(consumer_id)
    if budget is None or not budget.hard:
        return
    now = clock.now()
    rows = {row.period: row for row in budget.periods.all()}
    for period, more in need({}, future, margin()).items():
        limit = limit_of(budget, period)
        if limit is None:
            continue
        row = rows.get(period) or BudgetPeriod(
            budget=budget, period=period, limit_micros=micros(limit), settled_micros=settled_in(budget, period, now)
        )
        if row.settled_micros + row.held_micros + more > row.limit_micros:
            raise _short(budget, row, more, now)


def _short(budget: Budget, row: BudgetPeriod, more: int, now: datetime) -> InsufficientBudget:
    open_spent = spend.of_sessions(list(open_parts(budget)), now).values()
    theirs = micros_up(sum((spent.get(row.period, Decimal(0)) for spent in open_spent), Decimal(0)))
    committed = row.settled_micros + row.held_micros
    spent = min(row.settled_micros + theirs, committed)
    left = max(row.limit_micros - committed, 0)
    which = "total" if row.period == TOTAL else "monthly"
    when = "" if row.period == TOTAL else f" for {row.period}"
    return InsufficientBudget(
        402,
        f"the {which} budget of {budget.consumer.name}{when} cannot carry this: it may cost up to {_text(more)}, and "
        f"{_text(left)} of {_text(row.limit_micros)} are left",
        error_type=ERROR_TYPE, consumer_id=budget.consumer.name, budget=which,
        period=None if row.period == TOTAL else row.period,
        limit=from_micros(row.limit_micros), spent=from_micros(spent), reserved=from_micros(committed - spent),
        needed=from_micros(more), shortfall=from_micros(committed + more - row.limit_micros),
    )  # fmt: skip


def _text(amount: int) -> str:
    """At least cents: $0.40, $1.234567."""
    whole, _, places = f"{from_micros(amount):.6f}".partition(".")
    return f"${whole}.{places[:2]}{places[2:].rstrip('0')}"
