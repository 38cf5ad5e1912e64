"""Keeps the templates in step with the provider's."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import transaction

from gpubroker.common import clock
from gpubroker.common import providers as configured
from providers.errors import ProviderError
from templates_app.models import Template, TemplateSync

log = logging.getLogger(__name__)
SYNC_EVERY = timedelta(minutes=30)
RETRY_AFTER = timedelta(minutes=2)
LEASE = timedelta(minutes=3)


def claim_due() -> list[str]:
    """Providers with templates whose sync is due, each claimed by an atomic update."""
    now = clock.now()
    names = [name for name, provider in configured.configured().items() if provider.capabilities.templates]
    known = set(TemplateSync.objects.filter(provider__in=names).values_list("provider", flat=True))
    TemplateSync.objects.bulk_create(
        [TemplateSync(provider=name, next_sync_at=now) for name in names if name not in known], ignore_conflicts=True
    )
    due = TemplateSync.objects.filter(next_sync_at__lte=now)
    return [name for name in names if due.filter(provider=name).update(next_sync_at=now + LEASE)]


def sync(name: str) -> int | None:
    """Fetch and apply; ``None`` when the provider failed, and then nothing has changed."""
    try:
        rows = configured.get(name).list_templates()
    except ProviderError as error:
        log.warning("templates not synced, %s", error)
        TemplateSync.objects.filter(provider=name).update(
            last_error=str(error)[:300], next_sync_at=clock.now() + RETRY_AFTER
        )
        return None
    now = clock.now()
    with transaction.atomic():
        Template.objects.bulk_create(
            [
                Template(
                    hash_id=row.hash_id, provider=name, provider_id=row.provider_id, name=row.name[:256],
                    image=row.image[:512], raw=dict(row.raw), synced_at=now,
                )
                for row in {row.hash_id: row for row in rows}.values()
            ],
            update_conflicts=True, unique_fields=["hash_id"],
            update_fields=["provider", "provider_id", "name", "image", "raw", "synced_at"],
        )  # fmt: skip
        Template.objects.filter(provider=name, synced_at__lt=now).delete()
        TemplateSync.objects.filter(provider=name).update(
            last_success_at=now, last_error="", next_sync_at=now + SYNC_EVERY
        )
    return len(rows)
