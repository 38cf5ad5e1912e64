"""Places where something can happen in the middle of a step: each database statement and each call to a provider.

At the n-th of them a test lets something else happen, as another process would, or lets this one die. Nothing of ours
is patched: statements are seen by Django's own wrapper, calls by the adapter of the ``requests`` library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from django.db import connection
from requests import PreparedRequest
from requests.adapters import HTTPAdapter

#: How a transaction ends is no place to die: before it, nothing is committed; after it, all is.
_ENDS = ("ROLLBACK TO SAVEPOINT", "RELEASE SAVEPOINT")


class Crash(BaseException):
    """The process is gone: no handler of errors sees this, and nothing is written down any more."""


def depth() -> int:
    """How many transactions are open in this thread, those of the test itself included."""
    return len(connection.savepoint_ids) + int(connection.in_atomic_block)


@contextmanager
def seeing_calls(
    before: Callable[[PreparedRequest], None], after: Callable[[PreparedRequest], None] = lambda request: None
) -> Iterator[None]:
    """Every HTTP call of the ``requests`` library: just before it leaves, and when its answer is there."""
    send = HTTPAdapter.send

    def seen(adapter: HTTPAdapter, request: PreparedRequest, *args: Any, **options: Any) -> Any:
        before(request)
        try:
            return send(adapter, request, *args, **options)
        finally:
            after(request)

    with mock.patch.object(HTTPAdapter, "send", seen):
        yield


class _Points:
    def __init__(self, number: int, action: Callable[[], None], everywhere: bool) -> None:
        self.left = number
        self.action = action
        self.outside = None if everywhere else depth()
        self.dead: Crash | None = None

    def pass_by(self) -> None:
        if self.dead is not None:
            raise self.dead
        self.left -= 1
        if self.left == 0:
            try:
                self.action()
            except Crash as crash:
                self.dead = crash
                raise

    def on_statement(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.startswith(_ENDS) and self.outside in (None, depth()):
            self.pass_by()
        return execute(sql, params, many, context)

    def on_call(self, request: PreparedRequest) -> None:
        self.pass_by()


@contextmanager
def at_point(number: int, action: Callable[[], None], *, everywhere: bool = False) -> Iterator[None]:
    """``action`` runs once, at the ``number``-th point of this thread inside the block, if there are so many.

    Points lie outside of transactions, so that the action may do whatever another process could do at that moment;
    ``everywhere``: also inside of them, which is for dying only.
    """
    points = _Points(number, action, everywhere)
    with connection.execute_wrapper(points.on_statement), seeing_calls(points.on_call, points.on_call):
        yield


def die() -> None:
    raise Crash
