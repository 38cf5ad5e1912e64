"""Celery shells. What is lost here is found again by its due time."""

from __future__ import annotations

from celery import shared_task

from billing import deliver as delivering


@shared_task(name="billing.tasks.deliver", ignore_result=True)
def deliver() -> None:
    delivering.drain()


@shared_task(name="billing.tasks.purge_webhooks", ignore_result=True)
def purge_webhooks() -> None:
    delivering.purge()
