"""Launch templates as the provider has them."""

from __future__ import annotations

from django.db import models


class Template(models.Model):
    """One of Vast.ai's launch templates. An edit at the provider keeps ``provider_id`` and changes ``hash_id``."""

    hash_id = models.CharField(max_length=64, primary_key=True)
    provider = models.CharField(max_length=32)
    provider_id = models.BigIntegerField()
    name = models.CharField(max_length=256)
    image = models.CharField(max_length=512)
    raw = models.JSONField(default=dict, help_text="The vendor's row")
    synced_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class TemplateSync(models.Model):
    """When a provider's templates were last fetched, and when to ask again."""

    provider = models.CharField(max_length=32, primary_key=True)
    next_sync_at = models.DateTimeField()
    last_success_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=300, blank=True)

    def __str__(self) -> str:
        return self.provider
