"""I9, step by step: a worker process is killed at every step of every operation, everything starts again, and by the
marketplace's own ledger nothing is unlabelled, nothing unowned, and by the books nothing is stuck.

Each operation is tried again and again, killed one step later each time, until a worker comes to its end. A subject on
which the killed worker left no trace serves for the next step as well. Then one restart finds all the debris. Restart
is, on SQLite, what the one host does (:func:`drive.recover`); on PostgreSQL nobody knows that somebody died, and leases
run out. ``GPUBROKER_LONG=1``: every operation on PostgreSQL too, and each with a second fault on top.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from gpubroker.common import ids
from gpubroker.common.deployment import deployment_id
from providers.labels import make_label
from sessions_app import drive, sweep
from sessions_app.launch import CREATE_LEASE
from sessions_app.models import Rental, SeenOrphan, Session
from sessions_app.states import Debt, Status
from tests import crashing, invariants
from tests.harness import Api, Driver, MovableClock, describe, offers_on_different_machines, refresh_offers
from tests.sandbox import SandboxProcess
from tests.sessions_app import crash_bids

LONG = bool(os.environ.get("GPUBROKER_LONG"))
#: What the driver has to deal with at once; a preserved machine and one that runs wait for their own time.
BUSY = (Status.PENDING, Status.PROVISIONING, Status.STOPPING)
OWED = (Debt.INTENDED, Debt.CREATING, Debt.UNKNOWN, Debt.PARKING, Debt.DESTROYING)
#: Of the ledger: what a step can change, and time alone does not.
FACTS = ("id", "label", "alive", "intended", "keys")


@pytest.fixture(scope="module")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A larger market than other tests need, where machines are up at once."""
    folder = tmp_path_factory.mktemp("sandbox")
    with SandboxProcess(folder, boot_seconds=0, credit=10_000, offers=320) as process:
        yield process


class World:
    """A market, the books, and what it takes to bring a session to where an operation begins."""

    def __init__(self, market: SandboxProcess, api: Api, driver: Driver, time: MovableClock) -> None:
        self.market, self.api, self.driver, self.time = market, api, driver, time
        self.numbers = itertools.count()
        self.foreign = {market.foreign("gpb-another-aaaaaaaaaaaaaaaa-1"), market.foreign("somebody's")}
        refresh_offers()
        # The dearest first: another attempt takes the cheapest.
        self.offers = iter(offers_on_different_machines(500)[::-1])
        self.died: set[str] = set()

    def created(self, **changes: Any) -> str:
        consumer = f"consumer-{next(self.numbers)}"
        return str(self.api.create(consumer_id=consumer, offer_id=next(self.offers), **changes)["session"]["id"])

    def launched(self, **changes: Any) -> str:
        session_id = self.created(**changes)
        drive.drive_rental(self.rental(session_id).id)
        return session_id

    def with_address(self, **changes: Any) -> str:
        session_id = self.launched(**changes)
        self.driver.sweep_now()
        return session_id

    def running(self, **changes: Any) -> str:
        session_id = self.with_address(**changes)
        drive.drive_session(session_id)
        assert Session.objects.get(id=session_id).status == Status.RUNNING, describe()
        return session_id

    def with_address_and_no_time(self) -> str:
        session_id = self.with_address()
        self.time.advance(hours=2, seconds=1)
        return session_id

    def ended(self) -> str:
        session_id = self.with_address()
        self.api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
        return session_id

    def broken(self) -> str:
        """With its machine dead before it ran, so that another attempt is due."""
        session_id = self.launched(auto_retry=True, max_retries=5, retry_scope="any")
        machine = self.rental(session_id).instance_id
        self.died.add(machine)
        self.market.machine_dies(machine, "exited")
        self.driver.sweep_now()
        return session_id

    def failed(self) -> str:
        session_id = self.broken()
        drive.drive_session(session_id)
        return session_id

    def between(self) -> str:
        """Pending, with nothing left of its failed attempt."""
        session_id = self.failed()
        drive.drive_rental(self.rental(session_id).id)
        return session_id

    def parking(self) -> str:
        session_id = self.running(storage_policy="preserve")
        self.api.post(f"/sessions/{session_id}/done")
        return session_id

    def preserved(self) -> str:
        session_id = self.parking()
        drive.drive_rental(self.rental(session_id).id)
        self.time.advance(hours=25)
        return session_id

    def lost(self) -> str:
        """A machine that was made, and a create that never heard of it."""
        session_id = self.created()
        self.market.fault("lost_answer", label=self.rental(session_id).label)
        drive.drive_rental(self.rental(session_id).id)
        return session_id

    def orphan(self) -> str:
        """Seen, and past its grace."""
        machine = self.market.foreign(make_label(deployment_id(), ids.new_session_id(), 1))
        self.driver.sweep_now()
        assert SeenOrphan.objects.filter(instance_id=machine).exists()
        self.time.advance(seconds=settings.ORPHAN_GRACE_SECONDS + 1)
        return str(machine)

    @staticmethod
    def rental(session_id: str) -> Rental:
        return Rental.objects.filter(session_id=session_id).latest("attempt")

    def traces(self) -> list[Any]:
        """Everything in the books and at the marketplace that a step can change."""
        return [invariants.digest(), [[contract[name] for name in FACTS] for contract in self.market.ledger()]]

    # -- after the crash -----------------------------------------------------------------------------------

    def restart(self) -> None:
        """Everything starts again, and has a quarter of an hour to put things right."""
        if settings.EMBEDDED:
            drive.recover()
        else:
            self.time.advance(seconds=CREATE_LEASE.total_seconds() + 1)
        for _ in range(180):
            self.driver.round()
            if not self.busy():
                return
            self.time.advance(seconds=5)
        raise AssertionError(f"stuck:\n{describe()}")

    def busy(self) -> bool:
        orphans = SeenOrphan.objects.exists()
        owed = Rental.objects.filter(state__in=OWED).exists()
        return orphans or owed or Session.objects.filter(status__in=BUSY).exists()

    def check(self) -> None:
        whole = self.market.ledger()
        contracts = [contract for contract in whole if contract["id"] not in self.foreign]
        strays = set(Rental.objects.filter(origin="orphan").values_list("instance_id", flat=True))
        invariants.every_machine_has_its_rental([c for c in contracts if str(c["id"]) not in strays])
        invariants.no_label_twice(contracts)
        invariants.one_machine_per_session(contracts)
        invariants.foreign_machines_live(whole, self.foreign)
        invariants.closed_means_gone(contracts)
        invariants.every_live_machine_is_owed_or_wanted(contracts)
        invariants.books_are_consistent()
        invariants.timelines_are_paths()
        invariants.no_false_end(self.died)

    def end_everything(self) -> None:
        """Everybody gives everything back, kept disks too: nothing may be left."""
        for session_id in Session.objects.values_list("id", flat=True):
            gone = self.api.client.delete(f"/api/v1/sessions/{session_id}", headers={"Prefer": "wait=0"})
            assert gone.status_code in (200, 202), gone.content
        self.restart()
        self.check()
        invariants.nothing_is_left([c for c in self.market.ledger() if c["id"] not in self.foreign])


