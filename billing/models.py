"""Who pays, and what for."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Consumer(models.Model):
    """Who asks for sessions and pays for them; made at first use under the name that the caller gave."""

    name = models.CharField(max_length=128, unique=True)
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class MeterSegment(models.Model):
    """A span of time in which one rental costs one rate. A rental's cost is the sum of its segments.

    The rental lives in sessions_app, which this app does not know: it is named by id. Open segments
    (``ended_at`` null) cost up to now. Repeats are harmless: one open segment per rental and kind.
    """

    class Kind(models.TextChoices):
        GPU = "gpu"
        DISK = "disk"

    rental_id = models.UUIDField()
    session_id = models.CharField(max_length=32, blank=True)
    consumer = models.ForeignKey(Consumer, on_delete=models.PROTECT, null=True, related_name="segments")
    provider = models.CharField(max_length=32)
    gpu_type = models.CharField(max_length=64)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    rate_per_hour = models.DecimalField(max_digits=14, decimal_places=8)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["rental_id", "kind"], condition=models.Q(ended_at__isnull=True), name="segment_one_open"
            ),
            models.CheckConstraint(condition=models.Q(rate_per_hour__gte=0), name="segment_rate_not_negative"),
            models.CheckConstraint(
                condition=models.Q(ended_at__isnull=True) | models.Q(ended_at__gte=models.F("started_at")),
                name="segment_ends_after_start",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["session_id"], name="segment_by_session"),
            models.Index(fields=["rental_id"], name="segment_by_rental"),
            models.Index(fields=["consumer", "started_at"], name="segment_by_consumer"),
            models.Index(fields=["started_at"], name="segment_by_start"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.rental_id} from {self.started_at:%Y-%m-%d %H:%M:%S}"
