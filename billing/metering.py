"""What the meter is told beside rates: marks, traffic, and that it changed at all."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest

from billing.models import LedgerRow, MeterChange, MeterSegment
from gpubroker.common import clock

HOUR = timedelta(hours=1)
#: Of dollars an hour, as a segment keeps them.
RATE_PLACES = Decimal("0.00000001")
#: Dollars per hour: more than any machine costs, and less than a column can hold. On SQLite a row with more could not
#: even be read again, and so not be destroyed.
MOST = Decimal(900_000)
ZERO = Decimal(0)


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
    """:func:`set_all_traffic` for one hour. ``False``: the meter knows no such rental."""
    return not set_all_traffic({(rental_id, hour_of(hour)): dollars})


def set_all_traffic(billed: Mapping[tuple[uuid.UUID, datetime], Decimal]) -> set[uuid.UUID]:
    """The provider billed so many dollars (at most 8 decimals are kept) for a rental's traffic in the UTC hour that
    begins then. Said again it changes nothing, and another amount corrects the first.

    The rentals that the meter does not know; their traffic is not on it.
    """
    with transaction.atomic():
        # Locked, so that two who are told of the same charge do not both book it.
        mine = MeterSegment.objects.filter(rental_id__in={rental_id for rental_id, _ in billed})
        segments: dict[uuid.UUID, list[MeterSegment]] = defaultdict(list)
        for segment in mine.select_for_update(no_key=True).order_by("id"):
            segments[segment.rental_id].append(segment)
        outdated, new = [], []
        for (rental_id, hour), dollars in sorted(billed.items()):
            # A refund of more than was billed for it is no traffic.
            known, rate = segments.get(rental_id, []), min(max(dollars, ZERO), MOST).quantize(RATE_PLACES)
            before = next((each for each in known if _is_traffic_of(each, hour)), None)
            if not known or rate == (before.rate_per_hour if before is not None else 0):
                continue
            # A segment keeps its rate for ever: the old one shrinks to nothing, which takes it out of the ledger.
            outdated += [] if before is None else [before]
            new.append(_traffic(known[0], hour, rate))
        ids = [segment.id for segment in outdated]
        MeterSegment.objects.filter(id__in=ids).update(ended_at=F("started_at"), book_at=clock.now())
        MeterSegment.objects.bulk_create([segment for segment in new if segment.rate_per_hour], batch_size=500)
        changed(segment.consumer_id for segment in new)
    return {rental_id for rental_id, _ in billed if rental_id not in segments}


def _is_traffic_of(segment: MeterSegment, hour: datetime) -> bool:
    if segment.kind != MeterSegment.Kind.BANDWIDTH or segment.started_at != hour:
        return False
    return segment.ended_at is not None and segment.ended_at > segment.started_at


def _traffic(of: MeterSegment, hour: datetime, rate: Decimal) -> MeterSegment:
    """An hour at a rate that makes the amount billed, on the account of another segment of its rental."""
    return MeterSegment(
        rental_id=of.rental_id, session_id=of.session_id, consumer_id=of.consumer_id, provider=of.provider,
        gpu_type=of.gpu_type, kind=MeterSegment.Kind.BANDWIDTH, rate_per_hour=rate, started_at=hour,
        ended_at=hour + HOUR, failed_attempt=of.failed_attempt,
    )  # fmt: skip
