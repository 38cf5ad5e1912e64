"""Costs of a period as this process last summed them, for as long as the meter has not changed.

Between two changes of the meter costs only grow, and evenly: so an answer to the second needs no second sum. Whether
the meter changed is asked of the database at every request (one small query), never assumed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime
from typing import Any

from django.db.models import Count, QuerySet, Sum, Value

from billing.cost_sums import CONSUMER
from billing.costs import Costs, Sums, sums
from billing.models import MeterChange
from billing.periods import Period
from gpubroker.common.prepared import Prepared

#: Periods and consumers that are remembered.
MOST = 512
Key = tuple[Period, str]
#: Count and sum of the changes so far.
Version = tuple[int, int | None]


class Memory:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, tuple[Version, Sums]] = OrderedDict()
        #: Of those who sum one key at the same time only one does; few locks serve all keys.
        self._summing = [threading.Lock() for _ in range(16)]

    def of_period(self, period: Period, now: datetime, consumer: str | None = None) -> Costs:
        """As :func:`billing.costs.of_period`."""
        key = (period, consumer or "")
        version = changes(consumer)
        found = self._find(key, version)
        if found is None or not found.holds_at(now):
            with self._summing[hash(key) % len(self._summing)]:
                found = self._find(key, version)
                if found is None or not found.holds_at(now):
                    # The version was read before: a change meanwhile makes this newer than it says, never older.
                    found = sums(period, now, consumer)
                    self._keep(key, version, found)
        return found.at(now)

    def forget(self) -> None:
        with self._lock:
            self._kept.clear()

    def _find(self, key: Key, version: Version) -> Sums | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept[0] != version:
                return None
            self._kept.move_to_end(key)
            return kept[1]

    def _keep(self, key: Key, version: Version, found: Sums) -> None:
        # Where nothing was ever written down as changed, nothing says when it does.
        if not version[0] or not found.holds_at(found.summed_at):
            return
        with self._lock:
            self._kept[key] = (version, found)
            self._kept.move_to_end(key)
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)


def changes(consumer: str | None) -> Version:
    """Changes of the meter so far: of one consumer, or of all."""
    count, tokens = (_OF_NAMED if consumer else _ALL).rows(consumer=consumer)[0]
    return int(count), None if tokens is None else int(tokens)


def _counted(changes: QuerySet[MeterChange]) -> QuerySet[Any, Any]:
    # A constant is no group: there is one row, whatever there is.
    found = changes.order_by().values(one=Value(1)).annotate(count=Count("id"), tokens=Sum("token"))
    return found.values_list("count", "tokens")


_ALL = Prepared(lambda: _counted(MeterChange.objects.all()))
_OF_NAMED = Prepared(lambda: _counted(MeterChange.objects.filter(consumer__name=CONSUMER)))


memory = Memory()
