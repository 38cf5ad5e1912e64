"""What waits for a person: rows that the sweep, the driver and the meter have found, and that nobody has decided on.

Each is a query by an index of what is open, so that counting them costs a scrape next to nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import F, Q, QuerySet

from gpubroker.common import clock
from gpubroker.common import providers as configured
from sessions_app.models import ProviderWatch, Rental, SeenOrphan, UnknownMachine
from sessions_app.outages import UNPROVED_AFTER
from sessions_app.sightings import STANDING
from sessions_app.states import Debt
from sessions_app.strays import COMPLETE_LISTINGS_FOR_A_GHOST

#: Whoever said that he knows of an unproved destroy is asked again after this: it costs on.
KNOWN_FOR = timedelta(days=1)
#: In the words of the index ``rental_open_costs``: SQLite finds no partial index for ``state IN (...)``.
_OPEN = Rental.objects.exclude(state=Debt.CLOSED)


def held() -> QuerySet[ProviderWatch]:
    """Sweeps that the trust gate holds."""
    return _watched().filter(held_known_at__isnull=True)


def kept() -> QuerySet[ProviderWatch]:
    """Sweeps that are held, and of which a person said that this is right."""
    return _watched().filter(held_known_at__isnull=False)


def _watched() -> QuerySet[ProviderWatch]:
    names = list(configured.configured())
    return ProviderWatch.objects.filter(provider__in=names).exclude(held_reason="").order_by("provider")


def orphans() -> QuerySet[SeenOrphan]:
    """Machines with our label that no open rental knows."""
    return SeenOrphan.objects.filter(decision=SeenOrphan.Decision.NONE).order_by("first_seen_at", "id")


def decided_orphans() -> QuerySet[SeenOrphan]:
    """Those that a person wants left alone, or destroyed now."""
    return SeenOrphan.objects.exclude(decision=SeenOrphan.Decision.NONE).order_by("first_seen_at", "id")


def unknown() -> QuerySet[UnknownMachine]:
    """Machines on our accounts that no GPU broker has made."""
    return UnknownMachine.objects.filter(known_at__isnull=True).order_by("first_seen_at", "id")


def known() -> QuerySet[UnknownMachine]:
    return UnknownMachine.objects.filter(known_at__isnull=False).order_by("first_seen_at", "id")


def ghosts() -> QuerySet[Rental]:
    """Machines that complete listings do not have, and that no direct look has shown to be gone."""
    missing = _OPEN.filter(state__in=sorted(STANDING), missing_listings__gte=COMPLETE_LISTINGS_FOR_A_GHOST)
    return missing.order_by("last_seen_at", "id")


def dear() -> QuerySet[Rental]:
    """Machines that are billed above their offer, and more than anybody has accepted."""
    above = Q(drift_accepted__isnull=True) | Q(drift_accepted__lt=F("price_actual"))
    return _OPEN.filter(above, drifted_at__isnull=False, state=Debt.LIVE).order_by("drifted_at", "id")


def unproved(now: datetime | None = None) -> QuerySet[Rental]:
    """Destroys that nobody has proved for too long, and that nobody knows of, or not since yesterday."""
    now = now or clock.now()
    fresh = Q(unproved_known_at__isnull=True) | Q(unproved_known_at__lte=now - KNOWN_FOR)
    late = _OPEN.filter(fresh, state=Debt.DESTROYING, destroy_requested_at__lte=now - UNPROVED_AFTER)
    return late.order_by("destroy_requested_at", "id")


def counts() -> dict[str, int]:
    """How many of each wait."""
    return {
        "held": held().count(),
        "orphan": orphans().count(),
        "unknown": unknown().count(),
        "ghost": ghosts().count(),
        "drift": dear().count(),
        "unproved": unproved().count(),
    }
