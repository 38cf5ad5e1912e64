"""Real threads with connections of their own, on PostgreSQL: two things at once, many times over, and one winner."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from gpubroker.common import clock
from gpubroker.common.errors import ApiError
from sessions_app import attempts, claims, drive, services, sweep
from sessions_app.ending import end_session
from sessions_app.extend import extend
from sessions_app.models import Event, Rental, SeenOrphan, Session
from sessions_app.states import FINAL, OPEN, Debt, EndReason
from tests import invariants
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import SandboxProcess
from tests.sessions_app import many

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]
TIMES = 8


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """All of them from one starting shot, each in a thread of its own: what each returned or was refused with."""
    shot = threading.Barrier(len(works))
    outcomes: list[Any] = [None] * len(works)

    def run(place: int, work: Callable[[], Any]) -> None:
        shot.wait(20)
        try:
            outcomes[place] = work()
        except BaseException as error:  # noqa: BLE001 - handed to the test, which looks at it
            outcomes[place] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "still waiting: a deadlock?"
    return outcomes


def over(driver: Driver, market: SandboxProcess) -> None:
    """Driven to its end, with nothing left, one machine at a time, and a timeline without a break."""
    driver.until(lambda: not Session.objects.exclude(status__in=FINAL).exists())
    driver.until(lambda: not Rental.objects.filter(state__in=OPEN).exists())
    ledger = market.ledger()
    invariants.nothing_is_left(ledger)
    invariants.one_machine_per_session(ledger)
    invariants.no_label_twice(ledger)
    invariants.books_are_consistent()
    invariants.timelines_are_paths()


def test_create_and_sweep(market_with_threads: SandboxProcess, api: Api, driver: Driver) -> None:
    """The machine stands in the listings while the create's answer is on its way."""
    market = market_with_threads
    api.create()
    sweep.claim_due()
    market.fault("slow", operation="create", seconds=0.5, after=True)
    rental = Rental.objects.get()
    sweeps = [lambda: [sweep.sweep("vastai") for _ in range(5)]] * 2
    outcomes = at_once(lambda: drive.drive_rental(rental.id), *sweeps)
    assert outcomes[0] is None
    assert [len(swept) for swept in outcomes[1:]] == [5, 5]
    assert not SeenOrphan.objects.exists()
    assert Session.objects.get().status in ("provisioning", "running")
    assert [contract["label"] for contract in market.alive()] == [rental.label]
    end_session(Session.objects.get().id, EndReason.DELETED)
    over(driver, market)


