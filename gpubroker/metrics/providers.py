"""Gauges of provider accounts: inventory, listings, breaker. How old something is shows for configured ones only: what
nobody asks for any more is not late."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Count

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.models import ProviderBreaker
from gpubroker.metrics.samples import Sample, age
from offers.models import Offer, ProviderInventory
from sessions_app.models import ProviderWatch, SeenOrphan


def offers() -> Iterator[Sample]:
    now, asked = clock.now(), configured.configured()
    listed = dict(Offer.objects.filter(withdrawn_at__isnull=True).values_list("provider").annotate(n=Count("*")))
    for row in ProviderInventory.objects.order_by("provider"):
        yield Sample("gpu_offers_available", (row.provider,), listed.get(row.provider, 0))
        yield Sample("gpu_provider_maintenance", (row.provider,), row.maintenance_since is not None)
        if row.last_success_at and row.provider in asked:
            yield Sample("gpu_offers_age_seconds", (row.provider,), age(now, row.last_success_at))


def machines() -> Iterator[Sample]:
    now, asked = clock.now(), configured.configured()
    is_open = set(ProviderBreaker.objects.filter(open_until__isnull=False).values_list("provider", flat=True))
    waiting = SeenOrphan.objects.exclude(decision=SeenOrphan.Decision.LEAVE)
    orphans = dict(waiting.values_list("provider").annotate(n=Count("*")))
    for watch in ProviderWatch.objects.order_by("provider"):
        name = (watch.provider,)
        yield Sample("gpu_provider_breaker_open", name, watch.provider in is_open)
        yield Sample("gpu_sweep_held", name, bool(watch.held_reason))
        yield Sample("gpu_orphans_present", name, orphans.get(watch.provider, 0))
        yield Sample("gpu_listing_failures_in_a_row", name, watch.failures_in_a_row)
        yield Sample("gpu_listing_machines", (watch.provider, "ours"), watch.ours)
        yield Sample("gpu_listing_machines", (watch.provider, "others"), watch.machines - watch.ours)
        if watch.last_sweep_at and watch.provider in asked:
            yield Sample("gpu_sweep_age_seconds", name, age(now, watch.last_sweep_at))
