"""Celery shells of the inventory: what is due is in the rows, a lost task is only late."""

from __future__ import annotations

import logging

from celery import shared_task
from kombu.exceptions import OperationalError as QueueAway

from gpubroker.common.outlast import AWAY, patiently
from offers import services

log = logging.getLogger(__name__)


@shared_task(name="offers.tasks.refresh_due", ignore_result=True)
def refresh_due() -> None:
    for name in services.claim_due_fetches():
        try:
            refresh.delay(name)
        except (QueueAway, OSError) as error:
            log.warning("queue not reachable, %s waits for the next look: %s", name, type(error).__name__)
            services.due_now(name)


@shared_task(name="offers.tasks.refresh", ignore_result=True)
def refresh(name: str) -> None:
    try:
        services.refresh(name)
    except AWAY:
        log.warning("offers of %s are asked for again when the database is back", name)
        patiently(lambda: services.due_now(name))
