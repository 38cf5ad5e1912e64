"""Which due rows the driver takes in hand: bounded batches, in turns, so that nobody waits for another one's hundred.

A claim moves ``next_check_at`` to the end of a lease; whoever holds the row writes when it is due again. Rows that
another process has locked are passed over where the database can do that.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from django.db import connection, models, transaction
from django.db.models import F, Q, Window
from django.db.models.functions import RowNumber

from gpubroker.common import clock
from sessions_app.models import Rental, Session
from sessions_app.states import ENDABLE, Debt, Status
from sessions_app.transitions import lock_rentals

T = TypeVar("T")

SESSION_LEASE = timedelta(seconds=30)
RENTAL_LEASE = timedelta(seconds=45)
#: A machine whose destroyer was killed waits for no longer than this; who lives keeps what is still in hand.
DEBT_LEASE = timedelta(seconds=15)
#: Sessions whose time is up, in one tick; all in our own books, so no provider has a share of them.
MOST_ENDS = 1000
#: In one tick and for one provider: boots, other rentals, destroys to send, machines to look at.
MOST_BOOTS = 200
MOST_RENTALS = 60
MOST_DESTROYS = 512
MOST_LOOKS = 60
#: Whose turn it is. An orphan has no session and so no consumer: orphans take turns as one consumer of their own.
OWNER = "session__consumer_id"
_UNANSWERED = Q(destroy_answered_at__isnull=True)
#: First those that a listing no longer shows: theirs is the look that will close them.
_UNLISTED = models.Case(models.When(missing_listings__gt=0, then=0), default=1)


@dataclass
class Due:
    """What one tick took in hand; ``debts`` are destroys by provider."""

    ends: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    rentals: list[uuid.UUID] = field(default_factory=list)
    debts: dict[str, list[uuid.UUID]] = field(default_factory=dict)

    def count(self) -> int:
        debts = sum(len(rental_ids) for rental_ids in self.debts.values())
        return len(self.ends) + len(self.sessions) + len(self.rentals) + debts


def time_is_up() -> Q:
    now = clock.now()
    return Q(expires_at__lte=now) | Q(hard_max_at__lte=now)


def due() -> Due:
    """Claim what is due, a share for every provider."""
    taken = Due()
    _claim_sessions(taken)
    _claim_rentals(taken)
    return taken


def _claim_sessions(taken: Due) -> None:
    waiting = Session.objects.filter(next_check_at__lte=clock.now())
    providers = sorted(waiting.order_by().values_list("provider", flat=True).distinct())
    if not providers:
        return
    over = waiting.filter(time_is_up(), status__in=ENDABLE)
    ends = list(over.order_by("next_check_at", "id").values_list("id", flat=True)[:MOST_ENDS])
    taken.ends = _take(Session, ends, SESSION_LEASE)
    for provider in providers:
        booting = waiting.filter(~Q(time_is_up(), status__in=ENDABLE), provider=provider)
        chosen = in_turns(booting, "consumer_id", ["next_check_at", "id"], MOST_BOOTS)
        taken.sessions += _take(Session, chosen, SESSION_LEASE)


def _claim_rentals(taken: Due) -> None:
    waiting = Rental.objects.filter(next_check_at__lte=clock.now())
    for provider in sorted(waiting.order_by().values_list("provider", flat=True).distinct()):
        mine = waiting.filter(provider=provider)
        debts = mine.filter(state=Debt.DESTROYING)
        send = in_turns(debts.filter(_UNANSWERED), OWNER, ["destroy_requested_at", "id"], MOST_DESTROYS)
        answered = debts.exclude(_UNANSWERED).annotate(listed=_UNLISTED)
        look = in_turns(answered, OWNER, ["listed", "next_check_at", "id"], MOST_LOOKS)
        if claimed := _take(Rental, [*send, *look], DEBT_LEASE):
            taken.debts[provider] = claimed
        others = in_turns(mine.exclude(state=Debt.DESTROYING), OWNER, ["next_check_at", "id"], MOST_RENTALS)
        taken.rentals += _take(Rental, others, RENTAL_LEASE)


def in_turns(rows: models.QuerySet[Any], consumer: str, order: Sequence[str], most: int) -> list[Any]:
    """Ids: everybody's first, then everybody's second, and so on."""
    turn = Window(RowNumber(), partition_by=[F(consumer)], order_by=list(order))
    return list(rows.annotate(turn=turn).order_by("turn", *order).values_list("id", flat=True)[:most])


def _take(model: type[models.Model], ids: Sequence[T], lease: timedelta) -> list[T]:
    """Those of the rows that are still due and nobody else's, in the order given, with their lease written."""
    if not ids:
        return []
    now = clock.now()
    rows = model._default_manager
    with transaction.atomic():
        waiting = rows.filter(id__in=ids, next_check_at__lte=now).order_by("id")
        skip = connection.features.has_select_for_update_skip_locked
        locked = set(waiting.select_for_update(skip_locked=skip, no_key=True).values_list("id", flat=True))
        rows.filter(id__in=locked).update(next_check_at=now + lease)
    return [item for item in ids if item in locked]


def take_session(session_id: str) -> bool:
    """For a nudge that came before the tick: ``False`` when it is not due, or already in somebody's hands."""
    now = clock.now()
    return bool(Session.objects.filter(id=session_id, next_check_at__lte=now).update(next_check_at=now + SESSION_LEASE))


def give_back_session(session_id: str) -> None:
    """Whoever had it in hand could not go on: due now, not when the lease ends."""
    now = clock.now()
    open_ones = Session.objects.filter(id=session_id, status__in=[*ENDABLE, Status.STOPPING])
    open_ones.filter(next_check_at__gt=now).update(next_check_at=now)


def give_back_rental(rental_id: uuid.UUID) -> None:
    """The same for a rental; not while a create of it may be on its way, which its lease is for."""
    now = clock.now()
    waiting = Rental.objects.filter(id=rental_id, next_check_at__gt=now).exclude(state=Debt.CREATING)
    waiting.update(next_check_at=now)


def take_rentals(rental_ids: Iterable[uuid.UUID]) -> list[uuid.UUID]:
    """The same for debts."""
    return _take(Rental, list(rental_ids), DEBT_LEASE)


class Keeping:
    """The lease of debts that one thread works on, kept as long as it goes on from one to the next."""

    def __init__(self) -> None:
        self._kept = clock.now()

    def keep(self, rentals: Iterable[Rental]) -> None:
        """``rentals``: those that are still to be done. Costs nothing until a good part of the lease is over."""
        now = clock.now()
        if now - self._kept < DEBT_LEASE / 3:
            return
        self._kept = now
        with transaction.atomic():
            lock_rentals(rentals, Debt.DESTROYING).update(next_check_at=now + DEBT_LEASE)
