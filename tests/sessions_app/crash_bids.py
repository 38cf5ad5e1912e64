"""For the crash matrix: interruptible sessions where an operation begins, and what has to be true of them after it."""

from __future__ import annotations

from typing import Any, Protocol

from sessions_app import bid, drive
from sessions_app.models import Event, Rental, Session
from sessions_app.states import Status
from tests.harness import Api, Driver, MovableClock, describe
from tests.sandbox import SandboxProcess


class World(Protocol):
    """As much of the matrix's world as is needed here."""

    market: SandboxProcess
    api: Api
    driver: Driver
    time: MovableClock

    def running(self, **changes: Any) -> str: ...

    @staticmethod
    def rental(session_id: str) -> Rental: ...


def bidding(world: World) -> str:
    return world.running(pricing="interruptible", bid_price=10)


def outbid(world: World) -> str:
    """Whatever the marketplace does, nobody here has seen it."""
    session_id = bidding(world)
    world.market.admin("POST", f"instances/{world.rental(session_id).instance_id}/outbid")
    return session_id


def back(world: World) -> str:
    """Paused, and its machine runs again."""
    session_id = outbid(world)
    world.driver.sweep_now()
    drive.drive_rental(world.rental(session_id).id)
    world.market.admin("POST", f"instances/{world.rental(session_id).instance_id}/win")
    world.driver.sweep_now()
    return session_id


def bid_more(world: World, session_id: str) -> None:
    world.api.post(f"/sessions/{session_id}/bid", {"bid_price": 20}, 200, **{"Idempotency-Key": session_id})


def one_bid_everywhere(world: World, session_id: str) -> None:
    """What was begun comes to its end: the books and the marketplace agree, and the timeline tells of it once."""
    world.time.advance(seconds=bid.LEASE.total_seconds() + 1)
    world.driver.round()
    session, rental = Session.objects.get(id=session_id), world.rental(session_id)
    (theirs,) = [contract["bid"] for contract in world.market.alive() if contract["label"] == rental.label]
    assert (session.status, float(session.bid_price or 0), rental.bid_wanted) == (Status.RUNNING, theirs, None)
    assert Event.objects.filter(session_id=session_id, kind="bid_changed").count() == int(theirs == 20), describe()


def is_paused_and_wanted(world: World, session_id: str) -> None:
    world.time.advance(seconds=60)
    world.driver.round()
    session, rental = Session.objects.get(id=session_id), world.rental(session_id)
    (intended,) = [contract["intended"] for contract in world.market.alive() if contract["label"] == rental.label]
    assert (session.status, session.paused_at is not None, intended) == (Status.RUNNING, True, "running")


def is_resumed(world: World, session_id: str) -> None:
    world.time.advance(seconds=61)
    world.driver.round()
    session = Session.objects.get(id=session_id)
    assert (session.status, session.paused_at) == (Status.RUNNING, None), describe()
    assert Event.objects.filter(session_id=session_id, kind="resumed").count() == 1
