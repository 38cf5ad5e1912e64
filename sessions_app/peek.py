"""Young machines between two listings: where a complete one takes long, those that boot do not wait for it.

What a page of the youngest shows is written down as a listing's word is. It is no evidence of anything that it does
not show (I5).
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db.models import Q

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from providers.base import ShowsNewest
from providers.errors import ProviderError
from sessions_app import nudge, sightings
from sessions_app.models import Pricing, ProviderWatch, Rental
from sessions_app.states import Debt, Status

log = logging.getLogger(__name__)

#: More machines than this take several seconds to be listed.
MANY = 100
EVERY = timedelta(seconds=5)
#: Whose stops and starts are told from one complete listing to the next stay with these (:mod:`sessions_app.paused`).
_BOOTING = Q(state=Debt.LIVE, session__status=Status.PROVISIONING) & ~Q(session__pricing=Pricing.INTERRUPTIBLE)


def claim_due() -> list[str]:
    """Providers with many machines on which something boots, each claimed by an atomic update."""
    now = clock.now()
    due = ProviderWatch.objects.filter(Q(next_peek_at__isnull=True) | Q(next_peek_at__lte=now), machines__gt=MANY)
    able = [name for name in due.values_list("provider", flat=True) if _shows(name) and _boots(name)]
    return [name for name in able if due.filter(provider=name).update(next_peek_at=now + EVERY)]


def _shows(name: str) -> bool:
    return isinstance(configured.configured().get(name), ShowsNewest)


def _boots(name: str) -> bool:
    return Rental.objects.filter(_BOOTING, provider=name).exists()


def look(name: str) -> int:
    """Note the youngest machines that boot: how many. None where the provider does not answer; it is asked again."""
    started = clock.now()
    try:
        provider = configured.get(name)
        newest = provider.newest_instances() if isinstance(provider, ShowsNewest) else ()
    except (ProviderError, ApiError) as error:
        log.info("the youngest machines of %s are not seen: %s", name, error)
        return 0
    found = {instance.instance_id: instance for instance in newest}
    booting = Rental.objects.filter(_BOOTING, provider=name, instance_id__in=found).select_related("session")
    seen = [(rental, found[rental.instance_id]) for rental in booting]
    if seen:
        sightings.note_all(seen, started)
        sightings.update_in_order([rental.id for rental, _ in seen], last_seen_at=started, missing_listings=0)
        nudge.tick()
    return len(seen)
