"""Celery shells of the inventory: what is due is in the rows, a lost task is only late."""

from __future__ import annotations

from celery import shared_task

from offers import services


@shared_task(name="offers.tasks.refresh_due", ignore_result=True)
def refresh_due() -> None:
    for name in services.claim_due_fetches():
        refresh.delay(name)


@shared_task(name="offers.tasks.refresh", ignore_result=True)
def refresh(name: str) -> None:
    services.refresh(name)
