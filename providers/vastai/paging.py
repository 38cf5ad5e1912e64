"""Walking through token pages and proving that nothing is missing (rule I5).

The instance listing comes in pages of 25 and every page says how many rows there are in all (Vast.ai contract,
section 4.1); invoices and charges are built the same way (5.3, 5.4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from providers.errors import ListingIncomplete, ProviderError
from providers.vastai.reply import Reply

#: A statement's pages at most: a server that never ends is broken.
MAX_PAGES = 400
#: 100,000 instances in pages of 25: an account beyond that is not ours.
MAX_INSTANCE_PAGES = 4000
#: As many as the vendor gives at most.
INSTANCES_PER_PAGE = 25


@dataclass(frozen=True, slots=True)
class Page:
    """``total`` counts the rows of all pages; ``None`` where the vendor does not tell."""

    rows: list[Any]
    total: int | None
    token: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Where an envelope keeps its rows, their number in this page, and their number in all."""

    rows: str
    found: str
    total: str


INSTANCES = Keys("instances", "instances_found", "total_instances")
STATEMENT = Keys("results", "count", "total")


def read_page(reply: Reply, keys: Keys) -> Page:
    """The page in an accepted answer; raises on another shape or when the page contradicts itself."""
    body = reply.object()
    rows, found, total, token = (body.get(key) for key in (keys.rows, keys.found, keys.total, "next_token"))
    if not isinstance(rows, list):
        raise reply.malformed(f"no list under '{keys.rows}'")
    if not _is_count(total) and not (total is None and keys is STATEMENT):
        raise reply.malformed(f"no number under '{keys.total}'")
    if token is not None and not isinstance(token, str):
        raise reply.malformed("the next token is no text")
    if _is_count(found) and found != len(rows):
        raise reply.error(ListingIncomplete, f"the page says {found} rows and holds {len(rows)}")
    return Page(rows, total, token or "")


def collect(
    fetch: Callable[[str], Page],
    incomplete: Callable[[str], ProviderError],
    *,
    most: int = MAX_PAGES,
    exact: bool = True,
    order: Callable[[Any], int] | None = None,
) -> list[Any]:
    """All rows of up to ``most`` pages, or the error made by ``incomplete``. ``fetch`` gets "" for the first page.

    Without ``exact`` the total is only an upper bound: a filtered listing may give the account's total.

    ``order`` tells a row's place where they were asked for in an order in which new ones come last. Then the account
    may change while it is walked through, which takes minutes where it has thousands of rows: whatever was there all
    along is among the rows if each page is full and begins after the last one, and no fewer rows came than there are
    in the end.
    """
    pages: list[Page] = []
    token, seen = "", {""}
    for _ in range(most):
        page = fetch(token)
        changed = bool(pages) and page.total != pages[-1].total
        pages.append(page)
        if changed and (order is None or page.total is None):
            raise incomplete(f"the total changed from {pages[-2].total} to {page.total} between pages")
        if not page.token:
            return _checked(pages, incomplete, exact, order)
        if page.token in seen:
            raise incomplete("the pages go round in a circle")
        if not page.rows:
            raise incomplete("an empty page that promises more")
        token = page.token
        seen.add(token)
    raise incomplete(f"more than {most} pages")


def _checked(
    pages: list[Page], incomplete: Callable[[str], ProviderError], exact: bool, order: Callable[[Any], int] | None
) -> list[Any]:
    rows, total = [row for page in pages for row in page.rows], pages[-1].total
    few = exact and total is not None and len(rows) < total
    many = total is not None and len(rows) > total
    # Equal totals hide one that was made and one that was destroyed between the same two pages.
    if order is not None and len(pages) > 1 and (many or any(page.total != total for page in pages)):
        _whole(pages, rows, incomplete, order)
        many = False
    if few or many:
        raise incomplete(f"{len(rows)} rows arrived of {total}")
    return rows


def _whole(
    pages: list[Page], rows: list[Any], incomplete: Callable[[str], ProviderError], order: Callable[[Any], int]
) -> None:
    """The account changed meanwhile: is nothing left out between two pages?"""
    if len({len(page.rows) for page in pages[:-1]}) > 1 or len(pages[-1].rows) > len(pages[0].rows):
        raise incomplete("the total changed between pages that are not full")
    places = [order(row) for row in rows]
    if any(later <= earlier for earlier, later in pairwise(places)):
        raise incomplete("the total changed between pages that are not in order")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
