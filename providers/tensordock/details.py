"""What only the detail call tells of a machine (address, ports, rate), for the rows of a listing.

A listing tells id, name and status (section 6.1), and the broker reads everything from listings. So the machines that a
broker made are looked at one by one, and what was said is kept as long as the listing says the same of them: a boot
is seen at once, and a hundred machines that run on do not use up the calls that destroys may need. What is kept
here may be lost at any time without harm.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from providers.base import Instance
from providers.errors import AuthError, GateClosed, ProviderError, RateLimited
from providers.gates import Clock
from providers.labels import parse_label
from providers.tensordock.instances import read_instance, tells_all

logger = logging.getLogger(__name__)

#: Addresses and rates of a running machine hardly ever change (section 6.2).
KEEP_SECONDS = 120.0
#: How long a machine without a known address may wait for its slot. Others do not wait.
WAIT = 30.0
#: Failures after which a listing stops asking: the vendor is down, and each call would cost its whole time-out.
MOST_FAILURES = 2
#: After these every further call would fail as well.
_HOPELESS = (GateClosed, RateLimited, AuthError)


@dataclass(frozen=True, slots=True)
class _Kept:
    status: str
    instance: Instance
    at: float


@dataclass(slots=True)
class _Asking:
    """One listing's questions."""

    failures: int = 0


class Details:
    """``ask`` is the detail call: id and wait, to the instance or ``None``. Thread-safe."""

    def __init__(self, ask: Callable[[str, float], Instance | None], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def describe(self, rows: Sequence[dict[str, Any]]) -> tuple[Instance, ...]:
        """The listed machines in their order, each with its details where they can be had. A detail that fails does not
        make the listing fail: who is there is known, and one broken machine must not hide all others."""
        asking = _Asking()
        described = tuple(self._described(row, asking) for row in rows)
        self._forget_all_but({instance.instance_id for instance in described})
        return described

    def _described(self, row: dict[str, Any], asking: _Asking) -> Instance:
        plain = read_instance(row)
        if tells_all(row) or parse_label(plain.label) is None:
            return plain
        kept = self._known(plain)
        told = kept.instance if kept else None
        settled = bool(told and told.ssh_endpoints)
        fresh = kept is not None and self._clock.monotonic() - kept.at < KEEP_SECONDS
        if not (settled and fresh) and asking.failures < MOST_FAILURES:
            try:
                told = self._look(plain, 0.0 if settled else WAIT) or told
            except ProviderError as error:
                # A refresh that has no slot is no failure: it may wait for the next listing.
                if not (settled and isinstance(error, GateClosed)):
                    asking.failures += MOST_FAILURES if isinstance(error, _HOPELESS) else 1
                    logger.info("no details of %s: %s", plain.label, error)
        # The listing's own label decides whose the machine is.
        return dataclasses.replace(told, label=plain.label) if told else plain

    def _known(self, plain: Instance) -> _Kept | None:
        with self._lock:
            kept = self._kept.get(plain.instance_id)
        return kept if kept is not None and kept.status == plain.status else None

    def _look(self, plain: Instance, wait: float) -> Instance | None:
        told = self._ask(plain.instance_id, wait)
        if told is not None:
            with self._lock:
                self._kept[plain.instance_id] = _Kept(plain.status, told, self._clock.monotonic())
        return told

    def _forget_all_but(self, listed: set[str]) -> None:
        with self._lock:
            for gone in self._kept.keys() - listed:
                del self._kept[gone]
