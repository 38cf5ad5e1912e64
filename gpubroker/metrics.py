"""``/metrics``: the broker's own metrics from durable state at scrape time, right whatever process answers,
followed by this process's HTTP metrics."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal

from django.db.models import Count, Min, Q
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django_prometheus.exports import ExportToDjangoView
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from billing import webhook_selectors
from gpubroker.common import clock
from gpubroker.common.counters import DURATION_BUCKETS
from gpubroker.common.models import Counter, ProviderBreaker, Pulse
from offers.models import Offer, ProviderInventory
from sessions_app.drive import PULSE
from sessions_app.models import ProviderWatch, Rental, Session
from sessions_app.states import LIVE, OPEN, Debt

#: name -> (help, labels). Present from the first scrape on, so that a rate can be taken from zero.
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gpu_orphans_detected_total": ("Orphaned machines detected", ("provider",)),
    "gpu_ghosts_detected_total": ("Rentals whose machine the provider had lost", ("provider",)),
    "gpu_destroy_failures_total": ("Failed destruction attempts", ("provider",)),
    "gpu_key_repairs_total": ("Times that the keys of a running machine were put on it again", ("provider",)),
    "gpu_ssh_verify_failures_total": ("Sessions whose SSH never verified", ("provider",)),
    "gpu_provider_api_errors_total": ("Provider API errors", ("provider", "operation")),
    "gpu_sweeps_held_total": ("Sweeps that would have ended too much and ask a person", ("provider",)),
    "gpu_attempts_failed_total": ("Failed attempts to launch a session, by reason", ("provider", "reason")),
    "gpu_price_drift_total": ("Machines billed above their offer by more than the tolerance", ("provider",)),
    "gpu_webhook_deliveries_total": ("What came of webhook deliveries, attempt by attempt", ("outcome",)),
    "gpu_sessions_ended_total": ("Sessions ended, by reason", ("provider", "reason")),
}
HISTOGRAMS = {"gpu_ssh_verify_duration_seconds": "From the first SSH address to a verified login"}


class BrokerCollector:
    """Reads the books; holds nothing."""

    def collect(self) -> Iterator[Metric]:
        rows: dict[str, list[tuple[dict[str, str], Decimal]]] = defaultdict(list)
        for row in Counter.objects.all():
            rows[row.name].append((json.loads(row.labels), row.value))
        yield from _sessions()
        yield from _debts()
        yield from _providers()
        yield from _webhooks()
        for name, (text, label_names) in COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=label_names)
            for labels, value in rows[name]:
                family.add_metric([labels.get(label, "") for label in label_names], float(value))
            yield family
        for name, text in HISTOGRAMS.items():
            yield _histogram(name, text, rows)


def _histogram(name: str, text: str, rows: dict[str, list[tuple[dict[str, str], Decimal]]]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["provider"])
    counts: dict[str, dict[str, float]] = defaultdict(dict)
    for labels, value in rows[f"{name}_bucket"]:
        counts[labels["provider"]][labels["le"]] = float(value)
    sums = {labels["provider"]: float(value) for labels, value in rows[f"{name}_sum"]}
    for provider, found in counts.items():
        total, buckets = 0.0, []
        for bound in (*map(str, DURATION_BUCKETS), "+Inf"):
            total += found.get(bound, 0.0)
            buckets.append((bound, total))
        family.add_metric([provider], buckets, sums.get(provider, 0.0))
    return family


def _sessions() -> Iterator[Metric]:
    family = GaugeMetricFamily("gpu_sessions_active", "Active session count", labels=["provider", "status"])
    counted = Session.objects.filter(status__in=LIVE).values_list("provider", "status").annotate(n=Count("id"))
    for provider, status, count in counted.order_by("provider", "status"):
        family.add_metric([provider, status], count)
    yield family


def _debts() -> Iterator[Metric]:
    now = clock.now()
    family = GaugeMetricFamily(
        "gpu_rentals_open", "Machines that a provider may bill for", labels=["provider", "state"]
    )
    counted = Rental.objects.filter(state__in=OPEN).values_list("provider", "state").annotate(n=Count("id"))
    for provider, state, count in counted.order_by("provider", "state"):
        family.add_metric([provider, state], count)
    yield family
    oldest = Rental.objects.filter(state=Debt.DESTROYING).aggregate(at=Min("destroy_requested_at"))["at"]
    yield GaugeMetricFamily(
        "gpu_oldest_unproved_destroy_seconds", "Age of the oldest destroy without proof; 0: none",
        value=(now - oldest).total_seconds() if oldest else 0,
    )  # fmt: skip
    unproved = GaugeMetricFamily(
        "gpu_unproved_destroys", "Machines owed to the provider whose end is not proved yet, by whether it said yes",
        labels=["provider", "accepted"],
    )  # fmt: skip
    said_yes = Q(destroy_answered_at__isnull=False)
    waiting = Rental.objects.filter(state=Debt.DESTROYING).values_list("provider")
    for provider, accepted, sent in waiting.annotate(a=Count("id", filter=said_yes), n=Count("id")).order_by(
        "provider"
    ):
        unproved.add_metric([provider, "yes"], accepted)
        unproved.add_metric([provider, "no"], sent - accepted)
    yield unproved
    lag = GaugeMetricFamily("gpu_due_lag_seconds", "How late the driver is: age of the oldest due row", labels=["rows"])
    for rows, model in (("sessions", Session), ("rentals", Rental)):
        first = model.objects.filter(next_check_at__lte=now).aggregate(at=Min("next_check_at"))["at"]
        lag.add_metric([rows], (now - first).total_seconds() if first else 0)
    yield lag
    pulse = Pulse.objects.filter(name=PULSE).first()
    yield GaugeMetricFamily(
        "gpu_scheduler_tick_age_seconds", "Since the scheduler's last tick; -1: never",
        value=(now - pulse.at).total_seconds() if pulse else -1,
    )  # fmt: skip


def _providers() -> Iterator[Metric]:
    now = clock.now()
    offers = GaugeMetricFamily("gpu_offers_available", "Offers in the inventory", labels=["provider"])
    age = GaugeMetricFamily("gpu_offers_age_seconds", "Since the last good fetch of offers", labels=["provider"])
    listed = dict(Offer.objects.values_list("provider").annotate(n=Count("id", filter=Q(withdrawn_at__isnull=True))))
    for row in ProviderInventory.objects.order_by("provider"):
        offers.add_metric([row.provider], listed.get(row.provider, 0))
        if row.last_success_at:
            age.add_metric([row.provider], (now - row.last_success_at).total_seconds())
    yield offers
    yield age
    held = GaugeMetricFamily("gpu_sweep_held", "1: the trust gate holds its sweep", labels=["provider"])
    breakers = GaugeMetricFamily(
        "gpu_provider_breaker_open", "1: its calls are held because it fails", labels=["provider"]
    )
    is_open = set(ProviderBreaker.objects.filter(open_until__isnull=False).values_list("provider", flat=True))
    for provider in ProviderWatch.objects.order_by("provider").values_list("provider", flat=True):
        breakers.add_metric([provider], float(provider in is_open))
    yield breakers
    swept = GaugeMetricFamily("gpu_sweep_age_seconds", "Since the last complete sweep", labels=["provider"])
    for watch in ProviderWatch.objects.order_by("provider"):
        held.add_metric([watch.provider], 1 if watch.held_reason else 0)
        if watch.last_sweep_at:
            swept.add_metric([watch.provider], (now - watch.last_sweep_at).total_seconds())
    yield swept
    yield held


def _webhooks() -> Iterator[Metric]:
    family = GaugeMetricFamily("gpu_webhook_backlog", "Webhook deliveries that are not over", labels=["state"])
    for state, count in sorted(webhook_selectors.backlog().items()):
        family.add_metric([state], count)
    yield family


@csrf_exempt  # so that other methods are 405, not a page about cookies
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BrokerCollector())
    process = ExportToDjangoView(request)
    return HttpResponse(generate_latest(registry) + process.content, content_type=CONTENT_TYPE_LATEST)
