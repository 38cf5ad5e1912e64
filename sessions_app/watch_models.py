"""What the sweep knows of a provider's account: when it looked, what it holds, and machines that are in no book."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class ProviderWatch(models.Model):
    """How one provider's machines are watched. Every complete listing is a sweep: quick while something boots,
    slow while something runs, and at least every ``RECONCILE_SECONDS``."""

    provider = models.CharField(max_length=32, primary_key=True)
    next_sweep_at = models.DateTimeField()
    #: Until then a listing counts as under way, and nobody begins another; put off while it goes on.
    listing_until = models.DateTimeField(null=True)
    #: When the youngest machines may be looked at again, where a listing takes long (:mod:`sessions_app.peek`).
    next_peek_at = models.DateTimeField(null=True)
    last_sweep_at = models.DateTimeField(null=True, help_text="When the last complete listing was compared")
    last_error = models.CharField(max_length=300, blank=True)
    failures_in_a_row = models.PositiveIntegerField(default=0)
    #: Machines on the account at the last complete listing: ours, and all.
    ours = models.PositiveIntegerField(default=0)
    machines = models.PositiveIntegerField(default=0)
    #: Set when a sweep would have ended too much and asks a person; cleared by one.
    held_reason = models.CharField(max_length=300, blank=True)
    held_at = models.DateTimeField(null=True)
    #: What the held pass would have ended: ``{"ends": [...], "orphans": [...]}``, for the person who decides.
    held_details = models.JSONField(default=dict)
    #: When a person said that it is right to hold it, and who; null: nobody has.
    held_known_at = models.DateTimeField(null=True)
    held_known_by = models.CharField(max_length=160, blank=True)
    #: Until then a person has allowed what was held.
    released_until = models.DateTimeField(null=True)
    released_by = models.CharField(max_length=160, blank=True)

    class Meta:
        verbose_name_plural = "provider watches"

    def __str__(self) -> str:
        return self.provider


class SeenOrphan(models.Model):
    """A machine with our label that no open rental knows: since when, so that its grace can run out."""

    class Decision(models.TextChoices):
        NONE = "", "destroyed when its grace is over"
        DESTROY = "destroy", "to be destroyed now"
        LEAVE = "leave", "left alone"

    provider = models.CharField(max_length=32)
    instance_id = models.CharField(max_length=96)
    label = models.CharField(max_length=64)
    first_seen_at = models.DateTimeField()
    #: A person's word on it, by whom and when.
    decision = models.CharField(max_length=8, choices=Decision.choices, default=Decision.NONE, blank=True)
    decided_by = models.CharField(max_length=160, blank=True)
    decided_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["provider", "instance_id"], name="orphan_seen_once"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.instance_id}"


class UnknownMachine(models.Model):
    """A machine on an account of ours with no label of any GPU broker: reported, never touched (I4)."""

    provider = models.CharField(max_length=32)
    instance_id = models.CharField(max_length=96)
    label = models.CharField(max_length=200, blank=True, help_text="As it is at the provider")
    first_seen_at = models.DateTimeField()
    #: When a person said that it is known, and who; null: nobody has.
    known_at = models.DateTimeField(null=True)
    known_by = models.CharField(max_length=160, blank=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["provider", "instance_id"], name="unknown_machine_once"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.instance_id}"
