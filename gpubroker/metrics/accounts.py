"""Gauges of provider accounts in dollars: balance, runway, and what of their bill does not agree with our books."""

from __future__ import annotations

import math
from collections.abc import Iterator

from django.db.models import Count, F, Sum
from django.db.models.functions import Abs

from billing import balance
from billing.models import BillFinding, ChargeFetch
from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.metrics.samples import Sample, age


def balances() -> Iterator[Sample]:
    """Of configured providers that tell one: what nobody reads any more is not low."""
    now, asked = clock.now(), configured.configured()
    for account in balance.standings():
        if account.provider not in asked or account.credit is None or account.read_at is None:
            continue
        name = (account.provider,)
        yield Sample("gpu_provider_balance_dollars", name, float(account.credit))
        yield Sample("gpu_provider_balance_age_seconds", name, age(now, account.read_at))
        runway = account.runway_hours
        yield Sample("gpu_provider_runway_seconds", name, math.inf if runway is None else 3600 * float(runway))


def bills() -> Iterator[Sample]:
    now, asked = clock.now(), configured.configured()
    rows = BillFinding.objects.filter(state=BillFinding.State.OPEN).values_list("provider", "kind")
    counted = rows.annotate(n=Count("id"), gap=Sum(Abs(F("ours") - F("theirs")))).order_by("provider", "kind")
    found = {(provider, kind): (count, gap) for provider, kind, count, gap in counted}
    for fetch in ChargeFetch.objects.filter(offered=True, completed_at__isnull=False).order_by("provider"):
        for kind in BillFinding.Kind.values:
            count, gap = found.get((fetch.provider, kind), (0, 0))
            yield Sample("gpu_bill_findings", (fetch.provider, kind), count)
            yield Sample("gpu_bill_difference_dollars", (fetch.provider, kind), float(gap))
        if fetch.provider in asked and fetch.completed_at is not None:
            yield Sample("gpu_charges_age_seconds", (fetch.provider,), age(now, fetch.completed_at))
