"""Sets of places as bits of a number, a mask, and columns of values that answer with them.

A number of one bit per place is a few hundred bytes for thousands of places, and ``&``, ``|`` and ``bit_count()`` take
thirty of them in a step. It stays small at any number: what few places have in common is kept as these places, 4 bytes
each.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

V = TypeVar("V", bound=Hashable)
WORD = 64
#: A value that at least one offer in so many has is kept as a mask, so a column has at most so many.
COMMON = 64
#: Masks of a column of numbers, at most.
STEPS = 256


def mask_of(places: Iterable[int], size: int) -> int:
    """These bits of ``size``. They are set in bytes, as each ``|`` on the number itself would copy all of it."""
    bits = bytearray(size // 8 + 1)
    for place in places:
        bits[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(bits, "little")


def places_in(mask: int, skip: int = 0) -> Iterator[int]:
    """The bits that are set, from the lowest up, without the first ``skip``. Word by word, for the same reason."""
    words = mask.bit_length() // WORD + 1
    for number, word in enumerate(struct.unpack(f"<{words}Q", mask.to_bytes(words * 8, "little"))):
        if skip and (count := word.bit_count()) <= skip:
            skip -= count
            continue
        while word:
            lowest = word & -word
            word ^= lowest
            if skip:
                skip -= 1
            else:
                yield number * WORD + lowest.bit_length() - 1


class Same(Generic[V]):
    """A column that is asked for by values."""

    def __init__(self, values: Sequence[V]) -> None:
        self._size = len(values)
        places: dict[V, list[int]] = defaultdict(list)
        for place, value in enumerate(values):
            places[value].append(place)
        common = {value for value, those in places.items() if len(those) * COMMON >= self._size}
        self._masks = {value: mask_of(places[value], self._size) for value in common}
        self._rare = {value: array("I", those) for value, those in places.items() if value not in common}
        self.values = list(places)

    def any_of(self, wanted: Iterable[V]) -> int:
        """The offers that have one of these."""
        mask, rare = 0, array("I")
        for value in wanted:
            if value in self._masks:
                mask |= self._masks[value]
            elif value in self._rare:
                rare += self._rare[value]
        return mask | mask_of(rare, self._size) if rare else mask


class AtLeast:
    """A column of numbers that is asked for a minimum."""

    def __init__(self, values: Sequence[float]) -> None:
        self._size, self._step = len(values), len(values) // STEPS + 1
        # Largest first; bisection wants them to grow.
        self._places = array("I", sorted(range(self._size), key=values.__getitem__, reverse=True))
        self._negated = array("d", [-values[place] for place in self._places])
        #: Of the first so many steps.
        self._masks = [0]
        for start in range(0, self._size, self._step):
            more = mask_of(self._places[start : start + self._step], self._size)
            self._masks.append(self._masks[-1] | more)

    def at_least(self, least: float) -> int:
        count = bisect_right(self._negated, -least)
        steps = count // self._step
        return self._masks[steps] | mask_of(self._places[steps * self._step : count], self._size)
