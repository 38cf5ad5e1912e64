"""The account's machines, all of them or some (Vast.ai contract, sections 4.1 and 4.8)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from operator import itemgetter
from typing import Any, TypeVar

from providers import fields
from providers.base import LOOK_WAIT, Instance, InstanceListing
from providers.errors import ListingIncomplete
from providers.vastai.caller import PAGE_WAIT, WHOLE, Caller, Part, rows_under
from providers.vastai.instances import read_instance
from providers.vastai.paging import INSTANCES, INSTANCES_PER_PAGE, MAX_INSTANCE_PAGES, Page, collect, read_page
from providers.vastai.reply import Reply

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Listings(Caller):
    """Complete listings are evidence; pages are for looking."""

    def list_instances(self) -> InstanceListing:
        """Every instance of the account, all pages (section 4.1), or an error: a listing that does not add up is asked
        for once more and then raised as ``ListingIncomplete``, as is one with a row that cannot be understood."""
        listed_at = self._transport.clock.now()
        return InstanceListing(self._instances("list_instances", None), listed_at)

    def find_by_label(self, label: str) -> tuple[Instance, ...]:
        """Instances with exactly this label, from all pages of a listing filtered by the vendor (section 4.1) and
        compared again here. An empty answer is evidence as far as the vendor's listing lags no longer."""
        found = self._instances("find_by_label", label)
        return tuple(instance for instance in found if instance.label == label)

    def instance_page(self, state: str = "", part: Part = WHOLE) -> tuple[Instance, ...]:
        """Some machines, all or those of one status. No evidence of anything: use :meth:`list_instances` for that."""
        if self._transport.supports("instance_page"):
            params = part.params() | ({"state": state} if state else {})
            rows = self._transport.send("instance_page", lambda reply: rows_under(reply, "instances"), params=params)
            return self._read_all("instance_page", rows)
        self._own_rows_only("instance_page", part)
        found = self._instances("list_instances", None)
        return part.of([instance for instance in found if state in ("", instance.status)])

    def _instances(self, operation: str, label: str | None) -> tuple[Instance, ...]:
        def make(row: object) -> Instance | None:
            return read_instance(row, self._transport.safe_text)

        try:
            read = self._all_pages(operation, make, label, 0.0 if label is None else LOOK_WAIT)
        except ListingIncomplete as unlucky:
            # Machines come and go between two pages; once is no reason to fail.
            logger.info("%s: listed once more: %s", self.name, unlucky)
            read = self._all_pages(operation, make, label, PAGE_WAIT)
        return self._none_missing(operation, read)

    def _read_all(self, operation: str, rows: list[Any]) -> tuple[Instance, ...]:
        return self._none_missing(operation, [read_instance(row, self._transport.safe_text) for row in rows])

    def _none_missing(self, operation: str, read: list[Instance | None]) -> tuple[Instance, ...]:
        instances = tuple(instance for instance in read if instance is not None)
        if len(instances) < len(read):
            raise self._incomplete(operation, f"{len(read) - len(instances)} rows cannot be understood")
        return instances

    def _all_pages(
        self, operation: str, make: Callable[[Any], T], label: str | None = None, first_wait: float = 0.0
    ) -> list[T]:
        """What is made of each row. Made at once: the vendor's rows of thousands of machines weigh ten times as much
        as what is understood of them."""
        promised = 0

        def read(reply: Reply) -> Page:
            nonlocal promised
            page = read_page(reply, INSTANCES)
            counts = reply.json.get("label_counts")
            if label is not None and isinstance(counts, dict):
                promised = max(promised, fields.count(counts.get(label)))
            return replace(page, rows=[(_number(row), make(row)) for row in page.rows])

        def fetch(token: str) -> Page:
            params: dict[str, Any] = {"limit": INSTANCES_PER_PAGE, "order_by": [{"col": "id", "dir": "asc"}]}
            if label is not None:
                params["select_filters"] = {"label": {"eq": label}}
            if token:
                params["after_token"] = token
            return self._transport.send(
                operation,
                read,
                params=params,
                wait=PAGE_WAIT if token else first_wait,
            )

        def incomplete(why: str) -> ListingIncomplete:
            return ListingIncomplete(why, provider=self.name, operation=operation)

        rows = collect(fetch, incomplete, most=MAX_INSTANCE_PAGES, exact=label is None, order=itemgetter(0))
        numbers = [number for number, _ in rows if number]
        if len(set(numbers)) < len(numbers):
            raise incomplete("an instance is listed twice")
        if len(rows) < promised:
            raise incomplete(f"{len(rows)} rows arrived of {promised} that carry the label")
        return [made for _, made in rows]


def _number(row: object) -> int:
    """By which rows are ordered: new instances have higher ones. 0 where there is none."""
    return int(fields.identifier(row.get("id")) or 0) if isinstance(row, dict) else 0
