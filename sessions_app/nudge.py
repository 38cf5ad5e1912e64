"""Tasks are nudges: sent after commit, by id, and lost without harm, because the row itself is due."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

from sessions_app.models import Rental

log = logging.getLogger(__name__)

#: For the sessions of one tick.
MOST_TASKS = 20


def _send(task: str, *args: Any, expires: float | None = None) -> None:
    try:
        current_app.send_task(task, args=args, expires=expires)
    except (OperationalError, OSError) as error:
        # The scheduler finds the row by its due time once the queue is back.
        log.warning("queue not reachable, %s waits for the next tick: %s", task, type(error).__name__)


def after_commit(task: str, *args: Any) -> None:
    transaction.on_commit(lambda: _send(task, *args))


def session(session_id: str) -> None:
    """The task claims the row, or leaves it to whoever has: a nudge and a tick do not do the same twice."""
    after_commit("sessions_app.tasks.drive_session", session_id)


def claimed_sessions(session_ids: Sequence[str]) -> None:
    """Sessions whose leases the sender holds: each in a task of its own while they are few, else in a few tasks."""
    size = max(len(session_ids) // MOST_TASKS, 1)
    for start in range(0, len(session_ids), size):
        after_commit("sessions_app.tasks.drive_sessions", list(session_ids[start : start + size]))


def rental(rental_id: uuid.UUID) -> None:
    after_commit("sessions_app.tasks.drive_rental", str(rental_id))


def destroy(rental: Rental) -> None:
    debts(rental.provider, [rental.id])


def destroys(rentals: Iterable[Rental]) -> None:
    """One task for each provider, as it has one limit for all of them."""
    by_provider: dict[str, list[uuid.UUID]] = {}
    for rental in rentals:
        by_provider.setdefault(rental.provider, []).append(rental.id)
    for provider, rental_ids in by_provider.items():
        debts(provider, rental_ids)


def debts(provider: str, rental_ids: Iterable[uuid.UUID], *, claimed: bool = False) -> None:
    """Rentals of one provider that are owed to it. ``claimed``: the sender holds their leases; otherwise the task
    takes those that nobody has."""
    after_commit("sessions_app.tasks.drive_debts", provider, [str(rental_id) for rental_id in rental_ids], claimed)


def watch(session_id: str) -> None:
    # It is handed on anew when its lease is over: a queue that was stuck must not hold it twice.
    transaction.on_commit(lambda: _send("sessions_app.tasks.watch", session_id, expires=60))


def tick() -> None:
    """Many rows have just become due: let the driver take them in hand now."""
    after_commit("sessions_app.tasks.tick")


def peek(provider: str) -> None:
    # The next one is due in seconds.
    transaction.on_commit(lambda: _send("sessions_app.tasks.peek", provider, expires=10))


def sweep(provider: str) -> None:
    after_commit("sessions_app.tasks.sweep", provider)
