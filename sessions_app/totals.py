"""How many sessions there are in all: what the ``total`` of a list says.

PostgreSQL counts by looking at every one, so a page of fifty would cost more the longer the broker lives. But a session
is never deleted, its consumer and its provider never change, and ``created_at`` is when it was made: those of more than
an hour ago stay as many as they are. A process counts them once in ten minutes, and at each question only the rest,
which mostly stand on the page that is asked for. A status does change, so by status all are counted, with an index.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import CharField, Count, DateTimeField, Q, QuerySet, Value

from gpubroker.common import clock
from gpubroker.common.prepared import Later, Prepared
from sessions_app.models import Session

#: No create takes so long from reading the clock to its commit, nor do clocks of two machines differ by so much.
SETTLED = timedelta(hours=1)
#: So many characters of a written time tell it to the second; ``until`` is a whole one.
SECOND = len("2026-01-29 12:00:00")
COUNT_ANEW = timedelta(minutes=10)
#: Of so many consumers it is remembered.
MOST = 10_000
#: What a list is narrowed by.
FILTERS = {"consumer": "consumer__name", "status": "status", "provider": "provider"}
Filters = dict[str, Any]


def narrowed(sessions: QuerySet[Any, Any], names: frozenset[str]) -> QuerySet[Any, Any]:
    """By these of :data:`FILTERS`, whose values come when the query runs."""
    return sessions.filter(**{FILTERS[name]: Later(name, CharField()) for name in sorted(names)})


class Totals:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settled: dict[tuple[tuple[str, Any], ...], tuple[datetime, int]] = {}

    def of(self, filters: Filters, newest: Sequence[str] | None, *, whole: bool) -> int:
        """``newest``: when the newest that match were made, as the database writes it, newest first; ``whole``: there
        are no others. ``None``: not at hand."""
        names = frozenset(filters)
        if "status" in names:
            return _count(names, "", filters)
        until, settled = self._settled_of(names, filters)
        if newest is not None:
            begins = str(until)[:SECOND]
            new = sum(made[:SECOND] >= begins for made in newest)
            if whole or new < len(newest):
                return settled + new  # the page goes back further than an hour: nothing is left to count
        return settled + _count(names, "gte", {**filters, "until": until})

    def forget(self) -> None:
        with self._lock:
            self._settled.clear()

    def _settled_of(self, names: frozenset[str], filters: Filters) -> tuple[datetime, int]:
        key, until = tuple(sorted(filters.items())), (clock.now() - SETTLED).astimezone(UTC).replace(microsecond=0)
        kept = self._settled.get(key)
        if kept is not None and kept[0] <= until <= kept[0] + COUNT_ANEW:
            return kept
        counted = until, _count(names, "lt", {**filters, "until": until})
        with self._lock:
            if len(self._settled) >= MOST:
                self._settled.clear()
            self._settled[key] = counted
        return counted


def _count(names: frozenset[str], made: str, values: Filters) -> int:
    return int(_counting(names, made).rows(**values)[0][0])


@functools.cache
def _counting(names: frozenset[str], made: str) -> Prepared:
    """``made``: "gte" or "lt" for those made from ``until`` on or before it; empty for all."""

    def build() -> QuerySet[Any, Any]:
        when = Q(**{f"created_at__{made}": Later("until", DateTimeField())}) if made else Q()
        sessions = narrowed(Session.objects.order_by(), names).filter(when)
        # A constant is no group: there is one row, whatever there is.
        found: QuerySet[Any, Any] = sessions.values(one=Value(1)).annotate(count=Count("*")).values_list("count")
        return found

    return Prepared(build)


totals = Totals()
