"""The gate that spaces provider calls across every process of the deployment: one row per account and endpoint.

Before a call takes its slot it must find room in this process (:mod:`gpubroker.common.lanes`) and the provider's
breaker closed (:mod:`gpubroker.common.breaker`); destroys and their proofs have room of their own and pass the breaker.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Greatest

from gpubroker.common import breaker, clock, gathered
from gpubroker.common.lanes import lanes
from gpubroker.common.models import ProviderGate
from gpubroker.common.outlast import AWAY
from providers.answers import LONGEST_PAUSE
from providers.base import GateHeld

#: Longer than any slot and any push-out: what is held for longer was written by a clock that has been set back since.
MOST_AHEAD = timedelta(seconds=2 * LONGEST_PAUSE)
#: Vendors measure at their own door, and calls are on their way for unequal times: one has to connect, another has not.
#: Seconds that two calls lie further apart than the vendor asks for; less where intervals are shorter than in earnest.
SLACK_SHARE, MOST_SLACK = 0.25, 0.25
#: A gate that cannot be asked is closed: nothing is sent that could not be written down.
AWAY_SECONDS = 2.0


class DatabaseGate:
    """A :class:`providers.base.Gate` over :class:`ProviderGate`. Never call it inside a transaction."""

    def acquire(self, key: str, interval: float, *, wait: float = 0.0) -> None:
        """Take the slot or raise ``GateHeld``. ``wait`` is for the later pages of one listing, which must
        follow each other closely; everything else comes back when it is due."""
        provider, _, endpoint = key.partition(":")
        try:
            try:
                self._enter(key, interval, wait, provider, urgent=endpoint in breaker.URGENT)
            except AWAY as error:
                raise GateHeld(AWAY_SECONDS, "held back: the database does not answer", by="database") from error
        except GateHeld as held:
            gathered.count("gpu_gate_holds_total", provider=provider, endpoint=endpoint, by=held.by)
            raise

    def _enter(self, key: str, interval: float, wait: float, provider: str, *, urgent: bool) -> None:
        lanes.enter(provider, urgent=urgent)
        try:
            if not urgent:
                breaker.check(provider)
            self._take(key, interval, wait)
            if not urgent:
                breaker.enter(provider)
        except BaseException:
            lanes.leave()  # otherwise whoever is told of the call's end does
            raise

    def _take(self, key: str, interval: float, wait: float) -> None:
        left = wait
        while (held := self._try(key, interval)) > 0:
            if held > left:
                raise GateHeld(held)
            clock.pause(held)
            gathered.count("gpu_gate_wait_seconds_total", held, provider=key.partition(":")[0])
            left -= held

    def push_out(self, key: str, seconds: float) -> None:
        now = clock.now()
        until = now + timedelta(seconds=seconds)
        row = ProviderGate.objects.filter(key=key)
        row.filter(next_allowed_at__gt=now + MOST_AHEAD).update(next_allowed_at=now)
        if not row.update(next_allowed_at=Greatest("next_allowed_at", Value(until, models.DateTimeField()))):
            ProviderGate.objects.bulk_create([ProviderGate(key=key, next_allowed_at=until)], ignore_conflicts=True)

    def _try(self, key: str, interval: float) -> float:
        """0 when the slot was taken, else the seconds until it may be tried again."""
        now = clock.now()
        latest = now + MOST_AHEAD
        if interval <= 0:
            # Nothing to space: only a push-out counts, and callers in the same instant do not hold each other.
            row = ProviderGate.objects.filter(key=key, next_allowed_at__gt=now, next_allowed_at__lte=latest).first()
            return 0.0 if row is None else (row.next_allowed_at - now).total_seconds()
        after = now + timedelta(seconds=interval + min(interval * SLACK_SHARE, MOST_SLACK))
        free = Q(next_allowed_at__lte=now) | Q(next_allowed_at__gt=latest)
        if ProviderGate.objects.filter(free, key=key).update(next_allowed_at=after):
            return 0.0
        row = ProviderGate.objects.filter(key=key).first()
        if row is None:
            made = ProviderGate.objects.bulk_create(
                [ProviderGate(key=key, next_allowed_at=now - timedelta(seconds=1))], ignore_conflicts=True
            )
            return self._try(key, interval) if made else interval
        return max((row.next_allowed_at - now).total_seconds(), 0.001)
