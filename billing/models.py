"""Who pays, and what for."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from billing.budget_models import Budget as Budget
from billing.budget_models import BudgetPeriod as BudgetPeriod
from billing.budget_models import Reservation as Reservation
from billing.ledger_models import LedgerDay as LedgerDay
from billing.ledger_models import LedgerRow as LedgerRow
from billing.ledger_models import MeterChange as MeterChange
from billing.provider_books_models import BillFinding as BillFinding
from billing.provider_books_models import ChargeFetch as ChargeFetch
from billing.provider_books_models import ProviderBalance as ProviderBalance
from billing.provider_books_models import ProviderCharge as ProviderCharge
from billing.webhook_models import WebhookDelivery as WebhookDelivery
from billing.webhook_models import WebhookEndpoint as WebhookEndpoint
from billing.webhook_models import WebhookMessage as WebhookMessage
from gpubroker.common import clock
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
    :mod:`billing.ledger` books it into ledger rows by the hour; ``booked_from`` and ``booked_to`` say how much of it
    stands there, whatever has become of ``started_at`` and ``ended_at`` since.
    """

    class Kind(models.TextChoices):
        GPU = "gpu"
        DISK = "disk"
        #: Traffic, which providers bill by volume: one hour at a rate that makes the amount billed.
        BANDWIDTH = "bandwidth"

    rental_id = models.UUIDField()
    session_id = models.CharField(max_length=32, blank=True)
    consumer = models.ForeignKey(Consumer, on_delete=models.PROTECT, null=True, related_name="segments")
    provider = models.CharField(max_length=32)
    gpu_type = models.CharField(max_length=64)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    rate_per_hour = models.DecimalField(max_digits=14, decimal_places=8)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    #: The machine came to nothing before its session ran.
    failed_attempt = models.BooleanField(default=False, db_default=False)
    #: The disk of a stopped machine, kept beyond its session.
    preserved = models.BooleanField(default=False, db_default=False)
    booked_from = models.DateTimeField(null=True)
    booked_to = models.DateTimeField(null=True)
    #: When the ledger must look at it again (:data:`billing.ledger.HOURLY`: not before the meter changes, as it is
    #: booked by the hour); null: it has ended, and all of it is booked.
    book_at = models.DateTimeField(null=True, default=clock.now, db_default=Now())

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
            models.CheckConstraint(
                condition=models.Q(booked_from__isnull=True, booked_to__isnull=True)
                | models.Q(booked_from__lt=models.F("booked_to")),
                name="segment_booked_both_or_neither",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["session_id"], name="segment_by_session"),
            models.Index(fields=["rental_id"], name="segment_by_rental"),
            models.Index(fields=["consumer", "started_at"], name="segment_by_consumer"),
            models.Index(fields=["started_at"], name="segment_by_start"),
            models.Index(fields=["book_at"], name="segment_to_book", condition=models.Q(book_at__isnull=False)),
            models.Index(fields=["consumer"], name="segment_tail", condition=models.Q(book_at__isnull=False)),
            # What runs at a provider costs so much: read at every create and every scrape.
            models.Index(
                fields=["provider", "kind", "rate_per_hour"],
                name="segment_running",
                condition=models.Q(ended_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.rental_id} from {self.started_at:%Y-%m-%d %H:%M:%S}"
