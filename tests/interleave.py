"""Two things at one moment, without patching our own code: something happens just before a statement, or inside a
provider call."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import responses
from django.db import connection, connections

from tests.sandbox import SandboxProcess

Answer = tuple[int, dict[str, str], str]
Reply = Callable[[Any, int], Answer | None]


@contextmanager
def before_sql(pattern: str, action: Callable[[], None]) -> Iterator[list[str]]:
    """``action`` runs once, before this thread's first statement that matches; the list says whether it did."""
    happened: list[str] = []

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not happened and re.search(pattern, sql):
            happened.append(sql)
            action()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield happened


@contextmanager
def on_the_wire(market: SandboxProcess, *routes: tuple[str, str, Reply]) -> Iterator[list[int]]:
    """Each route is method, path (a pattern) and ``reply(request, n)``, which answers the n-th call of that route
    instead of the marketplace; ``None`` lets the marketplace answer. Everything else passes through.
    The list counts the calls of the first route."""
    counts: list[list[int]] = [[] for _ in routes]

    def callback(calls: list[int], method: str, reply: Reply) -> Callable[[Any], Answer]:
        def answer(request: Any) -> Answer:
            calls.append(len(calls) + 1)
            own = reply(request, calls[-1])
            if own is not None:
                return own
            body = request.body.decode() if isinstance(request.body, bytes) else request.body
            return market.raw(method, request.path_url, body, dict(request.headers))

        return answer

    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        wire.add_passthru(market.url)
        for calls, (method, path, reply) in zip(counts, routes, strict=True):
            wire.add_callback(method, re.compile(re.escape(market.url) + path), callback(calls, method, reply))
        yield counts[0]


class Elsewhere:
    """Work in another thread with its own database connection, and what it raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Give it time to come as far as it can before we go on."""
        self.thread.start()
        self.thread.join(0.5)

    def finish(self) -> None:
        self.thread.join(20)
        assert not self.thread.is_alive(), "still waiting"
        assert self.error is None, self.error

    def _run(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001 - told to the test, which fails on it
            self.error = error
        finally:
            connections.close_all()
