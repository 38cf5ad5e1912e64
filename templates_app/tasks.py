"""Celery shells of the template sync."""

from __future__ import annotations

from celery import shared_task

from templates_app import services


@shared_task(name="templates_app.tasks.sync_due", ignore_result=True)
def sync_due() -> None:
    for name in services.claim_due():
        services.sync(name)
