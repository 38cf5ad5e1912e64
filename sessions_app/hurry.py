"""Not to wait for the next try: what a session has waiting for its time becomes due now, on a person's word."""

from __future__ import annotations

from django.db import transaction

from gpubroker.common import clock
from gpubroker.common.errors import ApiError
from gpubroker.common.principal import OPEN, Principal
from sessions_app import nudge
from sessions_app.models import Rental, Session
from sessions_app.services import found
from sessions_app.states import Debt, Status
from sessions_app.transitions import record

#: Their steps may be taken at any time, twice as well; a create's or a look-up's may not (I2).
_REPEATABLE = frozenset({Debt.PARKING, Debt.DESTROYING})


def hurry(session_id: str, principal: Principal = OPEN) -> list[str]:
    """What was made due, in words. 409 where nothing waits for its time.

    A destroy or a stop that was refused is asked for again at once, and a session between two attempts looks for its
    next offer. Whoever has one of them in hand at this moment goes on undisturbed: to look again too early is harmless.
    """
    session = found(session_id, principal)
    now = clock.now()
    with transaction.atomic():
        Session.objects.select_for_update(no_key=True).get(id=session_id)
        waiting = Rental.objects.filter(session_id=session_id, state__in=_REPEATABLE, next_check_at__gt=now)
        owed = list(waiting.select_for_update(no_key=True).order_by("id"))
        Rental.objects.filter(id__in=[rental.id for rental in owed]).update(next_check_at=now)
        pending = Session.objects.filter(id=session_id, status=Status.PENDING, auto_retry=True, next_check_at__gt=now)
        begun = pending.exclude(rentals__state__in=sorted(set(Debt) - {Debt.CLOSED})).update(next_check_at=now)
        told = [f"{'destroy' if rental.state == Debt.DESTROYING else 'stop'} of {rental.label}" for rental in owed]
        told += ["the next attempt"] if begun else []
        if not told:
            raise ApiError(
                409, f"session {session_id} is {session.status} and waits for no next try",
                session_id=session_id, status=session.status,
            )  # fmt: skip
        record("hurried", session_id=session_id, reason=f"tried again now: {', '.join(told)}", actor=principal.actor)
    for rental in owed:
        if rental.state == Debt.DESTROYING:
            nudge.destroy(rental)
        else:
            nudge.rental(rental.id)
    if begun:
        nudge.session(session_id)
    return told
