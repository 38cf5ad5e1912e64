"""Keeps billing's meter in step with a rental; touches it only when a rate changes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing import metering
from billing import services as billing
from sessions_app.models import Rental
from sessions_app.states import OPEN

#: Dollars per hour that the meter can hold.
MOST = metering.MOST


@dataclass(frozen=True, slots=True)
class Rate:
    """From ``at`` on, ``kind`` (``gpu`` or ``disk``) of this rental costs ``per_hour`` dollars."""

    rental: Rental
    kind: str
    per_hour: Decimal
    at: datetime

    def storable(self) -> Decimal:
        return min(self.per_hour, MOST).quantize(metering.RATE_PLACES)

    def changes(self) -> dict[str, object]:
        """Columns of the rental that change with it; none when it runs at this rate already."""
        rate, column = self.storable(), f"{self.kind}_rate"
        if getattr(self.rental, column) == rate:
            return {}
        first = self.kind == "gpu" and self.rental.gpu_from is None
        return {column: rate, "gpu_from": self.at} if first else {column: rate}


def run(rental: Rental, kind: str, rate_per_hour: Decimal, at: datetime) -> None:
    run_all([Rate(rental, kind, rate_per_hour, at)])


def run_all(rates: Iterable[Rate]) -> None:
    """Many in one transaction, at most one of a kind for each rental. Those that change nothing cost nothing."""
    changed = [(rate, changes) for rate in rates if (changes := rate.changes())]
    if not changed:
        return
    with transaction.atomic():
        still_open = _still_open(rate.rental for rate, _ in changed)
        changed = [(rate, changes) for rate, changes in changed if rate.rental.id in still_open]
        billing.set_rates([billing.Rate(_account(r.rental), r.kind, r.storable(), r.at) for r, _ in changed])
        columns: dict[uuid.UUID, dict[str, object]] = {}
        for rate, changes in changed:
            columns.setdefault(rate.rental.id, {}).update(changes)
        for rental_id, together in columns.items():
            Rental.objects.filter(id=rental_id).update(**together)
    for rate, changes in changed:
        for name, value in changes.items():
            setattr(rate.rental, name, value)


def backdate(beginnings: Sequence[tuple[Rental, datetime]], kind: str) -> None:
    """The provider says that its bills began then, earlier or later than our first guess."""
    if not beginnings:
        return
    with transaction.atomic():
        still_open = _still_open(rental for rental, _ in beginnings)
        billing.backdate({rental.id: to for rental, to in beginnings if rental.id in still_open}, kind)


def stop_gpu(rental: Rental, at: datetime) -> None:
    """The machine is stopped: its GPU costs nothing from ``at`` on."""
    if rental.gpu_rate is None:
        return
    with transaction.atomic():
        if not _still_open([rental]):
            return
        billing.stop_kind(rental.id, "gpu", at)
        Rental.objects.filter(id=rental.id).update(gpu_rate=None)
    rental.gpu_rate = None


def keep_disk(rental: Rental, at: datetime) -> None:
    """The machine is stopped and its disk kept: what the disk costs from ``at`` on is marked."""
    with transaction.atomic():
        if _still_open([rental]):
            metering.keep_disk(rental.id, at)


def _still_open(rentals: Iterable[Rental]) -> set[uuid.UUID]:
    """Locks the rentals first, as whoever closes one does; a closed one is settled and stays so."""
    mine = Rental.objects.filter(id__in={rental.id for rental in rentals}, state__in=OPEN)
    return set(mine.select_for_update(no_key=True).order_by("id").values_list("id", flat=True))


def _account(rental: Rental) -> billing.Account:
    session = rental.session
    if session is None:
        return billing.Account(rental.id, "", None, rental.provider, "")
    return billing.Account(rental.id, session.id, session.consumer_id, rental.provider, session.gpu_type)
