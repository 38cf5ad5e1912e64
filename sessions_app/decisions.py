"""What a person decides about the things of :mod:`sessions_app.undecided`. Each decision is an event, with who made it.

``False``: there was nothing left to decide, and nothing has changed. Ending a session is :mod:`sessions_app.ending`'s,
letting a held sweep go :func:`sessions_app.trust.release`'s.
"""

from __future__ import annotations

import uuid

from django.db import transaction

from gpubroker.common import clock
from sessions_app import nudge, sweep
from sessions_app.models import ProviderWatch, Rental, SeenOrphan, UnknownMachine
from sessions_app.price import DRIFT
from sessions_app.states import Debt
from sessions_app.transitions import record

Choice = SeenOrphan.Decision
#: As events tell it.
_SAID = {
    Choice.NONE: "its grace counts again",
    Choice.DESTROY: "to be destroyed now",
    Choice.LEAVE: "to be left alone",
}


def keep_holding(provider: str, actor: str) -> bool:
    """It is right that the sweep is held: until the hold ends, nobody is asked again."""
    with transaction.atomic():
        row = ProviderWatch.objects.filter(provider=provider, held_known_at__isnull=True).exclude(held_reason="")
        kept = bool(row.update(held_known_at=clock.now(), held_known_by=actor[:160]))
        if kept:
            record("sweep_kept", reason="it is right to hold it", actor=actor, details={"provider": provider})
    return kept


def about_orphan(orphan_id: int, choice: SeenOrphan.Decision, actor: str) -> bool:
    """Destroy it with the next sweep, which begins at once; leave it alone for as long as it is there; or neither, and
    then its grace counts."""
    with transaction.atomic():
        row = SeenOrphan.objects.select_for_update().filter(id=orphan_id).exclude(decision=choice).first()
        if row is None:
            return False
        undone = choice == Choice.NONE
        SeenOrphan.objects.filter(id=row.id).update(
            decision=choice, decided_by="" if undone else actor[:160], decided_at=None if undone else clock.now()
        )
        record(
            "orphan_decided", reason=_SAID[choice], actor=actor,
            details={"provider": row.provider, "instance_id": row.instance_id, "label": row.label},
        )  # fmt: skip
    if choice == Choice.DESTROY:
        sweep.ask(row.provider)
        nudge.tick()
    return True


def about_unknown(machine_id: int, actor: str, *, known: bool) -> bool:
    """Somebody knows whose it is (or, undone, nobody does). It is not touched either way."""
    with transaction.atomic():
        row = UnknownMachine.objects.filter(id=machine_id, known_at__isnull=known).first()
        if row is None:
            return False
        UnknownMachine.objects.filter(id=row.id).update(
            known_at=clock.now() if known else None, known_by=actor[:160] if known else ""
        )
        record(
            "machine_known" if known else "machine_unknown", actor=actor,
            reason="somebody's, and left alone" if known else "nobody knows whose it is",
            details={"provider": row.provider, "instance_id": row.instance_id, "label": row.label},
        )  # fmt: skip
    return True


def accept_price(rental_id: uuid.UUID, actor: str) -> bool:
    """What the machine is billed at is all right, up to this rate."""
    with transaction.atomic():
        row = Rental.objects.select_for_update(no_key=True).filter(id=rental_id, state=Debt.LIVE).first()
        if row is None or row.drifted_at is None or row.price_actual is None:
            return False
        if row.drift_accepted is not None and row.drift_accepted >= row.price_actual:
            return False
        Rental.objects.filter(id=row.id).update(drift_accepted=row.price_actual)
        record(
            "price_accepted", session_id=row.session_id, rental_id=row.id, actor=actor,
            reason=f"more than {DRIFT - 1:.0%} above its offer, and accepted",
            details={"price_asked": str(row.price_asked), "price": str(row.price_actual)},
        )  # fmt: skip
    return True


def know_unproved(rental_id: uuid.UUID, actor: str) -> bool:
    """A person knows that this destroy has no proof. It is tried on, for ever."""
    with transaction.atomic():
        row = Rental.objects.filter(id=rental_id, state=Debt.DESTROYING).first()
        if row is None:
            return False
        Rental.objects.filter(id=row.id).update(unproved_known_at=clock.now())
        record("unproved_known", session_id=row.session_id, rental_id=row.id, actor=actor, reason="staff knows of it")
    return True


def try_destroy(rental_id: uuid.UUID, actor: str) -> bool:
    """Try again now, and not when its pause is over."""
    with transaction.atomic():
        row = Rental.objects.filter(id=rental_id, state=Debt.DESTROYING).first()
        if row is None or not Rental.objects.filter(id=row.id, state=Debt.DESTROYING).update(next_check_at=clock.now()):
            return False
        record("destroy_asked", session_id=row.session_id, rental_id=row.id, actor=actor, reason="staff asked for it")
        nudge.destroy(row)
    return True
