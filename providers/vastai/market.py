"""What is on offer (Vast.ai contract, section 2)."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from typing import Any

from providers.base import OfferData, OfferListing
from providers.errors import MalformedAnswer, NotSupported
from providers.vastai.caller import PAGE_WAIT, WHOLE, Caller, Part
from providers.vastai.offers import read_offer
from providers.vastai.search import Filters, OfferSearch, OfferWalk, incomplete_offers, offer_id, read_rows
from providers.vastai.transport import Transport

logger = logging.getLogger(__name__)

#: Without these the search's own defaults may hide the very offer that is asked for.
_NO_DEFAULTS = {name: {"eq": "any"} for name in ("verified", "rentable", "rented", "external")}
_STORAGE_GB = 8


class Market(Caller):
    """Offers: all that the configured search admits, some, or one."""

    def __init__(self, transport: Transport, search: OfferSearch | None = None) -> None:
        super().__init__(transport)
        self._search = search or OfferSearch()

    def list_offers(self) -> OfferListing:
        """Every offer that the search admits, however many (section 2; how it gets past 64 rows:
        :mod:`providers.vastai.search`). Prices in dollars per hour without disk. A row that cannot be understood is
        left out and counted in the log; when that is all of them, the answer is malformed, not empty."""
        listed_at = self._transport.clock.now()

        def fetch(body: dict[str, Any], first: bool) -> list[Any]:
            return self._transport.send("list_offers", read_rows, json=body, wait=0.0 if first else PAGE_WAIT)

        rows = OfferWalk(self._search, fetch, lambda why: incomplete_offers(self.name, why)).rows()
        admitted = [row for row in rows if self._search.admits(row)]
        read = [read_offer(row, self.name, listed_at) for row in admitted]
        offers = tuple(offer for offer in read if offer is not None)
        if len(offers) < len(read):
            logger.warning("%s offers: %d of %d rows skipped", self.name, len(read) - len(offers), len(read))
        if read and not offers:
            raise self._error(MalformedAnswer, "list_offers", f"none of {len(read)} rows can be understood")
        return OfferListing(offers, listed_at)

    def biddable_offers(self) -> frozenset[str]:
        """Ids of all offers on which bids are taken: those that the same search finds as ``bid`` (section 4.8). A least
        bid alone is no sign of it, as on-demand rows tell one too (section 2.4). ``max_price_per_hour`` is about
        on-demand prices, and so is left out here."""
        search = replace(self._search, kind="bid", max_price_per_hour=None)

        def fetch(body: dict[str, Any], first: bool) -> list[Any]:
            # The first call too: it comes right after a listing's last one.
            return self._transport.send("list_offers", read_rows, json=body, wait=PAGE_WAIT)

        rows = OfferWalk(search, fetch, lambda why: incomplete_offers(self.name, why)).rows()
        return frozenset(offer_id(row) for row in rows if search.admits(row) and row.get("is_bid") is True)

    def offer_page(
        self, kind: str = "on-demand", filters: Filters | None = None, sort_by: str = "dph_total",
        direction: str = "asc", part: Part = WHOLE,
    ) -> tuple[OfferData, ...]:  # fmt: skip
        """One search, of the offers that anybody sees: ``kind`` is on-demand, bid or reserved, ``filters`` are the
        vendor's, at most 64 come back. Rows that cannot be understood are left out."""
        self._own_rows_only("offer_page", part)
        listed_at = self._transport.clock.now()
        if self._transport.supports("offer_page"):
            words = {"type": kind, "q": filters or {}, "sort_option": sort_by, "order": direction}
            rows = self._transport.send("offer_page", read_rows, params=words | part.params())
        elif part.offset:
            raise self._error(NotSupported, "offer_page", "Vast.ai's own API has no 'offset' here")
        else:
            body = {**(filters or {}), "type": kind, "order": [[sort_by, direction]]}
            limit = {} if part.limit is None else {"limit": part.limit}
            rows = self._transport.send("list_offers", read_rows, json={**body, **limit})
        return self._understood(rows, listed_at)

    def offer(self, offer_id: str) -> OfferData | None:
        """One offer (section 2.3); ``None`` when it is taken or withdrawn."""
        known_id, listed_at = self._id("offer", offer_id), self._transport.clock.now()
        if self._transport.supports("offer"):
            rows = self._transport.send("offer", read_rows, known_id)
        else:
            wanted = {"ask_contract_id": {"eq": int(known_id)}, "type": "on-demand", "order": [["dph_total", "asc"]]}
            body = {**_NO_DEFAULTS, **wanted, "limit": 1, "allocated_storage": _STORAGE_GB}
            rows = self._transport.send("list_offers", read_rows, json=body)
        return next((each for each in self._understood(rows, listed_at) if each.provider_id == known_id), None)

    def _understood(self, rows: list[Any], listed_at: datetime) -> tuple[OfferData, ...]:
        return tuple(offer for row in rows if (offer := read_offer(row, self.name, listed_at)))
