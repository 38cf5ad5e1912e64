"""Who pays, and what for."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models

from billing.webhook_models import WebhookDelivery as WebhookDelivery
from billing.webhook_models import WebhookEndpoint as WebhookEndpoint
from billing.webhook_models import WebhookMessage as WebhookMessage
from gpubroker.common.principal import READ, SPEND, STAFF

#: What a key may hold, as it is stored. Staff implies the others and stands alone.
SCOPE_LISTS = (READ, SPEND, f"{READ},{SPEND}", STAFF)


class Consumer(models.Model):
    """Who asks for sessions and pays for them; made at first use under the name that the caller gave."""

    name = models.CharField(max_length=128, unique=True)
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """One key to the API. Only the hash of it is kept: the key itself is shown once, when it is made.

    A key belongs to a consumer and sees only that consumer's things; a staff key belongs to nobody and sees all.
    """

    #: ``gpb_`` and 8 characters: the visible start of the key, by which people and logs name it.
    prefix = models.CharField(max_length=16, unique=True)
    #: SHA-256 of the whole key, in hexadecimal. The key holds 200 random bits, so no slow hash is needed.
    digest = models.CharField(max_length=64)
    consumer = models.ForeignKey(Consumer, on_delete=models.PROTECT, null=True, related_name="keys")
    name = models.CharField(max_length=100, blank=True)
    scopes = models.CharField(max_length=32, choices=[(scopes, scopes) for scopes in SCOPE_LISTS])
    created_at = models.DateTimeField()
    #: Who made it: ``command``, ``first run``, ``admin:<user>`` or ``staff:<prefix>``.
    created_by = models.CharField(max_length=160)
    #: Null: never.
    expires_at = models.DateTimeField(null=True)
    #: To the minute; later uses within a minute are not written.
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    #: The key that this one was made to replace.
    rotated_from = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="successors")

    class Meta:
        verbose_name = "API key"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(scopes__in=SCOPE_LISTS), name="apikey_scopes_known"),
            models.CheckConstraint(
                condition=models.Q(scopes=STAFF, consumer__isnull=True)
                | models.Q(~models.Q(scopes=STAFF), consumer__isnull=False),
                name="apikey_staff_or_consumer",
            ),
        ]

    def __str__(self) -> str:
        return self.prefix

    @property
    def scope_set(self) -> frozenset[str]:
        return frozenset(self.scopes.split(","))

    def state(self, now: datetime) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


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
