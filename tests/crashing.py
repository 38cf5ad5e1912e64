"""A worker process that dies, by SIGKILL and by its own hand, at the n-th step of its work.

Steps are the places where the world may be another one afterwards: just before each statement that writes, just before
each commit, before and after each HTTP call to a provider, before each connection that is opened to a machine. What
lies between two of them leaves no trace outside the process, so "after a write" and "before the next step" are the
same place, and the place after the last step is that of a child which ends by itself.

Nothing of ours is patched: statements are seen by Django's own wrapper, commits by the database connection of the
child, calls by the adapter of the ``requests`` library, connections by Python's audit events.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from django.db import connection, connections
from requests import PreparedRequest

from gpubroker.common import providers as configured
from tests.points import seeing_calls

WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")
#: More steps than any operation here has: a child that never comes to its end is a failure.
MOST_STEPS = 300


class _Steps:
    """Counts the steps of this process, tells each to ``report``, and dies at the ``last``; 0: never."""

    def __init__(self, last: int, report: Callable[[str], None]) -> None:
        self.left = last
        self.report = report
        self._in_call = False

    def take(self, name: str) -> None:
        self.report(name)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_statement(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        words = sql.split(None, 3)
        if words[0] in WRITES:
            self.take(f"before {words[0]} {words[1 if words[0] == 'UPDATE' else 2]}")
        return execute(sql, params, many, context)

    def before_call(self, request: PreparedRequest) -> None:
        self.take(f"before {request.method} {request.path_url[:60]}")
        self._in_call = True

    def after_call(self, request: PreparedRequest) -> None:
        self._in_call = False
        self.take(f"after {request.method} {request.path_url[:60]}")

    def on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and not self._in_call and arguments[1][0] == "127.0.0.1":
            self.take("before a connection to a machine")

    @contextmanager
    def counted(self) -> Iterator[None]:
        commit = connection._commit  # type: ignore[attr-defined]

        def counted_commit() -> None:
            self.take("before COMMIT")
            commit()

        connection._commit = counted_commit  # type: ignore[attr-defined]
        sys.addaudithook(self.on_audit)
        with connection.execute_wrapper(self.on_statement), seeing_calls(self.before_call, self.after_call):
            yield


class Outcome:
    """How a child ended: killed at a step, or by itself because it has fewer of them."""

    def __init__(self, killed: bool, steps: list[str]) -> None:
        self.killed = killed
        self.steps = steps

    @property
    def left_nothing(self) -> bool:
        """It was killed before it committed anything or was heard by a provider. (A statement outside of any
        transaction commits itself: that shows in the books only.)"""
        done = self.steps[:-1]
        return self.killed and not any("COMMIT" in name or name.startswith("after") for name in done)

    def __repr__(self) -> str:
        return f"{'killed' if self.killed else 'ended'} after {len(self.steps)} steps, the last: {self.steps[-1:]}"


def run_until(step: int, work: Callable[[], object]) -> Outcome:
    """``work`` in a process of its own, forked from this one, which kills itself at the ``step``-th step.

    A child that fails in any other way is an ``AssertionError`` with its traceback.
    """
    connections.close_all()  # a connection must not be shared with a child
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        _work(step, work, telling)
    os.close(telling)
    with os.fdopen(told, encoding="utf-8") as pipe:
        lines = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, "\n".join(["the child failed:", *lines])
    return Outcome(killed, lines)


def _work(step: int, work: Callable[[], object], telling: int) -> NoReturn:
    """The child's whole life; it never returns into the program that it was forked from."""
    code = 1
    try:
        configured.configured.cache_clear()  # nor its connections to the provider
        with _Steps(step, lambda name: _tell(telling, name)).counted():
            work()
        code = 0
    except BaseException:  # noqa: BLE001 - told to the parent, which fails with it
        _tell(telling, traceback.format_exc())
    finally:
        os._exit(code)


def _tell(pipe: int, text: str) -> None:
    os.write(pipe, f"{text}\n".encode())


class Work(Protocol):
    """One operation by a child that is killed at its ``step``-th step; ``last``: how the child before it ended."""

    def __call__(self, step: int, last: Outcome | None) -> Outcome: ...


def every_step(work: Work) -> list[Outcome]:
    """The operation again and again, killed at the first step, the second, and so on, until one is not reached: so a
    step that is new in the code is in the matrix by itself."""
    outcomes: list[Outcome] = []
    for step in range(1, MOST_STEPS):
        outcomes.append(work(step, outcomes[-1] if outcomes else None))
        if not outcomes[-1].killed:
            return outcomes
    raise AssertionError(f"no end within {MOST_STEPS} steps: {outcomes[-1]}")
