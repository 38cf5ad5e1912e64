"""Paying the debt: destroy, look, and close only with a proof. There is no give-up."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F

from gpubroker.common import clock, counters
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from providers.base import ALREADY_GONE, Provider
from providers.errors import GateClosed, ProviderError
from sessions_app.ending import close_rental
from sessions_app.models import Rental
from sessions_app.states import Debt
from sessions_app.transitions import record

log = logging.getLogger(__name__)

#: A machine that is still there this long after the provider said yes is asked to go once more.
ASK_AGAIN = timedelta(seconds=15)
MOST_PAUSE = 60.0


def pay(rental: Rental) -> None:
    """One step towards the proof: send the destroy unless it was accepted lately, then look."""
    try:
        provider = configured.get(rental.provider)
    except ApiError as error:
        _later(rental, 30, error.message)
        return
    answered = rental.destroy_answered_at
    if answered is None or clock.now() - answered > _patience(rental):
        if not _send(rental, provider):
            return
        rental.refresh_from_db()
    _look(rental, provider)


def _patience(rental: Rental) -> timedelta:
    """Grows with every accepted destroy that did not work."""
    doublings = min(rental.destroy_attempts, 4)
    return ASK_AGAIN * ((1 << doublings) - 1)


def _pause(count: int) -> float:
    return float(min(0.5 * 2 ** min(count, 10), MOST_PAUSE))


def _later(rental: Rental, seconds: float, error: str = "") -> None:
    Rental.objects.filter(id=rental.id, state=Debt.DESTROYING).update(
        next_check_at=clock.now() + timedelta(seconds=seconds), last_error=error[:300]
    )


def _send(rental: Rental, provider: Provider) -> bool:
    """``False`` when there is nothing to look at yet: it was held back or refused, and is due again."""
    try:
        answer = provider.destroy(rental.instance_id)
    except GateClosed as error:
        _later(rental, error.retry_after or 0.5, rental.last_error)
        return False
    except ProviderError as error:
        _refused(rental, error)
        return True  # somebody else may have ended it: look all the same
    now = clock.now()
    with transaction.atomic():
        Rental.objects.filter(id=rental.id, state=Debt.DESTROYING).update(
            destroy_attempts=F("destroy_attempts") + 1,
            destroy_answered_at=now,
            last_error="",
            destroy_taken=rental.destroy_taken or answer != ALREADY_GONE,
        )
        record(
            "destroy_accepted", session_id=rental.session_id, rental_id=rental.id, reason=answer,
            details={"instance_id": rental.instance_id, "attempt": rental.destroy_attempts + 1},
        )  # fmt: skip
    return True


def _refused(rental: Rental, error: ProviderError) -> None:
    failures = rental.destroy_failures + 1
    pause = max(error.retry_after or 0, _pause(failures))
    with transaction.atomic():
        Rental.objects.filter(id=rental.id, state=Debt.DESTROYING).update(
            destroy_failures=F("destroy_failures") + 1,
            next_check_at=clock.now() + timedelta(seconds=pause),
            last_error=str(error)[:300],
        )
        counters.increment("gpu_destroy_failures_total", provider=rental.provider)
        record(
            "destroy_refused", session_id=rental.session_id, rental_id=rental.id, reason=str(error),
            details={"instance_id": rental.instance_id, "failures": failures, "again_in_seconds": round(pause, 1)},
        )  # fmt: skip
    log.error("destroy of %s refused %d times, again in %.0f s: %s", rental.label, failures, pause, error)


def _look(rental: Rental, provider: Provider) -> None:
    """The proof is the provider's own word, asked directly, that it has no such machine."""
    asked = clock.now()
    try:
        instance = provider.get_instance(rental.instance_id)
    except ProviderError as error:
        held = isinstance(error, GateClosed)
        _later(rental, error.retry_after or _pause(0 if held else 2), "" if held else str(error))
        return
    if instance is None and not _credible(rental, asked):
        _later(rental, 5.0, "the provider does not know it (yet); it is too young for that to be a proof")
        return
    if instance is None:
        proof = {
            "call": f"get instance {rental.instance_id}",
            "answer": "the provider has no such machine",
            "destroy_accepted_at": rental.destroy_answered_at.isoformat() if rental.destroy_answered_at else None,
        }
        # The bill ends when the provider took the destroy, not when we came to look.
        if close_rental(rental, {Debt.DESTROYING}, proof, billed_until=rental.destroy_answered_at or asked):
            log.info("machine %s is gone: %s", rental.instance_id, rental.label)
        return
    since = rental.destroy_answered_at
    if since is not None:
        _later(rental, min(max((asked - since).total_seconds(), 0.5), 10.0), f"still {instance.status or 'there'}")


def _credible(rental: Rental, now: datetime) -> bool:
    """A fresh machine may not be known everywhere at the provider yet: as long as its listing may lag, "no such
    machine" is a proof only after a destroy that the provider took as one."""
    if rental.destroy_taken:
        return True
    age = now - (rental.accepted_at or rental.created_at)
    return age >= timedelta(seconds=settings.LISTING_LAG_SECONDS)
