"""The meter: segments are opened when the provider begins to bill and closed at the proof that it stopped."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest

from billing.models import Consumer, MeterSegment
from gpubroker.common import clock

RATE_PLACES = Decimal("0.00000001")


@dataclass(frozen=True, slots=True)
class Account:
    """On whose account a rental's segments go."""

    rental_id: uuid.UUID
    session_id: str
    consumer_id: int | None
    provider: str
    gpu_type: str


def ensure_consumer(name: str) -> Consumer:
    consumer, _ = Consumer.objects.get_or_create(name=name, defaults={"created_at": clock.now()})
    return consumer


def set_rate(account: Account, kind: str, rate_per_hour: Decimal, at: datetime) -> None:
    """From ``at`` on, this rental costs ``rate_per_hour`` for ``kind``. The same rate again changes nothing."""
    rate = rate_per_hour.quantize(RATE_PLACES)
    with transaction.atomic():
        running = (
            MeterSegment.objects.select_for_update(no_key=True)
            .filter(rental_id=account.rental_id, kind=kind, ended_at__isnull=True)
            .first()
        )
        if running is not None and running.rate_per_hour == rate:
            return
        if running is not None:
            running.ended_at = max(at, running.started_at)
            running.save(update_fields=["ended_at"])
        MeterSegment.objects.bulk_create(
            [
                MeterSegment(
                    rental_id=account.rental_id,
                    session_id=account.session_id,
                    consumer_id=account.consumer_id,
                    provider=account.provider,
                    gpu_type=account.gpu_type,
                    kind=kind,
                    rate_per_hour=rate,
                    started_at=at,
                )
            ],
            # A second worker may have opened it in the same instant: the constraint keeps one.
            ignore_conflicts=True,
        )


def backdate(rental_id: uuid.UUID, kind: str, to: datetime) -> None:
    """The rental's first segment of ``kind`` began at ``to``: no later than it ended, if it did."""
    first = MeterSegment.objects.filter(rental_id=rental_id, kind=kind).order_by("started_at", "id").first()
    if first is not None:
        first.started_at = min(to, first.ended_at or to)
        first.save(update_fields=["started_at"])


def stop_kind(rental_id: uuid.UUID, kind: str, at: datetime) -> None:
    """``kind`` costs nothing from ``at`` on, e.g. the GPU of a stopped machine."""
    open_segments = MeterSegment.objects.filter(rental_id=rental_id, kind=kind, ended_at__isnull=True)
    open_segments.update(ended_at=Greatest(F("started_at"), at))


def settle(rental_id: uuid.UUID, at: datetime) -> None:
    """The rental is proved gone since ``at``: nothing costs beyond it, and what was counted beyond is given back."""
    with transaction.atomic():
        segments = MeterSegment.objects.filter(rental_id=rental_id)
        segments.filter(ended_at__isnull=True).update(ended_at=Greatest(F("started_at"), at))
        segments.filter(ended_at__gt=at, started_at__lte=at).update(ended_at=at)
        segments.filter(started_at__gt=at).update(ended_at=F("started_at"))
