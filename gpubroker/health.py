"""``/health`` and ``/ready``: is the database there, has the start-up sweep finished, does the scheduler tick?"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.models import Pulse
from offers import selectors as offers
from sessions_app.drive import PULSE, PULSE_FRESH
from sessions_app.models import ProviderWatch

log = logging.getLogger(__name__)

#: A process is ready once every provider was swept since it started, or after STARTUP_SWEEP_SECONDS.
_started: datetime = clock.now()
_swept = False


def _startup_sweep_done(now: datetime) -> bool:
    global _swept
    if not _swept:
        names = set(configured.configured())
        done = ProviderWatch.objects.filter(provider__in=names, last_sweep_at__gte=_started - _KNOWN_BEFORE)
        _swept = now - _started > timedelta(seconds=settings.STARTUP_SWEEP_SECONDS) or (
            set(done.values_list("provider", flat=True)) == names
        )
    return _swept


#: Sweeps begin as soon as the worker is up, which may be a little before this process is.
_KNOWN_BEFORE = timedelta(seconds=10)


def ticking() -> bool:
    """Has the scheduler's tick come lately, i.e. do beat and a worker work?"""
    return _ticking(clock.now())


def _ticking(now: datetime) -> bool:
    pulse = Pulse.objects.filter(name=PULSE).first()
    return pulse is not None and now - pulse.at <= PULSE_FRESH


@csrf_exempt  # so that other methods are 405, not a page about cookies
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    now = clock.now()
    lifecycle, inventory, ready, database = "stopped", "empty", False, True
    resting: set[str] = set()
    try:
        ready = _startup_sweep_done(now)
        lifecycle = "running" if _ticking(now) else "stopped"
        inventory = offers.health(list(configured.configured()))
        resting = offers.in_maintenance() & set(configured.configured())
    except DatabaseError:
        log.exception("database unavailable")
        ready = database = False
    services = {
        "lifecycle": lifecycle,
        "inventory": inventory,
        "ready": "true" if ready else "false",
        "database": "ok" if database else "unavailable",
        **({"maintenance": ", ".join(sorted(resting))} if resting else {}),
    }
    body = {"status": "ok" if ready else "unavailable", "timestamp": clock.iso(now), "services": services}
    return JsonResponse(body, status=200 if ready else 503)


@csrf_exempt  # so that other methods are 405, not a page about cookies
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    now = clock.now()
    try:
        is_ready = _startup_sweep_done(now)
        Pulse.objects.filter(name=PULSE).exists()
    except DatabaseError:
        log.exception("database unavailable")
        is_ready = False
    return JsonResponse({"ready": is_ready, "timestamp": clock.iso(now)}, status=200 if is_ready else 503)
