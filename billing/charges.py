"""Provider charges: fetched day by day, again while they may still change, and kept once each.

A run goes from its first day to today, one day a step, and every step is due by a row: whatever is lost, doubled or
late does no harm. When a run is complete its charges are compared with our books (:mod:`billing.matching`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing.models import ChargeFetch, ProviderCharge
from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from gpubroker.common.money import quantize
from providers.base import Provider
from providers.errors import GateClosed, NotSupported, ProviderError
from providers.extras import Charge, KeepsBooks

log = logging.getLogger(__name__)

#: Longer than a listing takes: whoever holds it for longer is dead.
LEASE = timedelta(minutes=5)
EVERY = timedelta(days=1)
#: Charges come late: so many days before today are fetched again in every run.
LATE_DAYS = 3
#: The first run goes back this far; nobody may ask for more than the longest.
FIRST_DAYS, MOST_DAYS = 31, 92
LONGEST_PAUSE = timedelta(hours=1)
TRAFFIC = frozenset({"bwd", "bwu"})


def offered(provider: Provider) -> bool:
    """Whether this provider tells charges at all; a transport of it may still refuse."""
    return isinstance(provider, KeepsBooks)


def claim_due() -> list[str]:
    """Providers of which a day of charges is to be fetched now, each claimed by an atomic update that is its lease."""
    _ensure_rows()
    now = clock.now()
    due = ChargeFetch.objects.filter(next_at__lte=now, provider__in=list(configured.configured()))
    names = list(due.order_by("provider").values_list("provider", flat=True))
    return [name for name in names if due.filter(provider=name).update(next_at=now + LEASE)]


def _ensure_rows() -> None:
    providers = configured.configured()
    if ChargeFetch.objects.filter(provider__in=list(providers)).count() == len(providers):
        return
    now = clock.now()
    rows = [
        ChargeFetch(
            provider=name, next_at=now, offered=offered(each),
            error="" if offered(each) else "this provider tells no charges",
        )
        for name, each in providers.items()
    ]  # fmt: skip
    ChargeFetch.objects.bulk_create(rows, ignore_conflicts=True)


def ask(name: str, first_day: date | None = None) -> date:
    """Somebody wants the charges now, from ``first_day`` on (default: as every day). The first day that is fetched."""
    _ensure_rows()
    now = clock.now()
    with transaction.atomic():
        row = ChargeFetch.objects.select_for_update().get(provider=name)
        wanted = first_day or _usual_first_day(row, now)
        first = min(wanted, row.first_day or wanted) if row.day is not None else wanted
        row.first_day = row.day = first
        row.next_at = now
        row.save(update_fields=["first_day", "day", "next_at"])
    return first


def _usual_first_day(row: ChargeFetch, now: datetime) -> date:
    if row.covered_until is None:
        return now.date() - timedelta(days=FIRST_DAYS)
    return row.covered_until.date() - timedelta(days=LATE_DAYS)


def step(name: str) -> date | None:
    """Fetch the next day. The run's first day when this was its last step, else ``None``."""
    row = ChargeFetch.objects.get(provider=name)
    if row.day is None or row.first_day is None:
        ask(name)
        row.refresh_from_db()
    day, now = row.day, clock.now()
    assert day is not None
    provider = configured.get(name)
    if not isinstance(provider, KeepsBooks):
        _put_off(name, EVERY, offered=False, day=None, error="this provider tells no charges")
        return None
    start, end = _span(day)
    try:
        found = provider.charges(start, min(end, now))
    except NotSupported as error:
        _put_off(name, EVERY, offered=False, day=None, error=error.message[:300])
    except GateClosed as error:
        _put_off(name, timedelta(seconds=error.retry_after or 1))
    except (ProviderError, ApiError) as error:
        _failed(row, error)
    else:
        return _took(name, day, found, now)
    return None


def _span(day: date) -> tuple[datetime, datetime]:
    start = datetime.combine(day, time.min, UTC)
    return start, start + timedelta(days=1)


def _put_off(name: str, pause: timedelta, **changes: Any) -> None:
    ChargeFetch.objects.filter(provider=name).update(next_at=clock.now() + pause, **changes)


def _failed(row: ChargeFetch, error: ProviderError | ApiError) -> None:
    failures = row.failures_in_a_row + 1
    asked = error.retry_after if isinstance(error, ProviderError) else None
    pause = min(max(timedelta(seconds=asked or 0), timedelta(seconds=30 * 2 ** min(failures, 8))), LONGEST_PAUSE)
    _put_off(row.provider, pause, failures_in_a_row=failures, error=str(error)[:300])
    log.warning("charges not fetched, %s; again in %.0f s", error, pause.total_seconds())


def _took(name: str, day: date, found: Sequence[Charge], asked_at: datetime) -> date | None:
    """Keep a day's charges and go on; the run's first day when today's are in."""
    with transaction.atomic():
        row = ChargeFetch.objects.select_for_update().get(provider=name)
        keep(name, found)
        row.offered, row.error, row.failures_in_a_row = True, "", 0
        if row.day != day or row.first_day is None:
            return None  # somebody has asked for more meanwhile, and that run begins anew
        if day < asked_at.date():
            row.day, row.next_at = day + timedelta(days=1), clock.now()
            row.save()
            return None
        first = row.first_day
        if row.covered_from is None or row.covered_until is None or first > row.covered_until.date():
            row.covered_from = first  # what lies before a gap is not known
        row.covered_from = min(row.covered_from, first)
        row.covered_until = row.completed_at = asked_at
        row.first_day = row.day = None
        row.next_at = clock.now() + EVERY
        row.save()
    return first


def keep(name: str, found: Iterable[Charge]) -> None:
    """Write charges down; one that is known (same source and beginning) is updated, and keeps its rental."""
    now = clock.now()
    rows: dict[str, ProviderCharge] = {}
    for charge in found:
        begins = int(charge.starts_at.timestamp()) if charge.starts_at is not None else 0
        row = ProviderCharge(
            provider=name, key=f"{charge.source}:{begins}"[:128], source=charge.source[:96],
            instance_id=charge.instance_id[:96], label=charge.label[:64], description=charge.description[:200],
            starts_at=charge.starts_at, ends_at=charge.ends_at, amount=quantize(charge.amount),
            traffic=quantize(_traffic(charge)), fetched_at=now,
        )  # fmt: skip
        before = rows.setdefault(row.key, row)
        if before is not row:  # the vendor told it in parts
            before.amount += row.amount
            before.traffic += row.traffic
            before.ends_at = max(filter(None, (before.ends_at, row.ends_at)), default=None)
    ProviderCharge.objects.bulk_create(
        rows.values(), batch_size=500, update_conflicts=True, unique_fields=["provider", "key"],
        update_fields=["label", "description", "ends_at", "amount", "traffic", "fetched_at"],
    )  # fmt: skip


def _traffic(charge: Charge) -> Decimal:
    return sum((item.amount for item in charge.items if item.kind in TRAFFIC), Decimal(0))
