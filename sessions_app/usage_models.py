"""How busy machines were, kept for as long as the books: a few numbers per session and hour, made from samples."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class UsageHour(models.Model):
    """One session within one UTC hour: the seconds that samples tell of, and how many of them were idle."""

    session = models.ForeignKey("sessions_app.Session", on_delete=models.CASCADE, related_name="usage")
    hour = models.DateTimeField()
    known_seconds = models.PositiveIntegerField(default=0)
    idle_seconds = models.PositiveIntegerField(default=0)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["session", "hour"], name="usage_hour_once"),
            models.CheckConstraint(
                condition=models.Q(idle_seconds__lte=models.F("known_seconds")), name="usage_idle_is_known"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["hour"], name="usage_by_hour")]

    def __str__(self) -> str:
        return f"{self.session_id} {self.hour:%Y-%m-%d %H}:00"
