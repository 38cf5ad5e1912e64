"""Tasks are nudges: sent after commit, by id, and lost without harm, because the row itself is due."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)


def _send(task: str, *args: Any) -> None:
    try:
        current_app.send_task(task, args=args)
    except (OperationalError, OSError) as error:
        # The scheduler finds the row by its due time once the queue is back.
        log.warning("queue not reachable, %s waits for the next tick: %s", task, type(error).__name__)


def after_commit(task: str, *args: Any) -> None:
    transaction.on_commit(lambda: _send(task, *args))


def session(session_id: str) -> None:
    after_commit("sessions_app.tasks.drive_session", session_id)


def rental(rental_id: uuid.UUID) -> None:
    after_commit("sessions_app.tasks.drive_rental", str(rental_id))


def destroy(rental_id: uuid.UUID) -> None:
    after_commit("sessions_app.tasks.drive_destroy", str(rental_id))


def sweep(provider: str) -> None:
    after_commit("sessions_app.tasks.sweep", provider)
