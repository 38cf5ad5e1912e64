"""The breaker of a provider account: after failures in a row that speak of its health, calls are held for a while.

One row per provider, shared by every process. Closed: calls pass. Open: they are held until ``open_until``, for growing
pauses. Then one call is let through to try; what it finds closes the breaker or opens it again, for longer.
Destroys and their proofs never ask: a debt is paid as soon as it can be, and its answer closes the breaker for all.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db.models import F, Q

from gpubroker.common import clock
from gpubroker.common.models import ProviderBreaker
from providers.base import GateHeld

log = logging.getLogger(__name__)

#: Failures in a row that open it.
FAILURES = 5
FIRST_PAUSE, MOST_PAUSE = 1.0, 60.0
#: Longer than any call takes: after it, whoever was to try is dead, and another may.
TRIAL_LEASE = timedelta(seconds=70)
#: Longer than any pause: a breaker that is open for longer was opened by a clock that has been set back since.
MOST_AHEAD = 2 * TRIAL_LEASE
#: Endpoints that pass an open breaker, as they pay a debt or prove that it is paid.
URGENT = frozenset({"destroy", "destroy_many", "get_instance"})
#: Kinds of errors (``ProviderError.kind``) that speak of the provider's health: 5xx, time-outs, no connection.
#: After any other answer, a refusal as well, it is well.
UNWELL = frozenset({"unavailable", "outcome_unknown"})
#: Nothing was heard of the provider.
SILENT = frozenset({"gate_closed", "internal_error"})


def check(provider: str) -> None:
    """Raise ``GateHeld`` while it is open. It takes nothing: ask before the gate's slot is taken."""
    row = ProviderBreaker.objects.filter(provider=provider, open_until__isnull=False).first()
    if row is not None and row.open_until is not None:
        left = (row.open_until - clock.now()).total_seconds()
        if 0 < left <= MOST_AHEAD.total_seconds():
            # A trial is over soon; its lease is for the dead.
            raise GateHeld(min(left, FIRST_PAUSE) if row.trying else left, reason(row), by="breaker")


def enter(provider: str) -> None:
    """The call is about to leave. Where the breaker's pause is over, one caller at a time goes to try."""
    now = clock.now()
    row = ProviderBreaker.objects.filter(provider=provider, open_until__isnull=False).first()
    if row is None:
        return
    is_over = Q(open_until__lte=now) | Q(open_until__gt=now + MOST_AHEAD)
    trial = ProviderBreaker.objects.filter(is_over, provider=provider)
    if not trial.update(open_until=now + TRIAL_LEASE, trying=True):
        raise GateHeld(FIRST_PAUSE, reason(row), by="breaker")


def reason(row: ProviderBreaker) -> str:
    return f"held back: {row.failures} failures in a row, the last: {row.last_error}"


def note(provider: str, operation: str, error: str) -> None:
    """What came of a call: ``error`` is the error's kind, or empty. Never call it inside a transaction."""
    if error in SILENT:
        return
    if error in UNWELL:
        _failed(provider, operation, error)
    elif ProviderBreaker.objects.filter(provider=provider, failures__gt=0).exists():
        was_open = ProviderBreaker.objects.filter(provider=provider, open_until__isnull=False).exists()
        ProviderBreaker.objects.filter(provider=provider).update(
            failures=0, trips=0, open_until=None, trying=False, last_error="", changed_at=clock.now()
        )
        if was_open:
            log.warning("%s answers again", provider)


def _failed(provider: str, operation: str, error: str) -> None:
    now = clock.now()
    rows = ProviderBreaker.objects.filter(provider=provider)
    if not rows.exists():
        made = ProviderBreaker(provider=provider, changed_at=now)
        ProviderBreaker.objects.bulk_create([made], ignore_conflicts=True)
    told = {"failures": F("failures") + 1, "last_error": f"{operation}: {error}"[:120], "changed_at": now}
    if rows.filter(open_until__isnull=True).update(**told):
        if rows.filter(open_until__isnull=True, failures__gte=FAILURES).update(
            open_until=now + timedelta(seconds=FIRST_PAUSE), trips=1
        ):
            log.error("%s failed %d times in a row (%s: %s): its calls are held", provider, FAILURES, operation, error)
        return
    # Open already. The caller who went to try decides; those who left earlier, and destroys, do not prolong it.
    row = rows.filter(trying=True).first()
    if row is not None and operation not in URGENT:
        pause = timedelta(seconds=min(FIRST_PAUSE * 2 ** min(row.trips, 10), MOST_PAUSE))
        rows.filter(trying=True, trips=row.trips).update(
            trying=False, trips=F("trips") + 1, open_until=now + pause, **told
        )