@pytest.fixture
def world(sandbox: SandboxProcess, transactional_db: None, api: Api, driver: Driver, time: MovableClock) -> World:
    made = World(sandbox, api, driver, time)
    # Once by itself, so that no child spends its time on first imports.
    made.running()
    return made


def ask(world: World, offer: str) -> str:
    """A create that its consumer repeats, with the same ``Idempotency-Key``, until there is an answer."""
    body = {"consumer_id": offer, "offer_id": offer, "workload_type": "llm", "reservation_hours": 2}
    answer = world.api.post("/sessions", body, 201, **{"Prefer": "wait=0", "Idempotency-Key": offer})
    return str(answer["session"]["id"])


def extend(world: World, session_id: str) -> None:
    world.api.post(f"/sessions/{session_id}/extend", {"additional_hours": 1}, 200, **{"Idempotency-Key": session_id})


def rekey(world: World, session_id: str) -> None:
    world.api.post(f"/sessions/{session_id}/rekey", {"ssh_key_type": "ed25519"})


def delete(world: World, session_id: str) -> None:
    world.api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")


def done(world: World, session_id: str) -> None:
    world.api.post(f"/sessions/{session_id}/done")


def drive_session(world: World, session_id: str) -> None:
    drive.drive_session(session_id)


def drive_rental(world: World, session_id: str) -> None:
    drive.drive_rental(world.rental(session_id).id)


def look_around(world: World, subject: str) -> None:
    sweep.sweep("vastai")


def tick(world: World, session_id: str) -> None:
    drive.tick()


def asked_once(world: World, offer: str) -> None:
    """Whoever repeats the create gets the session that the killed one made, or the first."""
    session_id = ask(world, offer)
    assert list(Session.objects.filter(consumer__name=offer).values_list("id", flat=True)) == [session_id]


def extended_once(world: World, session_id: str) -> None:
    extend(world, session_id)
    session = Session.objects.get(id=session_id)
    assert session.expires_at - session.created_at == timedelta(hours=3)
    assert session.status == Status.RUNNING


def both_keys_open(world: World, session_id: str) -> None:
    session, rental = Session.objects.get(id=session_id), world.rental(session_id)
    assert session.status == Status.RUNNING
    keys = next(contract["keys"] for contract in world.market.alive() if contract["label"] == rental.label)
    bodies = {key.split()[1] for key in keys}
    assert {session.ssh_public_key.split()[1], rental.broker_public_key.split()[1]} <= bodies


def came_to(*ends: str) -> Callable[[World, str], None]:
    """What the session of a crash may come to, with nobody's help."""

    def check(world: World, session_id: str) -> None:
        session = Session.objects.get(id=session_id)
        assert f"{session.status} {session.end_reason}".strip() in ends, describe()

    return check


