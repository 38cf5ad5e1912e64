"""Celery shells over ids. Whatever is lost here is found again by its due time."""

from __future__ import annotations

import logging
import uuid

from celery import shared_task

from billing import charges
from gpubroker.common import logs
from gpubroker.common.outlast import AWAY, patiently
from sessions_app import boot, budget_watch, charge_matching, claims, drive, reap
from sessions_app import peek as peeking
from sessions_app import sweep as sweeping
from sessions_app import watch as watching

log = logging.getLogger(__name__)


@shared_task(name="sessions_app.tasks.tick", ignore_result=True)
def tick() -> None:
    drive.tick()


@shared_task(name="sessions_app.tasks.drive_session", ignore_result=True)
def drive_session(session_id: str) -> None:
    if claims.take_session(session_id):
        _drive(session_id)
    _drive_waiting()


@shared_task(name="sessions_app.tasks.drive_sessions", ignore_result=True)
def drive_sessions(session_ids: list[str]) -> None:
    """Whose leases the sender holds. They stand in line, so that one slow machine does not keep the others waiting."""
    boot.line.queue(session_ids)
    _drive_waiting()


def _drive_waiting() -> None:
    """Whoever finds no room to verify waits in line, and goes on in the thread that has just become free."""
    while (session_id := boot.line.next()) is not None:
        _drive(session_id)


def _drive(session_id: str) -> None:
    try:
        with logs.context(session_id=session_id):
            drive.drive_session(session_id)
    except AWAY:
        log.warning("session %s goes on when the database is back", session_id)
        patiently(lambda: claims.give_back_session(session_id))
    except Exception:  # told; its lease ends, and the others in line are not to suffer
        log.exception("session %s cannot be driven", session_id)


@shared_task(name="sessions_app.tasks.drive_rental", ignore_result=True)
def drive_rental(rental_id: str) -> None:
    mine = uuid.UUID(rental_id)
    with logs.context(rental_id=rental_id):
        try:
            drive.drive_rental(mine)
        except AWAY:
            log.warning("it goes on when the database is back")
            patiently(lambda: claims.give_back_rental(mine))


@shared_task(name="sessions_app.tasks.drive_debts", ignore_result=True)
def drive_debts(provider: str, rental_ids: list[str], claimed: bool = False) -> None:
    ids = [uuid.UUID(rental_id) for rental_id in rental_ids]
    reap.pay_all(provider, ids if claimed else claims.take_rentals(ids))


@shared_task(name="sessions_app.tasks.watch", ignore_result=True)
def watch(session_id: str) -> None:
    with logs.context(session_id=session_id):
        watching.look(session_id)


@shared_task(name="sessions_app.tasks.sweep", ignore_result=True)
def sweep(provider: str) -> None:
    try:
        sweeping.sweep(provider)
    except AWAY:
        log.warning("%s is listed again when the database is back", provider)
        patiently(lambda: sweeping.give_back(provider))


@shared_task(name="sessions_app.tasks.peek", ignore_result=True)
def peek(provider: str) -> None:
    try:
        peeking.look(provider)
    except AWAY:
        log.warning("the youngest machines of %s are looked at when the database is back", provider)


@shared_task(name="sessions_app.tasks.fetch_charges", ignore_result=True)
def fetch_charges() -> None:
    for name in charges.claim_due():
        fetch_charges_of.delay(name)


@shared_task(name="sessions_app.tasks.fetch_charges_of", ignore_result=True)
def fetch_charges_of(name: str) -> None:
    charge_matching.step(name)


@shared_task(name="sessions_app.tasks.budgets", ignore_result=True)
def budgets() -> None:
    budget_watch.look_due()
