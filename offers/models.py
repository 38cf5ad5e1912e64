"""The inventory: what can be rented, as last seen at each provider."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from offers.price_models import OfferPrice as OfferPrice


class Offer(models.Model):
    """One rentable machine slice. Rows are never deleted: an offer that is no longer listed is withdrawn."""

    #: ``<provider>-<provider_id>``, e.g. ``vastai-12345``: what the API calls the offer's id.
    id = models.CharField(max_length=128, primary_key=True)
    provider = models.CharField(max_length=32)
    provider_id = models.CharField(max_length=96)
    gpu_type = models.CharField(max_length=64)
    #: ``gpu_type`` without case and spaces: what the ``gpu_type`` filter compares.
    gpu_key = models.CharField(max_length=64)
    gpu_name_raw = models.CharField(max_length=128)
    gpu_count = models.PositiveSmallIntegerField()
    vram_gb = models.PositiveIntegerField(help_text="Nominal, per GPU")
    vram_mb = models.PositiveIntegerField(help_text="As the vendor reports it, per GPU")
    price_per_hour = models.DecimalField(max_digits=12, decimal_places=6)
    storage_price_per_gb_month = models.DecimalField(max_digits=12, decimal_places=6)
    min_bid_per_hour = models.DecimalField(max_digits=12, decimal_places=6, null=True)
    location = models.CharField(max_length=128)
    reliability = models.DecimalField(max_digits=7, decimal_places=6, null=True)
    max_duration_hours = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    cuda_version = models.DecimalField(max_digits=5, decimal_places=2, null=True)
    compute_capability = models.CharField(max_length=16, blank=True)
    cpu_cores = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    ram_gb = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    disk_gb = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    inet_down_mbps = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    inet_up_mbps = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    verified = models.BooleanField(default=False)
    datacenter = models.BooleanField(default=False)
    #: Bids are taken on it: see :mod:`offers.bids`.
    interruptible = models.BooleanField(default=False)
    machine_id = models.CharField(max_length=64, blank=True)
    host_id = models.CharField(max_length=64, blank=True)
    raw = models.JSONField(default=dict, help_text="The vendor's row")
    #: Of what in ``raw`` stays the same from fetch to fetch: see ``services.STEADY``.
    raw_digest = models.CharField(max_length=16, blank=True)
    first_seen_at = models.DateTimeField()
    #: When the provider was asked and still listed it.
    fetched_at = models.DateTimeField()
    withdrawn_at = models.DateTimeField(null=True)
    withdrawn_reason = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["provider", "provider_id"], name="offer_once_per_provider"),
            models.CheckConstraint(condition=models.Q(price_per_hour__gte=0), name="offer_price_not_negative"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["price_per_hour", "id"],
                name="offer_listed_by_price",
                condition=models.Q(withdrawn_at__isnull=True),
            ),
            models.Index(
                fields=["gpu_key", "price_per_hour"],
                name="offer_listed_by_gpu",
                condition=models.Q(withdrawn_at__isnull=True),
            ),
            models.Index(fields=["provider"], name="offer_listed", condition=models.Q(withdrawn_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def available(self) -> bool:
        return self.withdrawn_at is None


class ProviderInventory(models.Model):
    """What is known of one provider's listing as a whole, and when to ask again."""

    provider = models.CharField(max_length=32, primary_key=True)
    #: Grows with every applied listing and withdrawal: caches of rendered answers hang on it.
    version = models.PositiveBigIntegerField(default=0)
    next_fetch_at = models.DateTimeField()
    #: When to look anew on which offers bids are taken; null: never looked.
    next_bids_at = models.DateTimeField(null=True)
    last_success_at = models.DateTimeField(null=True)
    last_failure_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=300, blank=True)
    failures_in_a_row = models.PositiveIntegerField(default=0)
    #: Implausible listings in a row: believed in the end, see ``COLLAPSE_PATIENCE``.
    refusals_in_a_row = models.PositiveIntegerField(default=0)
    offer_count = models.PositiveIntegerField(default=0)
    #: Since when nothing new is rented there, why, and who said so; null: it is. See ``sessions_app.maintenance``.
    maintenance_since = models.DateTimeField(null=True)
    maintenance_reason = models.CharField(max_length=300, blank=True)
    maintenance_by = models.CharField(max_length=160, blank=True)

    class Meta:
        verbose_name_plural = "provider inventories"

    def __str__(self) -> str:
        return self.provider


class FetchRun(models.Model):
    """One attempt to fetch a provider's offers: the history behind the inventory's freshness."""

    class Outcome(models.TextChoices):
        APPLIED = "applied"
        REFUSED = "refused", "refused as implausible"
        FAILED = "failed"

    provider = models.CharField(max_length=32)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    outcome = models.CharField(max_length=16, choices=Outcome.choices)
    listed = models.PositiveIntegerField(default=0)
    added = models.PositiveIntegerField(default=0)
    changed = models.PositiveIntegerField(default=0)
    withdrawn = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["provider", "-started_at"], name="fetch_newest")]

    def __str__(self) -> str:
        return f"{self.provider} {self.started_at:%Y-%m-%d %H:%M:%S} {self.outcome}"


class OfferFailure(models.Model):
    """An attempt to rent that came to nothing, for a reason that speaks of the machine or offer."""

    provider = models.CharField(max_length=32)
    #: Ours, e.g. ``vastai-12345``; no foreign key, so that the memory outlives whatever happens to the offer.
    offer_id = models.CharField(max_length=128)
    machine_id = models.CharField(max_length=64, blank=True, help_text="Empty where the vendor names none")
    gpu_type = models.CharField(max_length=64)
    reason = models.CharField(max_length=32)
    message = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField()

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["at"], name="offer_failure_by_time"),
            models.Index(fields=["provider", "machine_id", "at"], name="offer_failure_of_machine"),
        ]

    def __str__(self) -> str:
        return f"{self.offer_id} {self.reason}"


class OfferSuccess(models.Model):
    """An attempt to rent that came to a running machine: what failures of its GPU type are held against."""

    provider = models.CharField(max_length=32)
    offer_id = models.CharField(max_length=128)
    machine_id = models.CharField(max_length=64, blank=True)
    gpu_type = models.CharField(max_length=64)
    at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "offer successes"
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["at"], name="offer_success_by_time")]

    def __str__(self) -> str:
        return self.offer_id
