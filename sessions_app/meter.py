"""Keeps billing's meter in step with a rental; touches it only when a rate changes."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing import services as billing
from sessions_app.models import Rental
from sessions_app.states import OPEN


def run(rental: Rental, kind: str, rate_per_hour: Decimal, at: datetime) -> None:
    """From ``at`` on, ``kind`` (``gpu`` or ``disk``) of this rental costs ``rate_per_hour`` dollars."""
    rate = rate_per_hour.quantize(billing.RATE_PLACES)
    column = f"{kind}_rate"
    if getattr(rental, column) == rate:
        return
    changes: dict[str, object] = {column: rate}
    if kind == "gpu" and rental.gpu_from is None:
        changes["gpu_from"] = at
    with transaction.atomic():
        if not _still_open(rental):
            return
        billing.set_rate(_account(rental), kind, rate, at)
        Rental.objects.filter(id=rental.id).update(**changes)
    for name, value in changes.items():
        setattr(rental, name, value)


def backdate(rental: Rental, kind: str, to: datetime) -> None:
    """The provider says that its bill began at ``to``, earlier or later than our first guess."""
    with transaction.atomic():
        if _still_open(rental):
            billing.backdate(rental.id, kind, to)


def stop_gpu(rental: Rental, at: datetime) -> None:
    """The machine is stopped: its GPU costs nothing from ``at`` on."""
    if rental.gpu_rate is None:
        return
    with transaction.atomic():
        if not _still_open(rental):
            return
        billing.stop_kind(rental.id, "gpu", at)
        Rental.objects.filter(id=rental.id).update(gpu_rate=None)
    rental.gpu_rate = None


def _still_open(rental: Rental) -> bool:
    """Locks the rental first, as whoever closes it does; a closed one is settled and stays so."""
    return Rental.objects.select_for_update(no_key=True).filter(id=rental.id, state__in=OPEN).exists()


def _account(rental: Rental) -> billing.Account:
    session = rental.session
    if session is None:
        return billing.Account(rental.id, "", None, rental.provider, "")
    return billing.Account(rental.id, session.id, session.consumer_id, rental.provider, session.gpu_type)
