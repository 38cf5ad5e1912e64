"""Celery shells over ids. Whatever is lost here is found again by its due time."""

from __future__ import annotations

import uuid

from celery import shared_task

from gpubroker.common import logs
from sessions_app import drive
from sessions_app import sweep as sweeping


@shared_task(name="sessions_app.tasks.tick", ignore_result=True)
def tick() -> None:
    drive.tick()


@shared_task(name="sessions_app.tasks.drive_session", ignore_result=True)
def drive_session(session_id: str) -> None:
    with logs.context(session_id=session_id):
        drive.drive_session(session_id)


@shared_task(name="sessions_app.tasks.drive_rental", ignore_result=True)
def drive_rental(rental_id: str) -> None:
    with logs.context(rental_id=rental_id):
        drive.drive_rental(uuid.UUID(rental_id))


@shared_task(name="sessions_app.tasks.drive_destroy", ignore_result=True)
def drive_destroy(rental_id: str) -> None:
    with logs.context(rental_id=rental_id):
        drive.drive_rental(uuid.UUID(rental_id))


@shared_task(name="sessions_app.tasks.sweep", ignore_result=True)
def sweep(provider: str) -> None:
    sweeping.sweep(provider)
