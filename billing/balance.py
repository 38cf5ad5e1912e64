"""Provider balances: read now and then, and what they are worth in hours. Dollars.

A balance that is unknown, stale or not offered says nothing, and nothing is refused because of it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet, Sum

from billing import outbox, webhook_kinds
from billing.models import MeterSegment, ProviderBalance
from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from gpubroker.common.money import as_number, exact_cost
from providers.base import Balance
from providers.errors import GateClosed, NotSupported, ProviderError

log = logging.getLogger(__name__)

ZERO = Decimal(0)
#: Longer than a call takes: whoever holds it for longer is dead.
LEASE = timedelta(minutes=2)
#: A provider that does not tell its balance is asked again this often: it may learn to.
NOT_OFFERED_AGAIN = timedelta(days=1)
LONGEST_PAUSE = timedelta(minutes=30)
#: A balance counts for this long, or for three polls if that is longer.
FRESH = timedelta(minutes=15)
#: The warning ends when the runway is this many times as long as where it begins; so it does not flap.
RECOVERED = Decimal("1.25")
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Standing:
    """How one provider account stands now."""

    provider: str
    #: As it was last told, at ``read_at``.
    credit: Decimal | None
    currency: str
    read_at: datetime | None
    #: Dollars per hour of everything that the meter has running there.
    burn_per_hour: Decimal
    #: The credit less what has been burnt since it was told.
    left: Decimal | None
    #: Hours until nothing is left; ``None``: unknown, or nothing is running.
    runway_hours: Decimal | None
    fresh: bool
    offered: bool
    error: str
    low: bool


def claim_due() -> list[str]:
    """Providers whose balance is to be read now, each claimed by an atomic update that is its lease."""
    names = list(configured.configured())
    now = clock.now()
    known = dict(ProviderBalance.objects.filter(provider__in=names).values_list("provider", "next_read_at"))
    if len(known) < len(names):
        rows = [ProviderBalance(provider=name, next_read_at=now) for name in names]
        ProviderBalance.objects.bulk_create(rows, ignore_conflicts=True)
    claim = ProviderBalance.objects.filter(next_read_at__lte=now)
    due = [name for name in names if known.get(name, now) <= now]
    return [name for name in due if claim.filter(provider=name).update(next_read_at=now + LEASE)]


def read(name: str) -> None:
    """Ask the provider and write down what it says, or why it does not."""
    try:
        told = configured.get(name).balance()
    except NotSupported as error:
        _write(name, offered=False, error=error.message[:300], next_read_at=clock.now() + NOT_OFFERED_AGAIN)
    except GateClosed as error:
        _write(name, next_read_at=clock.now() + timedelta(seconds=error.retry_after or 1))
    except (ProviderError, ApiError) as error:
        _failed(name, error)
    else:
        note(name, told)


def _write(name: str, **changes: Any) -> None:
    ProviderBalance.objects.filter(provider=name).update(**changes)


def _failed(name: str, error: ProviderError | ApiError) -> None:
    failures = ProviderBalance.objects.get(provider=name).failures_in_a_row + 1
    asked = error.retry_after if isinstance(error, ProviderError) else None
    pause = min(max(timedelta(seconds=asked or 0), timedelta(seconds=15 * 2 ** min(failures, 8))), LONGEST_PAUSE)
    _write(name, failures_in_a_row=failures, error=str(error)[:300], next_read_at=clock.now() + pause)
    log.warning("balance not read, %s; again in %.0f s", error, pause.total_seconds())


def note(name: str, told: Balance) -> ProviderBalance:
    """Write down a balance that the provider has just told, and warn where it does not last."""
    now = clock.now()
    with transaction.atomic():
        ProviderBalance.objects.bulk_create([ProviderBalance(provider=name, next_read_at=now)], ignore_conflicts=True)
        row = ProviderBalance.objects.select_for_update().get(provider=name)
        row.credit, row.currency, row.read_at = as_number(told.credit), told.currency[:8], now
        row.offered, row.error, row.failures_in_a_row = True, "", 0
        row.next_read_at = now + timedelta(seconds=settings.BALANCE_POLL_SECONDS)
        _watch(row, now)
        row.save()
    return row


def _watch(row: ProviderBalance, now: datetime) -> None:
    """One warning when the runway becomes short, and none again before it has been long once."""
    account = _standing(row, burn(row.provider), now)
    if row.low_since is not None:
        if _recovered(row, account):
            row.low_since = row.low_credit = None
            log.info("credit at %s lasts again", row.provider)
        return
    most, runway = Decimal(str(settings.BALANCE_WARNING_HOURS)), account.runway_hours
    if runway is None or runway >= most:
        return
    row.low_since, row.low_credit = now, row.credit
    told = shown(account)
    log.warning(
        "credit at %s lasts for %.1f h: %s %s, at %s an hour", row.provider, runway, told["credit"], row.currency,
        told["burn_per_hour"],
    )  # fmt: skip
    data = {**told, "warning_hours": most, "at": clock.iso(now)}
    outbox.emit(webhook_kinds.PROVIDER_CREDIT_LOW, None, data, subject=row.provider)


def _recovered(row: ProviderBalance, account: Standing) -> bool:
    """While nothing runs the runway says nothing; then only more credit does."""
    if account.runway_hours is not None:
        return account.runway_hours >= Decimal(str(settings.BALANCE_WARNING_HOURS)) * RECOVERED
    return row.low_credit is not None and account.credit is not None and account.credit > row.low_credit * RECOVERED


def _running() -> QuerySet[MeterSegment]:
    """GPUs and disks: traffic is billed when it is over."""
    return MeterSegment.objects.filter(kind__in=(MeterSegment.Kind.GPU, MeterSegment.Kind.DISK), ended_at__isnull=True)


def burn(provider: str) -> Decimal:
    """Dollars per hour of all that the meter has running at a provider."""
    return _running().filter(provider=provider).aggregate(rate=Sum("rate_per_hour"))["rate"] or ZERO


def burns() -> dict[str, Decimal]:
    """:func:`burn` of every provider that has something running."""
    return dict(_running().values_list("provider").annotate(rate=Sum("rate_per_hour")).order_by("provider"))


def standing(provider: str) -> Standing | None:
    """``None``: this provider has never been asked."""
    row = ProviderBalance.objects.filter(provider=provider).first()
    return _standing(row, burn(provider), clock.now()) if row is not None else None


def standings() -> list[Standing]:
    """Of every provider that has been asked, by name."""
    now, rates = clock.now(), burns()
    return [
        _standing(row, rates.get(row.provider, ZERO), now) for row in ProviderBalance.objects.order_by("provider")
    ]  # fmt: skip


def _standing(row: ProviderBalance, rate: Decimal, now: datetime) -> Standing:
    left = runway = None
    fresh = False
    if row.credit is not None and row.read_at is not None:
        age = now - row.read_at
        left = row.credit - exact_cost(rate, age)
        runway = max(left, ZERO) / rate if rate else None
        fresh = age <= max(FRESH, timedelta(seconds=3 * settings.BALANCE_POLL_SECONDS))
    return Standing(
        row.provider, row.credit, row.currency, row.read_at, rate, left, runway, fresh=fresh, offered=row.offered,
        error=row.error, low=row.low_since is not None,
    )  # fmt: skip


def shown(account: Standing) -> dict[str, Any]:
    """As the API prints it; numbers that nobody knows are null."""
    return {
        "provider": account.provider,
        "credit": None if account.credit is None else as_number(account.credit),
        "currency": account.currency,
        "asked_at": clock.iso(account.read_at),
        "burn_per_hour": as_number(account.burn_per_hour),
        "runway_hours": None if account.runway_hours is None else round(account.runway_hours, 2),
    }
