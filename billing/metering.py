"""What the meter is told beside rates: marks, traffic, and that it changed at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest

from billing.models import LedgerRow, MeterChange, MeterSegment
from gpubroker.common import clock

HOUR = timedelta(hours=1)


def changed(consumers: Iterable[int | None]) -> None:
    """These consumers' meters change in this transaction: nothing remembered of them is good any more."""
    MeterChange.objects.bulk_create([MeterChange(consumer_id=consumer) for consumer in set(consumers)])


def changed_of(rental_id: uuid.UUID) -> None:
    changed(
        MeterSegment.objects.filter(rental_id=rental_id).order_by().values_list("consumer_id", flat=True).distinct()
    )


def hour_of(moment: datetime) -> datetime:
    """The beginning of its hour."""
    return moment.replace(minute=0, second=0, microsecond=0)


def mark_failed(rental_id: uuid.UUID) -> None:
    """This machine came to nothing before its session ran: what it costs is marked, now and later. Call it with the
    rental locked. Segments first: whoever is booking them holds their locks, and ends before the rows are marked."""
    with transaction.atomic():
        MeterSegment.objects.filter(rental_id=rental_id).update(failed_attempt=True)
        LedgerRow.objects.filter(rental_id=rental_id).update(failed_attempt=True)


def keep_disk(rental_id: uuid.UUID, at: datetime) -> None:
    """From ``at`` on the rental's disk is that of a stopped machine. Repeats change nothing."""
    with transaction.atomic():
        running = MeterSegment.objects.filter(rental_id=rental_id, kind=MeterSegment.Kind.DISK, ended_at__isnull=True)
        before = running.select_for_update(no_key=True).first()
        if before is None or before.preserved:
            return
        split = max(at, before.started_at)
        running.filter(id=before.id).update(ended_at=Greatest(F("started_at"), split), book_at=clock.now())
        MeterSegment.objects.create(
            rental_id=rental_id, session_id=before.session_id, consumer_id=before.consumer_id,
            provider=before.provider, gpu_type=before.gpu_type, kind=before.kind,
            rate_per_hour=before.rate_per_hour, started_at=split, failed_attempt=before.failed_attempt, preserved=True,
        )  # fmt: skip
        changed([before.consumer_id])


def set_traffic(rental_id: uuid.UUID, hour: datetime, dollars: Decimal) -> bool:
    """The provider billed ``dollars`` (at most 8 decimals are kept) for this rental's traffic in the UTC hour that
    ``hour`` lies in. Said again it changes nothing, and another amount corrects the first.

    ``False``: the meter knows no such rental.
    """
    rate, start = dollars.quantize(Decimal("0.00000001")), hour_of(hour)
    with transaction.atomic():
        # Locked, so that two who are told of the same charge do not both book it.
        mine = MeterSegment.objects.filter(rental_id=rental_id).select_for_update(no_key=True).order_by("id")
        segments = list(mine)
        if not segments:
            return False
        same_hour = [s for s in segments if s.kind == MeterSegment.Kind.BANDWIDTH and s.started_at == start]
        billed = [s for s in same_hour if s.ended_at is not None and s.ended_at > s.started_at]
        if rate == (billed[0].rate_per_hour if billed else 0):
            return True
        # A segment keeps its rate for ever: the old one shrinks to nothing, which takes it out of the ledger.
        MeterSegment.objects.filter(id__in=[s.id for s in billed]).update(
            ended_at=F("started_at"), book_at=clock.now()
        )  # fmt: skip
        if rate:
            first = segments[0]
            MeterSegment.objects.create(
                rental_id=rental_id, session_id=first.session_id, consumer_id=first.consumer_id,
                provider=first.provider, gpu_type=first.gpu_type, kind=MeterSegment.Kind.BANDWIDTH,
                rate_per_hour=rate, started_at=start, ended_at=start + HOUR, failed_attempt=first.failed_attempt,
            )  # fmt: skip
        changed([segments[0].consumer_id])
    return True
