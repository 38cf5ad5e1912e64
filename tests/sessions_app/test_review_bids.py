"""Bids against budgets, pauses and each other: what a review of them found, kept as it was found."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from billing.budget_models import Reservation
from sessions_app import budget_watch, drive
from sessions_app.models import Rental, Session
from tests.billing.budget_world import budget
from tests.harness import Api, Driver, MovableClock
from tests.interleave import on_the_wire
from tests.sandbox import SandboxProcess
from tests.sessions_app.bidders import others, run

SET_BID = r"/api/v0/instances/bid_price/\d+/"
BUSY = (429, {"Content-Type": "application/json"}, '{"success": false, "error": "rate_limited", "msg": "too fast"}')


@pytest.fixture
def running(market: SandboxProcess, time: MovableClock, api: Api, driver: Driver) -> str:
    budget("my-application", total_limit=1000)
    return run(api, driver, bid_price=2)


def rental() -> Rental:
    return Rental.objects.get()


def promised(session_id: str) -> Decimal:
    return Reservation.objects.get(session_id=session_id).amount


def test_a_refused_bid_promises_nothing(market: SandboxProcess, api: Api, running: str) -> None:
    """I12: the dearer bid was promised before the provider was asked, and the provider said no."""
    before = promised(running)
    market.fault("success_false", operation="bid", message="no such bid")
    api.post(f"/sessions/{running}/bid", {"bid_price": 30}, 409)
    assert promised(running) <= before


def test_a_lower_bid_gives_the_difference_back(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, running: str
) -> None:
    api.post(f"/sessions/{running}/bid", {"bid_price": 30})
    driver.sweep_now()
    dear = promised(running)
    api.post(f"/sessions/{running}/bid", {"bid_price": 2})
    driver.sweep_now()
    time.advance(seconds=20)
    budget_watch.look_due()
    assert promised(running) < dear / 10


def test_a_bid_that_is_told_late_does_not_undo_the_next_one(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, running: str
) -> None:
    """The first request's call is put off; meanwhile the driver tells its bid, and then somebody makes another."""

    def late(request: Any, n: int) -> Any:
        if n > 1:
            return None
        drive.drive_rental(rental().id)
        api.post(f"/sessions/{running}/bid", {"bid_price": 4})
        return BUSY

    with on_the_wire(market, ("PUT", SET_BID, late)) as calls:
        api.post(f"/sessions/{running}/bid", {"bid_price": 3}, 409)
    assert len(calls) == 3
    assert (Session.objects.get().bid_price, rental().bid_wanted) == (Decimal(4), None)
    assert [contract["bid"] for contract in market.alive()] == [4]


def test_a_bid_during_which_the_machine_is_stopped_starts_no_meter(
    market: SandboxProcess, api: Api, driver: Driver, running: str
) -> None:
    """I11: a machine that stands still costs its disk only."""

    def outbid(request: Any, n: int) -> None:
        others(market, running, "outbid", price=25)
        driver.sweep_now()

    driver.sweep_now()
    assert rental().gpu_rate == 2
    with on_the_wire(market, ("PUT", SET_BID, outbid)):
        assert api.post(f"/sessions/{running}/bid", {"bid_price": 3})["paused"] is True
    assert (rental().gpu_rate, Session.objects.get().bid_price) == (None, Decimal(3))
