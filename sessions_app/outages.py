"""What staff must hear of without looking: destroys that stay unproved, and providers that fail or answer again.

Looked for now and then by the driver; each is an event, once, and with it a webhook to staff.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef

from gpubroker.common import clock
from gpubroker.common.models import ProviderBreaker, Pulse
from sessions_app.models import Event, Rental
from sessions_app.states import Debt
from sessions_app.transitions import record, record_all

log = logging.getLogger(__name__)

#: A destroy without proof is worth a person's look after this.
UNPROVED_AFTER = timedelta(minutes=5)
#: Told in one go; the rest is told the next time.
MOST_TOLD = 100
UNPROVED, FAILING, RECOVERED = "destroy_unproved", "provider_failing", "provider_recovered"


def look() -> None:
    """Find what is new and tell it. Two drivers at once may tell of one destroy twice; nothing else comes of it."""
    _unproved_destroys()
    for breaker in ProviderBreaker.objects.order_by("provider"):
        _provider(breaker)


def _unproved_destroys() -> None:
    now = clock.now()
    known = Event.objects.filter(rental_id=OuterRef("id"), kind=UNPROVED)
    late = Rental.objects.filter(state=Debt.DESTROYING, destroy_requested_at__lte=now - UNPROVED_AFTER)
    for rental in (rows := list(late.exclude(Exists(known)).order_by("destroy_requested_at")[:MOST_TOLD])):
        log.error(
            "destroy of %s is unproved since %s: %s", rental.label, rental.destroy_requested_at, rental.last_error
        )
    with transaction.atomic():
        record_all(
            Event(
                session_id=rental.session_id,
                rental_id=rental.id,
                kind=UNPROVED,
                reason=(rental.last_error or "the provider has not shown it gone")[:300],
                details={
                    "provider": rental.provider,
                    "instance_id": rental.instance_id,
                    "label": rental.label,
                    "requested_at": clock.iso(rental.destroy_requested_at),
                    "failures": rental.destroy_failures,
                },
            )
            for rental in rows
        )


def _provider(breaker: ProviderBreaker) -> None:
    """Its breaker's state against what was told last, which a row of its own remembers."""
    told = f"failing:{breaker.provider}"
    details = {"provider": breaker.provider, "last_error": breaker.last_error}
    with transaction.atomic():
        if breaker.open_until is not None:
            if Pulse.objects.get_or_create(name=told, defaults={"at": clock.now()})[1]:
                record(FAILING, reason=f"{breaker.failures} calls failed in a row; its calls are held", details=details)
        elif Pulse.objects.filter(name=told).delete()[0]:
            record(RECOVERED, reason="it answers again", details=details)
