"""The templates' filters in memory, for searches that must not ask the database each time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from templates_app.matching import Filters, compiled
from templates_app.models import Template


@dataclass(frozen=True, slots=True)
class Entry:
    provider: str
    filters: Filters

    def fits(self, provider: str, row: Mapping[str, Any], at: datetime) -> bool:
        """Whether the template can run on that provider's machine, by the row that was true at that time."""
        return provider == self.provider and self.filters.match(row, at)


class _Catalog:
    """All templates as of one generation of something else, here: of the inventory."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.generation: weakref.ref[object] | None = None
        self.entries: dict[str, Entry] = {}

    def find(self, hash_id: str, generation: object) -> Entry | None:
        with self.lock:
            if self.generation is None or self.generation() is not generation:
                self._load()
                self.generation = weakref.ref(generation)
            elif hash_id not in self.entries and Template.objects.filter(hash_id=hash_id).exists():
                self._load()
            return self.entries.get(hash_id)

    def _load(self) -> None:
        rows = Template.objects.values_list("hash_id", "provider", "raw__extra_filters")
        self.entries = {hash_id: Entry(provider, compiled(filters)) for hash_id, provider, filters in rows}


_catalog = _Catalog()


def find(hash_id: str, generation: object) -> Entry | None:
    """The template's filters; read from the database once per generation, or when the template is new to us."""
    return _catalog.find(hash_id, generation)
