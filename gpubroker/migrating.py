"""Bring the database schema up to date, one process at a time however many start together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from gpubroker.common import clock

#: Of PostgreSQL's advisory locks: any number that nobody else uses in this database.
LOCK = 0x677062726F6B  # "gpbrok"
LOOK_EVERY_SECONDS = 0.2


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other process migrates; PostgreSQL lets go of the lock when its holder's connection ends.

    It is asked for again and again, never waited for: a statement that waits holds a snapshot, and an index that
    the holder builds ``CONCURRENTLY`` would wait for that. SQLite has one writer at a time anyway, on one machine.
    """
    if connection.vendor != "postgresql":
        yield
        return
    while not _asked("SELECT pg_try_advisory_lock(%s)"):
        clock.pause(LOOK_EVERY_SECONDS)
    try:
        yield
    finally:
        _asked("SELECT pg_advisory_unlock(%s)")


def _asked(question: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(question, [LOCK])
        row = cursor.fetchone()
    return bool(row and row[0])


def migrate(*, skip_checks: bool = False) -> None:
    """Apply what is missing. Where nothing is, skip the command, whose checks and signals take seconds."""
    with one_at_a_time():
        # Asked again with the lock held: whoever had it before may have done all of it.
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", interactive=False, verbosity=1, skip_checks=skip_checks)
