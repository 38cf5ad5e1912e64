"""The workers of a soak: processes that tick and work like a deployment's, and may be killed at any moment.

Each is forked from the soak. It runs the product's own tick and tasks; the queue between them is a list in its memory,
which dies with it. All processes share one clock. It runs as time does, and jumps when the soak says so, while nobody
is in the middle of anything.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from celery import current_app
from django.conf import settings
from django.db import close_old_connections, connections

from gpubroker.common import providers as configured
from gpubroker.supervisor.child import tie_to_parent
from sessions_app import tasks

log = logging.getLogger(__name__)
TICK_SECONDS = 0.25
#: Threads for each of the product's queues.
THREADS = {"destroy": 3, "create": 4, "ssh": 8, "default": 3}
MOST_WORKERS = 8
_CLOCK = struct.Struct("=di")
_BUSY = struct.Struct("=i")


class SharedTime:
    """The broker's clock in every process, whether they hold their breath, and how much each has in hand."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _CLOCK.size + MOST_WORKERS * _BUSY.size)
        self.offset = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._read()[0])

    def _read(self) -> tuple[float, bool]:
        offset, held = _CLOCK.unpack_from(self._memory)
        return offset, bool(held)

    @property
    def held(self) -> bool:
        return self._read()[1]

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Nobody begins anything meanwhile."""
        _CLOCK.pack_into(self._memory, 0, self.offset, 1)
        try:
            yield
        finally:
            _CLOCK.pack_into(self._memory, 0, self.offset, 0)

    def busy(self) -> int:
        return sum(_BUSY.unpack_from(self._memory, _CLOCK.size + slot * _BUSY.size)[0] for slot in range(MOST_WORKERS))

    def set_busy(self, slot: int, count: int) -> None:
        _BUSY.pack_into(self._memory, _CLOCK.size + slot * _BUSY.size, count)


class _Queue:
    """A worker's own: tasks go to the threads of their queue, and none begins while time is held."""

    def __init__(self, slot: int, shared: SharedTime) -> None:
        self.slot, self.shared = slot, shared
        self._pools = {name: ThreadPoolExecutor(count) for name, count in THREADS.items()}
        self._lock = threading.Lock()
        self._in_hand = 0

    def send(self, name: str, args: tuple[Any, ...] = (), **options: Any) -> None:
        """In place of Celery's: by the product's own routes, without a broker."""
        queue = settings.CELERY_TASK_ROUTES.get(name, {}).get("queue", "default")
        # A machine that does not answer keeps its look for many seconds; a jump meanwhile only makes it a longer one.
        weight = 0 if queue == "ssh" else 1
        self._pools.get(queue, self._pools["default"]).submit(self.run, weight, current_app.tasks[name], *args)

    def run(self, weight: int, work: Callable[..., Any], *args: Any) -> None:
        """``weight`` 0: whoever holds the time need not wait for its end."""
        self._begin()
        self._count(weight - 1)
        try:
            work(*args)
        except Exception:  # as a worker does: told, and the row is due again by itself
            log.exception("a task failed")
        finally:
            close_old_connections()
            self._count(-weight)

    def _begin(self) -> None:
        """Counted first and looked after: whoever holds the time waits for all that are counted."""
        while True:
            self._count(1)
            if not self.shared.held:
                return
            self._count(-1)
            time.sleep(0.005)

    def _count(self, change: int) -> None:
        with self._lock:
            self._in_hand += change
            self.shared.set_busy(self.slot, self._in_hand)


class Workers:
    """So many processes; whoever is killed is replaced."""

    def __init__(self, count: int, shared: SharedTime) -> None:
        self.shared = shared
        self.pids = [self._fork(slot) for slot in range(count)]

    def _fork(self, slot: int) -> int:
        connections.close_all()  # a connection must not be shared with a child
        tie = tie_to_parent()
        pid = os.fork()
        if pid == 0:
            if tie is not None:
                tie()
            _live(slot, self.shared)
        return pid

    def kill(self, slot: int) -> None:
        """SIGKILL, and another one in its place."""
        self._end(slot)
        self.pids[slot] = self._fork(slot)

    def _end(self, slot: int) -> None:
        os.kill(self.pids[slot], signal.SIGKILL)
        os.waitpid(self.pids[slot], 0)
        self.shared.set_busy(slot, 0)

    def stop(self) -> None:
        for slot in range(len(self.pids)):
            self._end(slot)


def _live(slot: int, shared: SharedTime) -> NoReturn:
    """A worker's whole life: the scheduler's tick, and what it hands on. It never returns into the soak."""
    try:
        configured.configured.cache_clear()
        queue = _Queue(slot, shared)
        setattr(current_app, "send_task", queue.send)  # noqa: B010 - of the library's object, in this process only
        while True:
            queue.run(1, tasks.tick)
            time.sleep(TICK_SECONDS)
    finally:
        os._exit(1)