def test_delete_and_verify(market_with_threads: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until(lambda: bool(Rental.objects.get().ssh_endpoints))
    outcomes = at_once(lambda: drive.drive_session(session_id), lambda: services.destroy(session_id))
    assert outcomes == [None, None]
    session = Session.objects.get()
    assert (session.status, session.end_reason) == ("stopping", "deleted")
    assert Rental.objects.get().state == Debt.DESTROYING
    over(driver, market_with_threads)


def test_extend_and_expiry(time: MovableClock) -> None:
    """At the very end of a session: it goes on for an hour, or it is over and nobody was promised one."""
    outcomes = set()
    for _ in range(TIMES):
        session = many.session(expires_at=clock.now() + timedelta(seconds=0.05))
        many.rental(session)

        def expire(session: Session = session) -> None:
            while clock.now() < session.expires_at:
                drive.end_due([session.id])
            drive.end_due([session.id])

        def prolong(session: Session = session) -> Any:
            clock.pause(0.05)
            return extend(session.id, 1)

        promised = at_once(expire, prolong)[1]
        after = Session.objects.get(id=session.id)
        refused = isinstance(promised, ApiError) and promised.status == 409
        prolonged = after.expires_at == session.expires_at + timedelta(hours=1) == promised
        outcomes.add((after.status, after.end_reason, refused, prolonged))
    assert outcomes <= {("running", "", False, True), ("stopping", "expired", True, False)}


def test_two_beats() -> None:
    """No row is handed out twice, and none is left."""
    now = clock.now()
    boots = {many.session(consumer=str(n % 3), next_check_at=now).id for n in range(40)}
    debts = {many.debt(consumer=str(n % 3)).id for n in range(40)}
    ends = {many.session(expires_at=now, next_check_at=now).id for _ in range(40)}
    first, second = at_once(claims.due, claims.due)
    for wanted, one, other in (
        (boots, first.sessions, second.sessions),
        (ends, first.ends, second.ends),
        (debts, first.debts.get("vastai", []), second.debts.get("vastai", [])),
    ):
        assert len(one) + len(other) == len(wanted)
        assert {*one, *other} == wanted


def test_two_ticks_end_a_session_once() -> None:
    now = clock.now()
    ids = {many.session(expires_at=now, next_check_at=now).id for _ in range(60)}
    for session_id in ids:
        many.rental(Session.objects.get(id=session_id))
    outcomes = at_once(drive.tick, drive.tick)
    assert sum(outcomes) >= len(ids)
    assert set(Session.objects.values_list("status", "end_reason")) == {("stopping", "expired")}
    assert Event.objects.filter(kind="session", to_state="stopping").count() == len(ids)
    assert Event.objects.filter(kind="rental", to_state="destroying").count() == len(ids)


def test_two_workers_on_one_row(market_with_threads: SandboxProcess, api: Api, driver: Driver) -> None:
    """One create, whoever makes it; and one proof that closes."""
    market = market_with_threads
    session_id = api.create()["session"]["id"]
    rental_id = Rental.objects.get().id
    assert at_once(*[lambda: drive.drive_rental(rental_id)] * 3) == [None] * 3
    assert len(market.ledger()) == 1
    end_session(session_id, EndReason.DONE)
    assert at_once(*[lambda: drive.drive_rental(rental_id)] * 3) == [None] * 3
    assert Event.objects.filter(kind="rental", to_state="closed").count() == 1
    over(driver, market)


def test_done_and_retry(market_with_threads: SandboxProcess, api: Api, driver: Driver) -> None:
    """The machine failed to start, and in the moment when another one would follow the consumer has done."""
    market = market_with_threads
    market.fault("boot_exited")
    session_id = api.create(auto_retry=True, retry_scope="any")["session"]["id"]
    driver.until_status(session_id, "provisioning")
    rental = Rental.objects.get()
    failing, done = at_once(
        lambda: attempts.fail(rental, EndReason.BOOT_FAILED, "it exited"), lambda: services.done(session_id)
    )
    assert isinstance(failing, bool)
    assert done is None
    over(driver, market)
    assert (Session.objects.get().status, Session.objects.get().end_reason) == ("stopped", "done")
    assert len(market.ledger()) == 1


def test_done_and_the_next_attempt(market_with_threads: SandboxProcess, api: Api, driver: Driver) -> None:
    market = market_with_threads
    market.fault("offer_gone")
    session_id = api.create(auto_retry=True, retry_scope="any")["session"]["id"]
    drive.drive_rental(Rental.objects.get().id)
    assert (Session.objects.get().status, Rental.objects.get().state) == ("pending", Debt.CLOSED)
    assert at_once(lambda: attempts.next_attempt(session_id), lambda: services.done(session_id)) == [None, None]
    over(driver, market)
    assert (Session.objects.get().status, Session.objects.get().end_reason) == ("stopped", "done")
    assert market.ledger() == []


def test_preserve_and_delete(market_with_threads: SandboxProcess, api: Api, driver: Driver) -> None:
    """The machine is being stopped for its disk, and the consumer gives the disk up."""
    session_id = api.create(storage_policy="preserve", preserve_hours=2)["session"]["id"]
    driver.until_status(session_id, "running")
    end_session(session_id, EndReason.DONE)
    rental_id = Rental.objects.get().id
    assert at_once(lambda: drive.drive_rental(rental_id), lambda: services.destroy(session_id)) == [None, None]
    assert Rental.objects.get().state in (Debt.DESTROYING, Debt.CLOSED)
    over(driver, market_with_threads)
    assert Session.objects.get().end_reason == "done"
