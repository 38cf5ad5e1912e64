"""Every metric of the broker, once: its name, type, labels and meaning. docs/metrics.md is held to it by a test.

A gauge is read from the books at the scrape, by a function of :data:`gpubroker.metrics.SOURCES`. Counters and
histograms are rows of :class:`gpubroker.common.models.Counter`. All are named from the first scrape on. No label
names a consumer, a session or a machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpubroker.common.counters import DURATION_BUCKETS
from gpubroker.common.gathered import CALL_BUCKETS

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric. ``bounds`` in seconds, of a histogram's buckets."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    bounds: Sequence[float] = ()


def _gauge(name: str, text: str, *labels: str) -> Spec:
    return Spec(name, GAUGE, labels, text)


def _counter(name: str, text: str, *labels: str) -> Spec:
    return Spec(name, COUNTER, labels, text)


def _histogram(name: str, text: str, *labels: str, bounds: Sequence[float] = DURATION_BUCKETS) -> Spec:
    return Spec(name, HISTOGRAM, labels, text, bounds)


SESSIONS = (
    _gauge("gpu_sessions_active", "Active session count", "provider", "status"),
    _gauge("gpu_sessions_past_end", "Sessions whose time is up and whose machine is not proved gone"),
    _gauge("gpu_session_past_end_seconds", "How long ago the longest overdue of those should have ended; 0: none"),
    _counter("gpu_sessions_ended_total", "Sessions ended, by reason", "provider", "reason"),
    _counter("gpu_attempts_failed_total", "Failed attempts to launch a session, by reason", "provider", "reason"),
    _histogram("gpu_session_provisioning_duration_seconds", "From the request to a machine proved usable", "provider"),
    _histogram("gpu_ssh_verify_duration_seconds", "From the first SSH address to a verified login", "provider"),
    _counter("gpu_ssh_verify_failures_total", "Sessions whose SSH never verified", "provider"),
    _counter("gpu_key_repairs_total", "Times that the keys of a running machine were put on it again", "provider"),
)
DEBTS = (
    _gauge("gpu_rentals_open", "Machines that a provider may bill for", "provider", "state"),
    _gauge(
        "gpu_unproved_destroys", "Machines owed to the provider whose end is not proved yet, by whether it said yes",
        "provider", "accepted",
    ),
    _gauge("gpu_oldest_unproved_destroy_seconds", "Age of the oldest destroy without proof; 0: none"),
    _histogram("gpu_destroy_duration_seconds", "From the decision to destroy to the proof", "provider"),
    _counter("gpu_destroy_failures_total", "Failed destruction attempts", "provider"),
    _gauge("gpu_orphans_present", "Machines with our label that no open rental knows, waiting out their grace",
           "provider"),
    _counter("gpu_orphans_detected_total", "Orphaned machines detected", "provider"),
    _gauge("gpu_ghosts_suspected", "Open rentals that the last complete listing did not have", "provider"),
    _counter("gpu_ghosts_detected_total", "Rentals whose machine the provider had lost", "provider"),
    _gauge("gpu_review_open", "Things that wait for a person's decision in the console", "kind"),
)  # fmt: skip
DRIVER = (
    _gauge("gpu_due_lag_seconds", "How late the driver is: age of the oldest due row", "rows"),
    _gauge("gpu_scheduler_tick_age_seconds", "Since the scheduler's last tick; -1: never"),
    _gauge("gpu_queue_up", "1: the task queue answers"),
    _gauge("gpu_queue_depth", "Tasks that wait in the queue", "queue"),
)
PROVIDERS = (
    _gauge("gpu_offers_available", "Offers in the inventory", "provider"),
    _gauge("gpu_offers_age_seconds", "Since the last good fetch of offers", "provider"),
    _counter("gpu_offer_fetches_total", "Fetches of offers: applied, refused as implausible, failed",
             "provider", "outcome"),
    _gauge("gpu_sweep_age_seconds", "Since the last complete listing of machines was compared", "provider"),
    _counter(
        "gpu_listings_total", "Listings of machines: complete, held by the trust gate, failed, put off by the pace",
        "provider", "outcome",
    ),
    _gauge("gpu_listing_failures_in_a_row", "Listings of machines that failed since the last complete one", "provider"),
    _gauge("gpu_listing_machines", "Machines in the last complete listing: ours, or others' on the same account",
           "provider", "whose"),
    _gauge("gpu_sweep_held", "1: the trust gate holds its sweep", "provider"),
    _counter("gpu_sweeps_held_total", "Sweeps that would have ended too much and ask a person", "provider"),
    _counter("gpu_provider_calls_total", "Calls to a provider, by what came of them; gate_closed: not sent",
             "provider", "operation", "outcome"),
    _histogram("gpu_provider_call_duration_seconds", "How long a provider's answers took", "provider", "operation",
               bounds=CALL_BUCKETS),
    _counter("gpu_provider_api_errors_total", "Provider API errors", "provider", "operation"),
    _gauge("gpu_provider_breaker_open", "1: its calls are held because it fails", "provider"),
    _gauge("gpu_provider_maintenance", "1: staff lets it take no new session", "provider"),
    _counter("gpu_gate_holds_total", "Calls that our own gate held back: by pace, breaker or lanes",
             "provider", "endpoint", "by"),
    _counter("gpu_gate_wait_seconds_total", "Seconds that calls waited for their slot at the gate", "provider"),
)  # fmt: skip
MONEY = (
    _gauge("gpu_cost_dollars_per_hour", "What the open rentals cost at this moment", "provider", "kind"),
    _counter("gpu_price_drift_total", "Machines billed above their offer by more than the tolerance", "provider"),
    _gauge("gpu_provider_balance_dollars", "Credit at the provider, as it was last told", "provider"),
    _gauge("gpu_provider_balance_age_seconds", "Since the provider last told its balance", "provider"),
    _gauge("gpu_provider_runway_seconds", "How long the credit carries what runs there; +Inf: nothing runs",
           "provider"),
    _gauge("gpu_charges_age_seconds", "Since the provider's charges were last fetched and compared", "provider"),
    _gauge("gpu_bill_findings", "Where the provider's charges and our books differ, and nobody has said why",
           "provider", "kind"),
    _gauge("gpu_bill_difference_dollars", "By how much they differ, added up", "provider", "kind"),
    _gauge("gpu_budgets", "Consumers' budgets by how they stand: calm, warned (a threshold told), exhausted",
           "period", "state"),
    _counter("gpu_budget_overruns_total", "Machines not gone in time that cost more than was reserved for them",
             "provider"),
    _gauge("gpu_budget_left_dollars", "What all budgets have that is neither spent nor reserved", "period"),
    _gauge("gpu_budget_least_left_ratio", "The same of the tightest budget, as a share of its limit; 1: there is none",
           "period"),
)  # fmt: skip
SERVICE = (
    _counter("gpu_http_requests_total", "HTTP requests answered", "method", "route", "status"),
    _histogram("gpu_http_request_duration_seconds", "How long HTTP requests took", "method", "route",
               bounds=CALL_BUCKETS),
    _gauge("gpu_webhook_backlog", "Webhook deliveries that are not over", "state"),
    _counter("gpu_webhook_deliveries_total", "What came of webhook deliveries, attempt by attempt", "outcome"),
)  # fmt: skip

#: By the heading in docs/metrics.md.
GROUPS: dict[str, tuple[Spec, ...]] = {
    "Sessions": SESSIONS,
    "Debts": DEBTS,
    "Driver": DRIVER,
    "Providers": PROVIDERS,
    "Money": MONEY,
    "Service": SERVICE,
}
ALL: dict[str, Spec] = {spec.name: spec for group in GROUPS.values() for spec in group}
