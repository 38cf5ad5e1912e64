"""Counters that survive restarts and add up across processes (rows of :class:`Counter`)."""

from __future__ import annotations

import json
from collections import Counter as Counting
from collections.abc import Collection, Sequence
from decimal import Decimal

from django.db.models import F

from gpubroker.common.models import Counter


def increment(name: str, amount: Decimal | int = 1, **labels: str) -> None:
    """Add to one counter. Inside a transaction it counts exactly when the transaction does."""
    key = json.dumps(labels, sort_keys=True)
    if Counter.objects.filter(name=name, labels=key).update(value=F("value") + amount):
        return
    Counter.objects.bulk_create([Counter(name=name, labels=key, value=0)], ignore_conflicts=True)
    Counter.objects.filter(name=name, labels=key).update(value=F("value") + amount)


#: Upper bounds in seconds; ``+Inf`` is implied.
DURATION_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200)


def bucket(seconds: float, bounds: Sequence[float]) -> str:
    """The upper bound of the bucket that counts it, as it stands in the label ``le``."""
    return next((str(bound) for bound in bounds if seconds <= bound), "+Inf")


def observe_durations(name: str, durations: Collection[float], **labels: str) -> None:
    """Add durations in seconds to a histogram made of counters: ``_bucket`` by ``le`` (each its own), and ``_sum``."""
    bounds = Counting(bucket(seconds, DURATION_BUCKETS) for seconds in durations)
    for bound, count in sorted(bounds.items()):
        increment(f"{name}_bucket", count, le=bound, **labels)
    increment(f"{name}_sum", Decimal(f"{sum(durations):.6f}"), **labels)
