"""The trust gate: a pass of the sweep that would end too much ends nothing and asks a person.

A provider's fault, a wrong account or a database brought back from an old backup all look like many lost machines, many
that are too dear, or many orphans at once. What is held stays held, pass after pass, until the provider's listing makes
sense again or a person in the admin lets it happen (:func:`release`). Time limits go on as ever: a held session still
expires.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import transaction

from gpubroker.common import clock, counters
from sessions_app.models import ProviderWatch
from sessions_app.transitions import record

log = logging.getLogger(__name__)

#: As many as this are never too many, whatever share they are.
FLOOR = 3
#: For how long a person's word lets the sweep do what it held back.
RELEASE = timedelta(hours=1)
#: Labels and ids shown to the person who decides.
MOST_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Intent:
    """What a pass would do: end the sessions of these labels, destroy these orphans (machine ids)."""

    provider: str
    ends: Sequence[str]
    orphans: Sequence[str]
    #: Machines that stand in our books, and machines with our label in the listing.
    standing: int
    ours: int
    #: How many of ``ends`` are for a price above ``max_price``.
    dear: int = 0

    def excess(self) -> str:
        """Why it is too much; empty when it is not."""
        share = settings.SWEEP_HOLD_SHARE
        if len(self.ends) > max(FLOOR, share * self.standing):
            what = "lost" if not self.dear else f"lost or ({self.dear} of them) too dear"
            return f"{len(self.ends)} of {self.standing} machines are {what} by the listing"
        if len(self.orphans) > max(FLOOR, share * self.ours):
            return f"{len(self.orphans)} of {self.ours} machines with our label are in no book of ours"
        return ""


def allows(intent: Intent) -> bool:
    """Whether this pass may act. Holds it, with an event, when it would end too much and nobody allowed that."""
    excess = intent.excess()
    if not excess:
        _clear(intent.provider, "the listing makes sense again")
        return True
    now = clock.now()
    with transaction.atomic():
        watch = ProviderWatch.objects.select_for_update(no_key=True).get(provider=intent.provider)
        if watch.released_until is not None and now < watch.released_until:
            return True
        details = {"ends": list(intent.ends[:MOST_SHOWN]), "orphans": list(intent.orphans[:MOST_SHOWN])}
        if not watch.held_reason:
            counters.increment("gpu_sweeps_held_total", provider=intent.provider)
            record("sweep_held", reason=excess, details={"provider": intent.provider, **details})
            log.error("sweep of %s held, a person must decide: %s", intent.provider, excess)
        ProviderWatch.objects.filter(provider=intent.provider).update(
            held_reason=excess[:300], held_at=watch.held_at or now, held_details=details
        )
    return False


def release(provider: str, actor: str) -> bool:
    """A person says that what is held is true: the next passes do it. ``False`` when nothing is held."""
    now = clock.now()
    with transaction.atomic():
        held = ProviderWatch.objects.select_for_update(no_key=True).filter(provider=provider).exclude(held_reason="")
        watch = held.first()
        if watch is None:
            return False
        record(
            "sweep_released",
            reason=watch.held_reason,
            actor=actor,
            details={"provider": provider, **watch.held_details},
        )
        ProviderWatch.objects.filter(provider=provider).update(
            released_until=now + RELEASE, released_by=actor[:160], next_sweep_at=now, **_NOTHING_HELD
        )
    log.warning("sweep of %s released by %s: %s", provider, actor, watch.held_reason)
    return True


_NOTHING_HELD: dict[str, object] = {
    "held_reason": "", "held_at": None, "held_details": {}, "held_known_at": None, "held_known_by": "",
}  # fmt: skip


def _clear(provider: str, why: str) -> None:
    with transaction.atomic():
        if ProviderWatch.objects.filter(provider=provider).exclude(held_reason="").update(**_NOTHING_HELD):
            record("sweep_cleared", reason=why, details={"provider": provider})
