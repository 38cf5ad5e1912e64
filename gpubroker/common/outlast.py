"""Writing down what is told only once, although the database is being restarted at that very moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

from gpubroker.common import clock

log = logging.getLogger(__name__)
T = TypeVar("T")

#: What says that the database is not there, and nothing of what was asked.
AWAY = (OperationalError, InterfaceError)
#: A restart takes seconds. Whoever waits here holds one of the worker's threads.
SECONDS = 60.0
AGAIN_SECONDS = 0.5


def patiently(write: Callable[[], T], seconds: float = SECONDS) -> T:
    """``write()``, again and again while the database is away. It must bear being repeated: the connection may break
    just after its commit. Never call it inside a transaction: that one is lost, and only its beginner can repeat it."""
    deadline, told = time.monotonic() + seconds, False
    while True:
        try:
            return write()
        except AWAY as error:
            if connection.in_atomic_block or time.monotonic() >= deadline:
                raise
            if not told:
                log.warning("the database is away, what is to be written waits: %s", type(error).__name__)
                told = True
        connection.close()
        clock.pause(AGAIN_SECONDS)
