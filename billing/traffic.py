"""Traffic, which providers tell only in their charges: put on the meter once, in the hour in which the charge begins.

A charge says what of its traffic stands on the meter; what it tells beyond that is due. So repeats find nothing to do,
a crash leaves nothing out, and a charge that grows, shrinks or is matched to its rental late is put right.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import F, Min, QuerySet

from billing import metering
from billing.metering import hour_of
from billing.models import ChargeFetch, MeterSegment, ProviderCharge
from gpubroker.common import clock

#: Charges of one transaction.
BATCH = 500
Hour = tuple[uuid.UUID, datetime]


def book(provider: str) -> int:
    """Bring the meter in step with what this provider has charged for traffic; how many charges were booked.

    Charges of machines that no rental is known for wait for one; those that begin in an hour that is not over, until
    it is, as amounts of hours that are over stay the same however often somebody asks.
    """
    last = booked = 0
    while True:
        with transaction.atomic():
            # Held by whoever writes charges down, too: what is added up here cannot change meanwhile.
            ChargeFetch.objects.select_for_update().filter(provider=provider).first()
            rows = list(_due(provider).filter(id__gt=last).order_by("id")[:BATCH])
            if not rows:
                return booked
            last = rows[-1].pk
            booked += _book(rows)


def _due(provider: str) -> QuerySet[ProviderCharge]:
    matched = ProviderCharge.objects.filter(provider=provider, rental_id__isnull=False)
    return matched.exclude(traffic=F("traffic_booked"))


def _book(rows: Sequence[ProviderCharge]) -> int:
    ready = _placed(rows)
    owners = {row.rental_id for row in ready if row.rental_id is not None}
    amounts: dict[Hour, Decimal] = defaultdict(Decimal)
    hours = {(row.rental_id, row.traffic_hour) for row in ready}
    others = ProviderCharge.objects.filter(rental_id__in=owners, traffic_hour__isnull=False)
    for row in [*others.exclude(id__in=[row.pk for row in ready]), *ready]:
        if row.rental_id is not None and row.traffic_hour is not None and (row.rental_id, row.traffic_hour) in hours:
            amounts[row.rental_id, row.traffic_hour] += row.traffic
    metering.set_all_traffic(amounts)
    for row in ready:
        row.traffic_booked = row.traffic
    ProviderCharge.objects.bulk_update(ready, ["traffic_booked", "traffic_hour"], batch_size=BATCH)
    return len(ready)


def _placed(rows: Sequence[ProviderCharge]) -> list[ProviderCharge]:
    """Those that can be booked, with the hour that they keep from now on: the one in which they begin, but none before
    the meter's first, as vendors cut charges by the day."""
    metered = MeterSegment.objects.filter(rental_id__in={row.rental_id for row in rows}).order_by()
    began = dict(metered.values_list("rental_id").annotate(at=Min("started_at")))
    over, ready = hour_of(clock.now()), []
    for row in rows:
        if row.rental_id not in began:
            continue  # the meter knows no such rental: the comparison tells of it
        first = began[row.rental_id]
        row.traffic_hour = row.traffic_hour or hour_of(max(row.starts_at or first, first))
        if row.traffic_hour < over:
            ready.append(row)
    return ready