def machine_gone(world: World, machine: str) -> None:
    assert machine not in {str(contract["id"]) for contract in world.market.alive()}


@dataclass(frozen=True)
class Operation:
    """``act`` is done, by a process that is killed, to what ``prepare`` has made ready; ``check`` asks after the
    restart what became of it. ``lasts``: its subject serves for every step, whatever the step before did to it.
    ``alone``: there is a restart after each crash, because what one leaves behind is work for the next one."""

    name: str
    prepare: Callable[[World], str]
    act: Callable[[World, str], object]
    check: Callable[[World, str], None]
    lasts: bool = False
    alone: bool = False


OPERATIONS = (
    Operation("create", lambda world: next(world.offers), ask, asked_once),
    Operation("launch", World.created, drive_rental, came_to("running", "failed create_lost")),
    Operation("verify", World.with_address, drive_session, came_to("running")),
    Operation("extend", World.running, extend, extended_once, lasts=True),
    Operation("rekey", World.running, rekey, both_keys_open, lasts=True),
    Operation("bid", crash_bids.bidding, crash_bids.bid_more, crash_bids.one_bid_everywhere),
    Operation("pause", crash_bids.outbid, look_around, crash_bids.is_paused_and_wanted),
    Operation("resume", crash_bids.back, drive_session, crash_bids.is_resumed),
    Operation("delete", World.with_address, delete, came_to("provisioning", "running", "stopped deleted")),
    Operation("expire", World.with_address_and_no_time, tick, came_to("stopped expired")),
    Operation("settle", World.ended, drive_rental, came_to("stopped deleted")),
    Operation("done", lambda world: world.running(storage_policy="preserve"), done, came_to("running", "stopped done")),
    Operation("park", World.parking, drive_rental, came_to("stopped done")),
    Operation("kept long enough", World.preserved, drive_rental, came_to("stopped done")),
    Operation("fail an attempt", World.broken, drive_session, came_to("running")),
    Operation("settle an attempt", World.failed, drive_rental, came_to("running"), alone=True),
    Operation("next attempt", World.between, drive_session, came_to("running")),
    Operation("adopt", World.lost, look_around, came_to("running"), alone=True),
    Operation("orphan", World.orphan, look_around, machine_gone),
)
#: PostgreSQL differs in who ends a dead worker's transaction, and when: that shows where the most is written.
ON_BOTH = ("launch", "settle", "next attempt")
CHOSEN = [op for op in OPERATIONS if LONG or connection.vendor == "sqlite" or op.name in ON_BOTH]
#: On top of the crash, while everything starts again.
SECOND: dict[str, tuple[dict[str, Any], ...]] = {
    "": (),
    "listings fail": ({"kind": "error_5xx", "operation": "list", "times": 4},),
    "listings lie": ({"kind": "empty_listing", "times": 1}, {"kind": "partial_listing", "times": 1, "skip": 1}),
    "answers are lost": ({"kind": "lost_answer", "operation": "any", "times": 6, "skip": 1},),
    "destroys are refused": ({"kind": "refuse_destroy", "mode": "silent", "times": 6},),
}


@pytest.mark.parametrize("second", list(SECOND) if LONG else [""], ids=lambda name: name or "alone")
@pytest.mark.parametrize("operation", CHOSEN, ids=lambda operation: operation.name)
def test_killed_at_every_step(world: World, operation: Operation, second: str) -> None:
    outcomes, subjects = kill_at_every_step(world, operation)
    # Every step was the last of somebody, and the last worker came to its end.
    assert [outcome.killed for outcome in outcomes] == [True] * (len(outcomes) - 1) + [False]
    assert any("COMMIT" in name for name in outcomes[-1].steps), outcomes[-1].steps
    for fault in SECOND[second]:
        world.market.fault(**fault)
    world.restart()
    world.market.clear_faults()
    world.check()
    for subject in subjects:
        operation.check(world, subject)
    world.end_everything()


def kill_at_every_step(world: World, operation: Operation) -> tuple[list[crashing.Outcome], list[str]]:
    """How each worker ended, and all that they worked on."""
    subjects: list[str] = []
    untouched: list[Any] = []

    def ready(last: crashing.Outcome | None) -> str:
        """The subject of the step before if it bears no trace, else another."""
        reuse = last is not None and (operation.lasts or (last.left_nothing and world.traces() == untouched))
        if not reuse:
            subjects.append(operation.prepare(world))
            untouched[:] = world.traces()
        return subjects[-1]

    def work(step: int, last: crashing.Outcome | None) -> crashing.Outcome:
        subject = ready(last)
        outcome = crashing.run_until(step, lambda: operation.act(world, subject))
        if operation.alone and not outcome.left_nothing:
            world.restart()
        return outcome

    return crashing.every_step(work), subjects
