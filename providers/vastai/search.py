"""Enumerating every offer behind a search that never returns more than 64 rows (Vast.ai contract, section 2.2).

There is no offset and no cursor, so the search is walked by price: rows ascending by ``dph_total``, and the next page
asks for prices from the last one on. Consecutive pages overlap in the rows of that last price, which are told apart
by id. One walk costs (offers / 64) calls. Splitting by GPU name instead would cost at least one call for each of
some hundred names, most of them for a handful of rows, and searches are limited to ten a minute: the walk is the
cheapest complete way, and at six seconds a call, 600 offers take a minute.

Where more than 64 rows have one price the walk cannot pass. Only then is that price split: by number of GPUs, then by
name, then by machine, each value with an ``eq`` filter, until every part fits into a page. The values are those seen in
the full page; what else there is shows when they are excluded with ``notin``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from providers import fields
from providers.errors import ListingIncomplete, ProviderError
from providers.vastai import offers
from providers.vastai.reply import Reply

logger = logging.getLogger(__name__)

#: The most rows that ever come back, whatever ``limit`` says.
PAGE_ROWS = 64
#: A page with fewer rows than this is taken for the last one at once. One between this and 64 is checked with a
#: further call, in case the vendor lowers the cap.
_SURELY_SHORT = PAGE_ROWS // 2
#: Prices closer than this are one price: the vendor may print fewer digits than it compares.
_SAME_PRICE = Decimal("0.000001")
_SPLIT_BY = ("num_gpus", "gpu_name", "machine_id")

Filters = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class OfferSearch:
    """What to list. ``allocated_storage_gb`` only fixes what ``dph_total`` includes, so that the order of two pages
    agrees. ``max_pages`` bounds the calls of one listing; beyond it the listing is an error, not a shorter list."""

    verified_only: bool = True
    max_price_per_hour: Decimal | None = None
    filters: Filters | None = None
    allocated_storage_gb: int = 8
    max_pages: int = 200
    #: ``on-demand``, or ``bid``: what takes bids, at the price of the least one.
    kind: str = "on-demand"

    def body(self, filters: Filters) -> dict[str, Any]:
        """The search as sent: our filters, then ``filters``; several operators on one field are merged."""
        body: dict[str, Any] = {"rentable": {"eq": True}, "rented": {"eq": False}, "external": {"eq": False}}
        # Said in so many words both times, because the vendor's default is "verified only".
        body["verified"] = {"eq": True} if self.verified_only else {"eq": "any"}
        for field, conditions in [*(self.filters or {}).items(), *filters.items()]:
            body[field] = {**body.get(field, {}), **conditions}
        if self.max_price_per_hour is not None:
            body["dph_total"] = {"lte": self.max_price_per_hour, **body.get("dph_total", {})}
        body |= {
            "type": self.kind,
            "order": [["dph_total", "asc"]],
            "limit": PAGE_ROWS,
            "allocated_storage": self.allocated_storage_gb,
        }
        return body

    def admits(self, row: dict[str, Any]) -> bool:
        """The filters once more on our side: the vendor does not always honour them."""
        if not offers.is_rentable(row) or (self.verified_only and offers.is_known_unverified(row)):
            return False
        price = offers.total_price(row)
        return self.max_price_per_hour is None or (price is not None and price <= self.max_price_per_hour)


def read_rows(reply: Reply) -> list[Any]:
    """The rows of one search page."""
    rows = reply.object().get("offers")
    if not isinstance(rows, list):
        raise reply.malformed("no list under 'offers'")
    if rows and not any(offer_id(row) for row in rows):
        raise reply.malformed(f"none of {len(rows)} rows has an id")
    return rows


class OfferWalk:
    """One enumeration. ``fetch`` gets a search body and whether it is the first call; ``incomplete`` makes the
    error."""

    def __init__(
        self,
        search: OfferSearch,
        fetch: Callable[[dict[str, Any], bool], list[Any]],
        incomplete: Callable[[str], ProviderError],
    ) -> None:
        self._search = search
        self._fetch = fetch
        self._incomplete = incomplete
        self._calls = 0
        self._rows: dict[str, dict[str, Any]] = {}
        self._unreadable = 0

    def rows(self) -> list[dict[str, Any]]:
        """Every row once, in the order of price. Raises rather than returning a part."""
        start: Decimal | None = None
        while True:
            page = self._page({} if start is None else {"dph_total": {"gte": start}})
            new = self._keep(page)
            prices = [price for row in page if (price := offers.total_price(row)) is not None]
            if len(page) < _SURELY_SHORT or not prices:
                break
            low, high = min(prices), max(prices)
            if high - low > 2 * _SAME_PRICE:
                if not new:
                    break
                start = max(high - _SAME_PRICE, Decimal(0))
            else:
                if len(page) >= PAGE_ROWS:
                    self._split({"dph_total": {"gte": low - _SAME_PRICE, "lte": high + _SAME_PRICE}}, _SPLIT_BY)
                start = high + _SAME_PRICE
        if self._unreadable:
            logger.warning("vast.ai offers: %d rows without an id skipped", self._unreadable)
        return list(self._rows.values())

    def _split(self, filters: Filters, by: tuple[str, ...]) -> None:
        """Fetch everything that ``filters`` admit, in parts that fit into a page."""
        page = self._page(filters)
        self._keep(page)
        if len(page) < PAGE_ROWS:
            return
        if not by:
            raise self._incomplete("more than 64 offers of one price on one machine")
        field, *further = by
        done: list[Any] = []
        while len(page) >= PAGE_ROWS:
            values = {value for row in page if (value := _value(row, field)) is not None}
            fresh = sorted(values - set(done), key=str)
            if not fresh:
                raise self._incomplete(f"64 offers of one price cannot be told apart by {field}")
            for value in fresh:
                self._split({**filters, field: {"eq": value}}, tuple(further))
            done += fresh
            page = self._page({**filters, field: {"notin": done}})
            self._keep(page)

    def _page(self, filters: Filters) -> list[Any]:
        if self._calls >= self._search.max_pages:
            raise self._incomplete(f"more than {self._search.max_pages} pages of offers")
        self._calls += 1
        return self._fetch(self._search.body(filters), self._calls == 1)

    def _keep(self, page: list[Any]) -> int:
        """Remember the rows not seen before; how many they were."""
        before = len(self._rows)
        for row in page:
            key = offer_id(row)
            if key:
                self._rows.setdefault(key, row)
            else:
                self._unreadable += 1
        return len(self._rows) - before


def incomplete_offers(provider: str, why: str) -> ProviderError:
    return ListingIncomplete(why, provider=provider, operation="list_offers")


def offer_id(row: object) -> str:
    """A row's id; "" where it has none."""
    if not isinstance(row, dict):
        return ""
    return fields.identifier(row.get("id")) or fields.identifier(row.get("ask_contract_id"))


def _value(row: object, field: str) -> str | int | None:
    value = row.get(field) if isinstance(row, dict) else None
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None
