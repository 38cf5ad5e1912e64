"""What providers tell of their own books: the account's balance, its charges, and where these differ from ours."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class ProviderBalance(models.Model):
    """What one provider account could still spend when it was last asked; dollars. :mod:`billing.balance` writes it."""

    provider = models.CharField(max_length=32, primary_key=True)
    #: Null: it has not been told yet. Below zero: in debt.
    credit = models.DecimalField(max_digits=18, decimal_places=6, null=True)
    currency = models.CharField(max_length=8, default="USD")
    read_at = models.DateTimeField(null=True, help_text="When the credit was told")
    next_read_at = models.DateTimeField()
    offered = models.BooleanField(default=True, help_text="Off: this provider does not tell its balance")
    error = models.CharField(max_length=300, blank=True, help_text="Of the last try; empty: it went well")
    failures_in_a_row = models.PositiveIntegerField(default=0)
    #: Since when the runway is short, and what the credit was then; null: it is not, or is not known to be.
    low_since = models.DateTimeField(null=True)
    low_credit = models.DecimalField(max_digits=18, decimal_places=6, null=True)

    def __str__(self) -> str:
        return self.provider


class ChargeFetch(models.Model):
    """How far one provider's charges have been fetched: day by day, one call or listing at a time."""

    provider = models.CharField(max_length=32, primary_key=True)
    next_at = models.DateTimeField()
    #: The present run: its first day, and the day that is fetched next; null: none is under way.
    first_day = models.DateField(null=True)
    day = models.DateField(null=True)
    #: Every charge from then on has been asked for, up to ``covered_until``.
    covered_from = models.DateField(null=True)
    covered_until = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True, help_text="When charges were last complete and compared")
    offered = models.BooleanField(default=True, help_text="Off: this provider does not tell its charges")
    error = models.CharField(max_length=300, blank=True, help_text="Of the last try; empty: it went well")
    failures_in_a_row = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name_plural = "charge fetches"

    def __str__(self) -> str:
        return self.provider


class ProviderCharge(models.Model):
    """What one machine cost within one UTC day (or as the vendor cuts it), by the vendor's account; dollars.

    A day is fetched more than once, because charges come late: the same charge (source and beginning) is updated.
    """

    provider = models.CharField(max_length=32)
    #: ``<source>:<epoch second at which it begins>``
    key = models.CharField(max_length=128)
    source = models.CharField(max_length=96)
    instance_id = models.CharField(max_length=96, blank=True)
    label = models.CharField(max_length=64, blank=True)
    description = models.CharField(max_length=200, blank=True)
    starts_at = models.DateTimeField(null=True)
    ends_at = models.DateTimeField(null=True)
    amount = models.DecimalField(max_digits=18, decimal_places=6)
    #: The part of the amount that is traffic, which no meter of ours sees before it is billed.
    traffic = models.DecimalField(max_digits=18, decimal_places=6, default=0)
    #: What of it stands on the meter, and in which hour (:mod:`billing.traffic`).
    traffic_booked = models.DecimalField(max_digits=18, decimal_places=6, default=0, db_default=0)
    traffic_hour = models.DateTimeField(null=True)
    #: The rental in sessions_app that it is for, where one is known.
    rental_id = models.UUIDField(null=True)
    fetched_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["provider", "key"], name="provider_charge_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["provider", "starts_at"], name="provider_charge_by_start"),
            models.Index(fields=["rental_id"], name="provider_charge_by_rental"),
            models.Index(
                fields=["provider", "fetched_at"],
                name="provider_charge_unmatched",
                condition=models.Q(rental_id__isnull=True),
            ),
            models.Index(
                fields=["provider", "source"],
                name="provider_charge_nobodys",
                condition=models.Q(rental_id__isnull=True),
            ),
            models.Index(
                fields=["provider"],
                name="provider_charge_traffic",
                condition=models.Q(rental_id__isnull=False) & ~models.Q(traffic=models.F("traffic_booked")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.key}"


class BillFinding(models.Model):
    """Where the provider's charges and our books do not agree. Found by :mod:`billing.matching`, judged by people."""

    class Kind(models.TextChoices):
        DIFFERENCE = "difference", "another amount than ours"
        UNOWNED = "unowned", "a charge without a rental"
        MISSING = "missing", "a rental without a charge"

    class State(models.TextChoices):
        OPEN = "open", "nobody has looked at it yet"
        EXPLAINED = "explained", "somebody knows why; opens again when the amounts drift further apart"
        IGNORED = "ignored", "for good"
        SETTLED = "settled", "the books agree by now"

    provider = models.CharField(max_length=32)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    #: The rental's id; of a charge without a rental, its source.
    subject = models.CharField(max_length=96)
    state = models.CharField(max_length=12, choices=State.choices, default=State.OPEN)
    rental_id = models.UUIDField(null=True)
    session_id = models.CharField(max_length=32, blank=True)
    instance_id = models.CharField(max_length=96, blank=True)
    label = models.CharField(max_length=64, blank=True)
    why = models.CharField(max_length=200, blank=True)
    #: Dollars of GPU and disk over the same time.
    ours = models.DecimalField(max_digits=18, decimal_places=6)
    theirs = models.DecimalField(max_digits=18, decimal_places=6)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    #: ``staff:<user>`` or ``broker``, when, and how far apart the amounts were then.
    decided_by = models.CharField(max_length=160, blank=True)
    decided_at = models.DateTimeField(null=True)
    decided_gap = models.DecimalField(max_digits=18, decimal_places=6, null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["provider", "kind", "subject"], name="bill_finding_once"),
            models.CheckConstraint(
                condition=models.Q(state__in=["open", "settled"], decided_at__isnull=True)
                | models.Q(state__in=["explained", "ignored"], decided_at__isnull=False, decided_gap__isnull=False),
                name="bill_finding_decided_by_somebody",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["state", "provider"], name="bill_finding_by_state"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.provider} {self.subject}"
