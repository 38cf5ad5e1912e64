"""Gauges of sessions, debts, money and the driver: what the books say at the scrape. Each query reads an index of what
is open or due, never the history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from django.db.models import Count, F, Min, Q, Sum

from billing.webhook_models import WebhookDelivery
from gpubroker.common import clock
from gpubroker.common.models import Pulse
from gpubroker.metrics.samples import Sample, age
from sessions_app.drive import PULSE
from sessions_app.models import Rental, Session
from sessions_app.states import LIVE, Debt

#: In the words of the index ``rental_open_costs``: SQLite finds no partial index for ``state IN (...)``.
_OPEN = Rental.objects.exclude(state=Debt.CLOSED)
#: Rows with a time at which somebody must look at them.
_DUE = (
    ("sessions", Session, "next_check_at"),
    ("rentals", Rental, "next_check_at"),
    ("looks", Session, "next_probe_at"),
    ("webhooks", WebhookDelivery, "next_attempt_at"),
)


def sessions() -> Iterator[Sample]:
    counted = Session.objects.filter(status__in=LIVE).values_list("provider", "status").annotate(n=Count("*"))
    for provider, status, count in counted.order_by("provider", "status"):
        yield Sample("gpu_sessions_active", (provider, status), count)
    now = clock.now()
    # A session stays live until its machine is proved gone, so this is rule I8 to the end.
    overdue = Session.objects.filter(status__in=LIVE, expires_at__lte=now)
    found = overdue.aggregate(n=Count("*"), at=Min("expires_at"))
    yield Sample("gpu_sessions_past_end", (), found["n"])
    yield Sample("gpu_session_past_end_seconds", (), age(now, found["at"]) if found["at"] else 0)


def debts() -> Iterator[Sample]:
    """What is open by provider and state, and what it costs."""
    burn: dict[tuple[str, str], float] = defaultdict(float)
    suspects: dict[str, int] = defaultdict(int)
    missing = Count("missing_listings", filter=Q(missing_listings__gt=0))
    counted = _OPEN.values_list("provider", "state").order_by("provider", "state").annotate(n=Count("*"), m=missing)
    for provider, state, count, lost, gpu, disk in counted.annotate(gpu=Sum("gpu_rate"), disk=Sum("disk_rate")):
        yield Sample("gpu_rentals_open", (provider, state), count)
        burn[provider, "gpu"] += float(gpu or 0)
        burn[provider, "disk"] += float(disk or 0)
        suspects[provider] += lost
    for labels, rate in burn.items():
        yield Sample("gpu_cost_dollars_per_hour", labels, rate)
    for provider, count in suspects.items():
        yield Sample("gpu_ghosts_suspected", (provider,), count)
    yield from _unproved()


def _unproved() -> Iterator[Sample]:
    now = clock.now()
    owed = _OPEN.filter(state=Debt.DESTROYING).values_list("provider")
    counted = owed.annotate(a=Count("destroy_answered_at"), n=Count("*"))  # those that have one, and all
    oldest = None
    for provider, accepted, sent, at in counted.annotate(at=Min("destroy_requested_at")).order_by("provider"):
        yield Sample("gpu_unproved_destroys", (provider, "yes"), accepted)
        yield Sample("gpu_unproved_destroys", (provider, "no"), sent - accepted)
        oldest = min(filter(None, (oldest, at)), default=None)
    yield Sample("gpu_oldest_unproved_destroy_seconds", (), age(now, oldest) if oldest else 0)


def driver() -> Iterator[Sample]:
    now = clock.now()
    for rows, model, column in _DUE:
        due = model._default_manager.filter(**{f"{column}__lte": now})
        first = due.aggregate(at=Min(F(column)))["at"]
        yield Sample("gpu_due_lag_seconds", (rows,), age(now, first) if first else 0)
    pulse = Pulse.objects.filter(name=PULSE).first()
    yield Sample("gpu_scheduler_tick_age_seconds", (), age(now, pulse.at) if pulse else -1)
