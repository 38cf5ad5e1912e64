"""Keeps the templates in step with the provider's."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Case, Value, When

from gpubroker.common import clock
from gpubroker.common import providers as configured
from providers.errors import ProviderError
from templates_app.models import Template, TemplateSync

log = logging.getLogger(__name__)
SYNC_EVERY = timedelta(minutes=30)
RETRY_AFTER = timedelta(minutes=2)
#: While there has never been a list: a new deployment is not to be without templates because of one bad moment.
FIRST_RETRY = timedelta(seconds=10)
LEASE = timedelta(minutes=3)
#: A list with fewer than this share of the templates that we have is believed only the second time in a row ...
COLLAPSE_SHARE = 0.3
#: ... unless there were too few to tell. An empty list is never believed the first time.
COLLAPSE_FLOOR = 10
COLLAPSED = "not believed yet: "


def _ensured(now: datetime) -> list[str]:
    """The configured providers that have templates, each with its row."""
    names = [name for name, provider in configured.configured().items() if provider.capabilities.templates]
    known = set(TemplateSync.objects.filter(provider__in=names).values_list("provider", flat=True))
    TemplateSync.objects.bulk_create(
        [TemplateSync(provider=name, next_sync_at=now) for name in names if name not in known], ignore_conflicts=True
    )
    return names


def ask() -> list[str]:
    """Somebody wants the templates now: all of them are due. Of which providers."""
    now = clock.now()
    names = _ensured(now)
    TemplateSync.objects.filter(provider__in=names).update(next_sync_at=now)
    return names


def claim_due() -> list[str]:
    """Providers with templates whose sync is due, each claimed by an atomic update."""
    now = clock.now()
    names = _ensured(now)
    due = TemplateSync.objects.filter(next_sync_at__lte=now)
    return [name for name in names if due.filter(provider=name).update(next_sync_at=now + LEASE)]


def sync(name: str) -> int | None:
    """Fetch and apply; ``None`` when the provider failed or cannot be believed, and then no template has changed."""
    try:
        rows = configured.get(name).list_templates()
    except ProviderError as error:
        _refused(name, str(error))
        return None
    if (reason := _collapsed(name, len(rows))) is not None:
        _refused(name, reason)
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
        # Also the row that an edit left behind: the provider's id came back under another hash.
        Template.objects.filter(provider=name).exclude(synced_at=now).delete()
        TemplateSync.objects.filter(provider=name).update(
            last_success_at=now, last_error="", next_sync_at=now + SYNC_EVERY
        )
    return len(rows)


def _refused(name: str, reason: str) -> None:
    log.warning("templates not synced, %s", reason)
    now, mine = clock.now(), TemplateSync.objects.filter(provider=name)
    pause = Case(When(last_success_at=None, then=Value(now + FIRST_RETRY)), default=Value(now + RETRY_AFTER))
    mine.update(last_error=reason[:300], next_sync_at=pause)


def _collapsed(name: str, listed: int) -> str | None:
    """Why a list is not believed: most of what we have is missing, and it is the first time in a row."""
    before = Template.objects.filter(provider=name).count()
    if listed >= before * COLLAPSE_SHARE or (before < COLLAPSE_FLOOR and listed):
        return None
    if TemplateSync.objects.filter(provider=name, last_error__startswith=COLLAPSED).exists():
        return None
    return f"{COLLAPSED}{listed} templates where there were {before}"
