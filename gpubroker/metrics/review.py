"""What waits for a person, by kind: the console's review queue, in numbers."""

from __future__ import annotations

from collections.abc import Iterator

from billing import charge_review
from gpubroker.metrics.samples import Sample
from sessions_app import undecided


def counts() -> dict[str, int]:
    """By kind, those of which nothing waits too."""
    return {**undecided.counts(), "charge": charge_review.undecided().count()}


def waiting() -> Iterator[Sample]:
    for kind, count in counts().items():
        yield Sample("gpu_review_open", (kind,), count)
