"""The inventory in memory: loaded once per version, so that a listing costs the database nothing.

While anybody asks, a thread of the process looks at the version rows every second and loads what is new; requests only
read. Where that thread does not run, a request looks in its place, at most once a second.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connections

from offers.failures import remembered
from offers.health import Health
from offers.index import Index
from offers.listed import FRESH_FOR, Listed, freshness, loaded
from offers.models import Offer, ProviderInventory
from offers.pages import Page
from offers.rendered import Rendered

log = logging.getLogger(__name__)
CHECK_EVERY_SECONDS = 1.0
#: How old the watcher's last look may be before a request looks itself.
PATIENCE_SECONDS = 5.0
#: The watcher goes home when nobody has asked for this long.
IDLE_SECONDS = 120.0


class RawRows:
    """The vendors' rows of a snapshot. They weigh more than all the rest, so they are loaded when first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: Mapping[str, Mapping[str, Any]] | None = None

    def get(self) -> Mapping[str, Mapping[str, Any]]:
        """By offer id; one query in this snapshot's life."""
        with self._lock:
            if self._rows is None:
                rows = Offer.objects.filter(withdrawn_at__isnull=True).values_list("id", "raw").iterator(500)
                self._rows = {offer_id: slim(row) for offer_id, row in rows}
            return self._rows


def slim(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What filters compare, with the texts that thousands of rows repeat kept once."""
    return {
        sys.intern(name): sys.intern(value) if isinstance(value, str) else value
        for name, value in row.items()
        if value is not None and not isinstance(value, dict)
    }


@dataclass(frozen=True, eq=False)
class Snapshot:
    #: (provider, version) pairs: equal versions mean equal content.
    version: tuple[tuple[str, int], ...]
    #: By price, then id.
    offers: tuple[Listed, ...]
    #: The times at which providers were asked: with ``health``, all that makes an answer change in one version.
    fetched: tuple[datetime, ...] = ()
    #: What is remembered of failed attempts: a new one makes a new version, old ones fade by themselves.
    health: Health = field(default_factory=Health, repr=False)
    raw: RawRows = field(default_factory=RawRows, repr=False)
    #: Answers already printed; they go when this snapshot goes.
    rendered: Rendered[Page] = field(default_factory=Rendered, repr=False)
    index: Index = field(init=False, repr=False)
    #: Until when every offer is fresh, and the step that it is until then.
    _all_fresh: tuple[datetime, tuple[float, ...]] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        # Here, in the thread that loads, so that no request waits for it.
        object.__setattr__(self, "index", Index(self.offers, self.health))
        # The usual case, which is asked about thousands of times a second.
        if self.fetched and not self.health.failures:
            object.__setattr__(self, "_all_fresh", (min(self.fetched) + FRESH_FOR, (0.0, *(1.0 for _ in self.fetched))))

    def step(self, now: datetime) -> tuple[float, ...]:
        """The same question at two moments with equal steps has equal answers, byte for byte."""
        if self._all_fresh is not None and now <= self._all_fresh[0]:
            return self._all_fresh[1]
        return (self.health.step(now), *(freshness(at, now) for at in self.fetched))

    def key(self, now: datetime, query: Hashable, hash_id: str | None = None) -> Hashable:
        """Of an answer in :attr:`rendered`: equal keys, equal bytes."""
        return self.step(now), query, hash_id


def _load(version: tuple[tuple[str, int], ...], before: Snapshot | None = None) -> Snapshot:
    """What the database has now; offers that are as they were ``before`` are taken over from there."""
    # Nothing is rented from a provider in maintenance; whoever sets or ends it makes a new version.
    closed = ProviderInventory.objects.filter(maintenance_since__isnull=False).values("provider")
    rows = Offer.objects.filter(withdrawn_at__isnull=True).exclude(provider__in=closed)
    # Sorted here: databases differ in how they compare texts.
    known = {} if before is None else {each.id: each for each in before.offers}
    offers = tuple(sorted(loaded(rows, known), key=lambda each: (each.price, each.id)))
    fetched = tuple(sorted({offer.fetched_at for offer in offers}))
    return Snapshot(version=version, offers=offers, fetched=fetched, health=remembered())


class _Holder:
    """One snapshot per process; one thread reloads while the others go on with the old one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.snapshot: Snapshot | None = None
        self.checked = 0.0
        self.asked = 0.0
        #: Changed by whoever knows the snapshot to be wrong; ``loaded`` follows when one has been loaded since.
        self.wanted = self.loaded = object()
        self.watcher: threading.Thread | None = None

    @property
    def reload(self) -> bool:
        return self.loaded is not self.wanted

    def at_hand(self) -> Snapshot | None:
        """The snapshot where :meth:`current` would give it without a look at the database, and without starting one."""
        asked = time.monotonic()
        watched = settings.INVENTORY_WATCH and self.watcher is not None and self.watcher.is_alive()
        patience = PATIENCE_SECONDS if watched else CHECK_EVERY_SECONDS
        if self.snapshot is None or self.reload or asked - self.checked >= patience:
            return None
        self.asked = asked
        return self.snapshot

    def current(self) -> Snapshot:
        self.asked = time.monotonic()
        watched = settings.INVENTORY_WATCH and self._watch()
        patience = PATIENCE_SECONDS if watched else CHECK_EVERY_SECONDS
        if self.snapshot is not None and not self.reload and self.asked - self.checked < patience:
            return self.snapshot
        return self.look()

    def look(self) -> Snapshot:
        """Load what is new. While another thread does, the old snapshot serves, unless it is known to be wrong."""
        waited = not self.lock.acquire(blocking=False)
        if waited:
            if self.snapshot is not None and not self.reload:
                return self.snapshot
            self.lock.acquire()
        try:
            wanted = self.wanted
            if waited and self.snapshot is not None and self.loaded is wanted:
                return self.snapshot  # whoever was before us has just loaded it
            version = tuple(ProviderInventory.objects.order_by("provider").values_list("provider", "version"))
            if self.snapshot is None or self.loaded is not wanted or self.snapshot.version != version:
                self.snapshot = _load(version, self.snapshot)
            self.checked, self.loaded = time.monotonic(), wanted
            return self.snapshot
        finally:
            self.lock.release()

    def forget(self) -> None:
        self.wanted, self.checked = object(), 0.0

    def _watch(self) -> bool:
        """Start the watcher unless it runs; whether it ran already."""
        if self.watcher is not None and self.watcher.is_alive():
            return True
        self.watcher = threading.Thread(target=self._run, name="inventory-watcher", daemon=True)
        self.watcher.start()
        return False

    def _run(self) -> None:
        try:
            while time.monotonic() - self.asked < IDLE_SECONDS and settings.INVENTORY_WATCH:
                try:
                    self.look()
                except DatabaseError as error:
                    log.warning("inventory not looked at: %s", error)
                close_old_connections()
                threading.Event().wait(CHECK_EVERY_SECONDS)
        finally:
            connections.close_all()


_holder = _Holder()


def current() -> Snapshot:
    """The inventory as this process knows it, at most about a second behind the database."""
    return _holder.current()


def at_hand() -> Snapshot | None:
    """:func:`current` where it asks the database nothing, else ``None``: for threads that hold no connection to it."""
    return _holder.at_hand()


def forget() -> None:
    """Load anew at the next question, e.g. because this process has just learnt that an offer is gone."""
    _holder.forget()
