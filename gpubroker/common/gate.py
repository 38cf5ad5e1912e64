"""The gate that spaces provider calls across every process of the deployment: one row per account and endpoint."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import Value
from django.db.models.functions import Greatest

from gpubroker.common import clock
from gpubroker.common.models import ProviderGate
from providers.base import GateHeld


class DatabaseGate:
    """A :class:`providers.base.Gate` over :class:`ProviderGate`. Never call it inside a transaction."""

    def acquire(self, key: str, interval: float, *, wait: float = 0.0) -> None:
        """Take the slot or raise ``GateHeld``. ``wait`` is for the later pages of one listing, which must
        follow each other closely; everything else comes back when it is due."""
        left = wait
        while (held := self._try(key, interval)) > 0:
            if held > left:
                raise GateHeld(held)
            clock.pause(held)
            left -= held

    def push_out(self, key: str, seconds: float) -> None:
        until = clock.now() + timedelta(seconds=seconds)
        row = ProviderGate.objects.filter(key=key)
        if not row.update(next_allowed_at=Greatest("next_allowed_at", Value(until, models.DateTimeField()))):
            ProviderGate.objects.bulk_create([ProviderGate(key=key, next_allowed_at=until)], ignore_conflicts=True)

    def _try(self, key: str, interval: float) -> float:
        """0 when the slot was taken, else the seconds until it may be tried again."""
        now = clock.now()
        after = now + timedelta(seconds=interval)
        if ProviderGate.objects.filter(key=key, next_allowed_at__lte=now).update(next_allowed_at=after):
            return 0.0
        row = ProviderGate.objects.filter(key=key).first()
        if row is None:
            made = ProviderGate.objects.bulk_create(
                [ProviderGate(key=key, next_allowed_at=now - timedelta(seconds=1))], ignore_conflicts=True
            )
            return self._try(key, interval) if made else interval
        return max((row.next_allowed_at - now).total_seconds(), 0.001)
