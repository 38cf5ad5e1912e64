"""What an offer cost in the last 30 days: a row for each change, written with the listing that brought it.

An unchanged price costs nothing: most of a listing's offers are unchanged, and no query is made for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from gpubroker.common import clock
from offers.models import Offer, OfferPrice

KEPT = timedelta(days=30)
#: Changes that are kept at most, of all offers, however a market behaves.
MOST_KEPT = 300_000
#: Changes of one offer that are drawn.
MOST_DRAWN = 500
#: Of the picture, in its own units.
WIDTH, HEIGHT, LEFT, TOP, BASE = 720, 140, 84, 12, 112


def changed(offer: Offer, price: Decimal, at: datetime) -> OfferPrice:
    """The row, not yet written, of an offer that is about to cost ``price`` an hour."""
    return OfferPrice(offer_id=offer.pk, at=at, before=offer.price_per_hour, price_per_hour=price)


def write(rows: Sequence[OfferPrice], at: datetime) -> None:
    """Keep these, and let go of what is too old or too much. Without any: nothing is asked of the database."""
    if not rows:
        return
    newest = OfferPrice.objects.bulk_create(rows, batch_size=500)[-1].pk
    OfferPrice.objects.filter(at__lt=at - KEPT).delete()
    OfferPrice.objects.filter(id__lte=newest - MOST_KEPT).delete()


@dataclass(frozen=True, slots=True)
class History:
    """``changes``: the newest first. ``since``: from then on they are complete."""

    changes: tuple[OfferPrice, ...]
    since: datetime
    until: datetime
    #: Dollars an hour at ``since``.
    first: Decimal
    now: Decimal

    @property
    def lowest(self) -> Decimal:
        return min((change.price_per_hour for change in self.changes), default=self.first).min(self.first)

    @property
    def highest(self) -> Decimal:
        return max((change.price_per_hour for change in self.changes), default=self.first).max(self.first)


def history(offer: Offer) -> History:
    """Of the last 30 days, or since the offer was first seen; one query."""
    now = clock.now()
    rows = OfferPrice.objects.filter(offer=offer, at__gt=now - KEPT).order_by("-at", "-id")
    found = tuple(rows[: MOST_DRAWN + 1])
    since = max(offer.first_seen_at, now - KEPT)
    if len(found) > MOST_DRAWN:
        found = found[:MOST_DRAWN]
        since = found[-1].at
    first = found[-1].before if found else offer.price_per_hour
    return History(found, since, now, first, offer.price_per_hour)


@dataclass(frozen=True, slots=True)
class Picture:
    """What the template draws: one line of steps, and a rule at the lowest and the highest price."""

    #: As SVG has them: ``x,y x,y ...``
    points: str
    #: (height, dollars an hour)
    rules: tuple[tuple[float, Decimal], ...]
    since: datetime
    until: datetime
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    base: int = BASE


def picture(found: History) -> Picture:
    low, high = found.lowest, found.highest
    span = max((found.until - found.since).total_seconds(), 1.0)

    def x(at: datetime) -> float:
        share = (at - found.since).total_seconds() / span
        return round(LEFT + (WIDTH - LEFT) * min(max(share, 0.0), 1.0), 1)

    def y(price: Decimal) -> float:
        if high == low:
            return float(TOP + BASE) / 2
        return round(BASE - float((price - low) / (high - low)) * (BASE - TOP), 1)

    points = [(x(found.since), y(found.first))]
    for change in reversed(found.changes):
        points += [(x(change.at), points[-1][1]), (x(change.at), y(change.price_per_hour))]
    points.append((x(found.until), points[-1][1]))
    rules = tuple((y(price), price) for price in dict.fromkeys((high, low)))
    return Picture(" ".join(f"{across},{down}" for across, down in points), rules, found.since, found.until)
