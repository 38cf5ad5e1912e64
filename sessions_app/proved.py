"""Machines that have proved themselves, written down together: while one thread writes, the proofs of others gather.

They gather in memory: a proof that is lost with its process is found again, as its session's lease ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q

from gpubroker.common import clock, counters
from gpubroker.common.outlast import patiently
from offers import failures
from providers.base import Phase
from sessions_app import warning, watch
from sessions_app.models import Rental, Session
from sessions_app.states import Debt, Status
from sessions_app.transitions import Move, transition_each

log = logging.getLogger(__name__)

#: Written in one transaction: few enough not to keep others from writing for long.
TOGETHER = 50
PROVISIONING, VERIFY = "gpu_session_provisioning_duration_seconds", "gpu_ssh_verify_duration_seconds"


@dataclass(frozen=True, slots=True)
class Proof:
    """What showed that the machine runs: an event's words, and what is written down with it."""

    reason: str
    details: dict[str, Any]
    session: dict[str, Any]
    host_key: str = ""


@dataclass(frozen=True, slots=True)
class Proved:
    """``session`` and ``rental`` as they were when the machine was looked at."""

    session: Session
    rental: Rental
    proof: Proof


class _Desk:
    """Where proofs gather; whoever comes while nobody writes is the writer until none is left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Proved] = []
        self._writing = False

    def hand_in(self, proved: Proved) -> bool:
        """Whether the caller is to write now."""
        with self._lock:
            self._waiting.append(proved)
            free, self._writing = not self._writing, True
            return free

    def take(self) -> list[Proved]:
        """The next to be written; when there are none, the writer's work is over."""
        with self._lock:
            some, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
            self._writing = bool(some)
            return some

    def leave(self) -> None:
        with self._lock:
            self._writing = False


_desk = _Desk()


def believe(session: Session, rental: Rental, proof: Proof) -> None:
    """Running from now on, unless the session or its machine ended meanwhile. Where another thread is writing, it
    writes this down as well, within a moment."""
    if not _desk.hand_in(Proved(session, rental, proof)):
        return
    try:
        while some := _desk.take():
            _write_all(some)
    except BaseException:
        _desk.leave()
        raise


def _write_all(some: Sequence[Proved]) -> None:
    """One that cannot be written does not keep the others: each is tried again alone."""
    try:
        patiently(lambda: _write(some))
    except Exception:
        if len(some) == 1:
            log.exception("session %s cannot be written down as running", some[0].session.id)
            return  # due again when its lease ends
        for each in some:
            _write_all([each])


def _write(some: Sequence[Proved]) -> None:
    now = clock.now()
    with transaction.atomic():
        booting = Session.objects.filter(id__in=[each.session.id for each in some], status=Status.PROVISIONING)
        fresh = {session.id: session for session in booting.select_for_update(no_key=True).order_by("id")}
        standing = Rental.objects.filter(~Q(phase=Phase.FAILED), id__in=[e.rental.id for e in some], state=Debt.LIVE)
        alive = set(standing.select_for_update(no_key=True).order_by("id").values_list("id", flat=True))
        # It died, or was given up for another, while we were looking.
        died = [each.session.id for each in some if each.rental.id not in alive]
        if died:
            Session.objects.filter(id__in=died, status=Status.PROVISIONING).update(next_check_at=now)
        good = [each for each in some if each.rental.id in alive and each.session.id in fresh]
        for each in good:
            opened = now if each.proof.host_key else None
            machine = Rental.objects.filter(id=each.rental.id)
            machine.update(host_key=each.proof.host_key, last_error="", key_checked_at=opened)
        transition_each(
            [_move(each, fresh[each.session.id], now) for each in good], Status.PROVISIONING, Status.RUNNING
        )
        failures.record_successes(
            failures.Worked(each.rental.provider, fresh[each.session.id].offer_id, each.rental.machine_id,
                            each.rental.gpu_type or each.session.gpu_type)
            for each in good
        )  # fmt: skip
        _count(good, now)
    for each in good:
        log.info("session %s is running: %s", each.session.id, each.proof.reason)


def _move(proved: Proved, fresh: Session, now: datetime) -> Move:
    proof = proved.proof
    changes = {
        "running_at": now, "next_check_at": warning.next_check(fresh, now),
        "next_probe_at": watch.first_look(fresh), **proof.session,
    }  # fmt: skip
    return Move(fresh.id, proof.reason, proof.details, changes)


def _count(good: Sequence[Proved], now: datetime) -> None:
    """How long it took from the request to the proof, and SSH from the first address."""
    found: dict[tuple[str, str], list[float]] = {}
    for each in good:
        provider = each.rental.provider
        found.setdefault((PROVISIONING, provider), []).append(_seconds(each.session.created_at, now))
        if each.proof.host_key:
            found.setdefault((VERIFY, provider), []).append(_seconds(each.rental.verify_from or now, now))
    for (name, provider), durations in sorted(found.items()):
        counters.observe_durations(name, durations, provider=provider)


def _seconds(since: datetime, now: datetime) -> float:
    return max((now - since).total_seconds(), 0.0)
