"""Counts of what happens often: gathered in memory, and added to the shared counters every few seconds by a thread.

Whoever counts waits for nothing but a lock of this process. Each process adds its own amounts to the same rows, all in
one statement, so the sums are right whatever process or machine is asked (docs/adr/0011-metrics.md). A process that is
killed loses what it gathered since; what must never be lost is counted by :func:`gpubroker.common.counters.increment`,
in the transaction of the change.
"""

from __future__ import annotations

import atexit
import functools
import json
import logging
import os
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

from django.conf import settings
from django.db import Error, close_old_connections, connection, transaction

from gpubroker.common.counters import bucket
from gpubroker.common.models import Counter

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
#: Rows of one statement: three parameters each, and SQLite takes 999 at least.
TOGETHER = 300

#: A counter's name, and its labels as they are written.
Key = tuple[str, str]
#: Upper bounds in seconds of what mostly takes less than one; ``+Inf`` is implied.
CALL_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)


@functools.lru_cache(maxsize=4096)
def _written(labels: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(labels), sort_keys=True)


class Gathered:
    """Amounts by name and labels that are not in the database yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._amounts: dict[Key, float] = defaultdict(float)
        self._thread: threading.Thread | None = None

    def add(self, name: str, amount: float, labels: dict[str, str]) -> None:
        self.add_all([(_key(name, labels), amount)])

    def add_all(self, amounts: Iterable[tuple[Key, float]]) -> None:
        with self._lock:
            for key, amount in amounts:
                self._amounts[key] += amount
            # Not before the first count: this module may be loaded before the web server forks.
            if self._thread is None and settings.METRICS_FLUSH:
                self._thread = threading.Thread(target=self._run, name="gathered", daemon=True)
                self._thread.start()
                atexit.register(self._try)

    def take(self) -> dict[Key, float]:
        with self._lock:
            taken, self._amounts = self._amounts, defaultdict(float)
            return taken

    def give_back(self, amounts: dict[Key, float]) -> None:
        with self._lock:
            for key, amount in amounts.items():
                self._amounts[key] += amount

    def flush(self) -> None:
        """Add all of it to the shared counters, or keep all of it.

        Rows are locked in the order of their keys, by everybody, so that two processes never wait for each other."""
        taken = self.take()
        rows = [(name, labels, Decimal(f"{amount:.6f}")) for (name, labels), amount in sorted(taken.items())]
        try:
            with transaction.atomic():
                for start in range(0, len(rows), TOGETHER):
                    _add(rows[start : start + TOGETHER])
        except BaseException:
            self.give_back(taken)
            raise

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(FLUSH_SECONDS)
            try:
                self._try()
                close_old_connections()
            except Exception:  # told; the thread is the only one that this process has for it
                log.exception("counts stay in memory for now")

    def _try(self) -> None:
        try:
            self.flush()
        except Error as error:  # of the database, or of the way to it
            log.warning("counts stay in memory for now, the database does not take them: %s", error)


_gathered = Gathered()


def _forked() -> None:
    """A child has the parent's amounts, which the parent writes, and not its thread."""
    global _gathered
    _gathered = Gathered()


os.register_at_fork(after_in_child=_forked)


def _key(name: str, labels: dict[str, str]) -> Key:
    return name, _written(tuple(labels.items()))


def count(name: str, amount: float = 1, /, **labels: str) -> None:
    """Add to one counter, soon."""
    _gathered.add(name, amount, labels)


def observe(name: str, seconds: float, bounds: Sequence[float] = CALL_BUCKETS, /, **labels: str) -> None:
    """Add one duration to a histogram with these bounds, soon."""
    within = _key(f"{name}_bucket", {"le": bucket(seconds, bounds), **labels})
    _gathered.add_all([(within, 1), (_key(f"{name}_sum", labels), seconds)])


class Timed:
    """A counter with its histogram, for what happens thousands of times a second: their labels are written once."""

    def __init__(self, counter: str, histogram: str, labels: dict[str, str], more: dict[str, str]) -> None:
        """``more``: labels that only the counter has."""
        self._count = _key(counter, labels | more)
        self._sum = _key(f"{histogram}_sum", labels)
        bounds = [*map(str, CALL_BUCKETS), "+Inf"]
        self._within = [_key(f"{histogram}_bucket", {"le": bound, **labels}) for bound in bounds]

    def note(self, seconds: float) -> None:
        within = self._within[bisect_left(CALL_BUCKETS, seconds)]
        _gathered.add_all(((self._count, 1), (within, 1), (self._sum, seconds)))


def flush() -> None:
    """Add all that this process has gathered to the shared counters. What the database refuses stays for next time."""
    _gathered.flush()


def _add(rows: Sequence[tuple[str, str, Decimal]]) -> None:
    table = connection.ops.quote_name(Counter._meta.db_table)
    marks = ", ".join(["(%s, %s, %s)"] * len(rows))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (name, labels, value) VALUES {marks} "  # noqa: S608 - the table's name is our own
            f"ON CONFLICT (name, labels) DO UPDATE SET value = {table}.value + excluded.value",
            [part for name, labels, amount in rows for part in (name, labels, float(amount))],
        )
