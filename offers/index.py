"""Which offers of a snapshot pass which filter: bit ``n`` of a mask (:mod:`offers.bits`) is the snapshot's offer ``n``.

A search puts a few masks together and looks at the offers of its page only; without them it would look at every offer
for every filter. Offers lie by price, then id: bits from the lowest up come in that order.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from math import inf
from operator import attrgetter

from offers.bits import AtLeast, Same
from offers.health import Health
from offers.listed import Listed, freshness, judged

#: Parts of a location's name whose offers are remembered; with one more, all are found anew.
REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Sure:
    """How sure the offers are, for one step of their ageing; without those of suppressed machines."""

    step: Hashable
    #: By :attr:`Index.kinds`.
    of_kind: Mapping[int, float]
    masks: Mapping[float, int]

    def at_least(self, least: float | None) -> int:
        mask = 0
        for sure, those in self.masks.items():
            if least is None or sure >= least:
                mask |= those
        return mask


class Index:
    """Of one snapshot's offers, by price, then id, and of what had failed when it was made."""

    def __init__(self, offers: Sequence[Listed], health: Health) -> None:
        self._offers, self._health = offers, health
        self.all = (1 << len(offers)) - 1
        self.provider = Same([offer.provider for offer in offers])
        self.gpu_key = Same([offer.gpu_key for offer in offers])
        self.vram_gb = AtLeast([offer.vram_gb for offer in offers])
        self.gpu_count = AtLeast([offer.gpu_count for offer in offers])
        self.reliability = AtLeast([offer.reliability for offer in offers])
        self.cuda = AtLeast([-inf if offer.cuda is None else offer.cuda for offer in offers])
        self._location = Same([offer.location for offer in offers])
        self._located: dict[str, int] = {}
        # Offers of one kind are equally sure: seen at one time, and of one machine or GPU type where any such failed.
        machines = {failure.machine for failure in health.failures}
        types = {(failure.provider, failure.gpu_type) for failure in health.failures}
        known: dict[tuple[datetime, str, tuple[str, str]], int] = {}
        #: Of each offer, as a number.
        self.kinds = array("I")
        for offer in offers:
            machine = offer.machine if offer.machine in machines else ""
            gpu = offer.provider, offer.gpu_type
            kind = offer.fetched_at, machine, gpu if gpu in types else ("", "")
            self.kinds.append(known.setdefault(kind, len(known)))
        self._known, self._kind = list(known), Same(self.kinds)
        self._sure = Sure(None, {}, {})

    def cheap(self, price: Decimal) -> int:
        """Those that cost so much at most."""
        return (1 << bisect_right(self._offers, price, key=attrgetter("price"))) - 1

    def located(self, part: str) -> int:
        """Those with this in their location's name."""
        part = part.casefold()
        mask = self._located.get(part)
        if mask is None:
            mask = self._location.any_of(name for name in self._location.values if part in name)
            if len(self._located) >= REMEMBERED:
                self._located.clear()
            self._located[part] = mask
        return mask

    def sure(self, step: Hashable, now: datetime) -> Sure:
        """As of ``now``. Found once for a ``step``: see :meth:`offers.snapshot.Snapshot.step`."""
        found = self._sure
        if found.step != step:
            view, of_kind = self._health.at(now), {}
            for number, (at, machine, gpu) in enumerate(self._known):
                if machine not in view.suppressed:
                    of_kind[number] = judged(freshness(at, now), view.factor(machine, *gpu))
            levels: dict[float, list[int]] = defaultdict(list)
            for number, sure in of_kind.items():
                levels[sure].append(number)
            masks = {sure: self._kind.any_of(numbers) for sure, numbers in levels.items()}
            found = self._sure = Sure(step, of_kind, masks)
        return found
