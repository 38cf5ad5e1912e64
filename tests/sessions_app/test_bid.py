"""Another bid for a session's machine: told to the provider, durable, one at a time, and audited."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from gpubroker.common import clock
from sessions_app import bid, drive
from sessions_app.models import Event, Rental, Session
from tests import invariants
from tests.harness import Api, Driver, MovableClock, offers_on_different_machines
from tests.interleave import on_the_wire
from tests.keys import Caller, make
from tests.sandbox import SandboxProcess

SET_BID = r"/api/v0/instances/bid_price/\d+/"


@pytest.fixture
def running(market: SandboxProcess, time: MovableClock, api: Api, driver: Driver) -> str:
    session_id = api.create(pricing="interruptible", bid_price=2, max_price=20)["session"]["id"]
    driver.until_status(session_id, "running")
    return str(session_id)


def rental() -> Rental:
    return Rental.objects.get()


def theirs(market: SandboxProcess) -> list[float]:
    return [contract["bid"] for contract in market.alive()]


def bids(market: SandboxProcess) -> tuple[float | None, float | None, list[float]]:
    """On its way, in our books, and at the marketplace."""
    wanted, ours = rental().bid_wanted, Session.objects.get().bid_price
    return None if wanted is None else float(wanted), None if ours is None else float(ours), theirs(market)


def told() -> list[tuple[str, str]]:
    events = Event.objects.filter(kind__startswith="bid").order_by("id")
    return list(events.values_list("kind", "actor"))


def test_a_bid_is_changed(market: SandboxProcess, api: Api, driver: Driver, running: str) -> None:
    answer = api.post(f"/sessions/{running}/bid", {"bid_price": 3.5})
    assert answer == {"message": "bid changed", "session_id": running, "bid_price": 3.5, "paused": False}
    assert theirs(market) == [3.5]
    shown = api.get(f"/sessions/{running}")
    assert (shown["bid_price"], shown["price_per_hour"], shown["status"]) == (3.5, 3.5, "running")
    event = Event.objects.get(kind="bid_changed")
    assert event.reason == "the bid is 3.5 an hour now, it was 2"
    assert (event.details["before"], event.details["bid_price"]) == ("2.000000", "3.500000")
    driver.sweep_now()
    assert {rental().gpu_rate, rental().price_asked} == {Decimal("3.5")}
    # What was bid is no drift.
    assert not Event.objects.filter(kind="price_drift").exists()
    attempts = api.get(f"/sessions/{running}/attempts")["attempts"]
    assert [(each["price_asked"], each["price_actual"]) for each in attempts] == [(3.5, 3.5)]


def test_a_higher_bid_brings_a_paused_machine_back(
    market: SandboxProcess, api: Api, driver: Driver, running: str
) -> None:
    market.admin("POST", f"instances/{rental().instance_id}/outbid", {"price": 5})
    driver.sweep_now()
    driver.round()
    assert api.post(f"/sessions/{running}/bid", {"bid_price": 4})["paused"] is True
    driver.sweep_now()
    assert market.alive()[0]["state"] == "stopped"
    assert api.post(f"/sessions/{running}/bid", {"bid_price": 6})["paused"] is True
    driver.until(lambda: driver.sweep_now() is not None and not api.get(f"/sessions/{running}")["paused"])
    assert (theirs(market), market.alive()[0]["rival_bid"]) == ([6], 0)


def test_a_bid_below_the_least_pauses_it(market: SandboxProcess, api: Api, driver: Driver, running: str) -> None:
    assert api.post(f"/sessions/{running}/bid", {"bid_price": 0.001})["message"] == "bid changed"
    driver.sweep_now()
    assert api.get(f"/sessions/{running}")["paused"] is True
    assert Event.objects.get(kind="paused").reason.startswith("outbid: the least bid is now 0.0")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "This field is required."),
        ({"bid_price": None}, "This field may not be null."),
        ({"bid_price": True}, "must be a number"),
        ({"bid_price": 0}, "Ensure this value is greater than or equal to 0.001."),
        ({"bid_price": 129}, "Ensure this value is less than or equal to 128."),
        ({"bid_price": 33}, "at most 32 an hour for 1 GPUs, got 33"),
        ({"bid_price": 20.01}, "a bid of 20.01 an hour is above max_price, 20"),
    ],
)
def test_out_of_bounds(market: SandboxProcess, api: Api, running: str, body: dict[str, Any], sentence: str) -> None:
    before = invariants.digest()
    refused = api.post(f"/sessions/{running}/bid", body, 400)
    assert (refused["error"], refused["field"]) == (f"bid_price: {sentence}", "bid_price")
    assert (invariants.digest() == before, theirs(market)) == (True, [2])


def test_only_an_interruptible_machine_that_is_up(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    first, second = offers_on_different_machines(2)
    on_demand = api.create(offer_id=first)["session"]["id"]
    pending = api.create(offer_id=second, pricing="interruptible")["session"]["id"]
    before = invariants.digest()
    refused = api.post(f"/sessions/{on_demand}/bid", {"bid_price": 1}, 409)
    assert refused["error"] == f"session {on_demand} is not interruptible: it has no bid"
    refused = api.post(f"/sessions/{pending}/bid", {"bid_price": 1}, 409)
    assert refused["error"] == f"session {pending} is pending; only a bid for a machine that is up can be changed"
    assert invariants.digest() == before
    driver.until_status(pending, "running")
    api.post(f"/sessions/{pending}/done")
    for status in ("stopping", "stopped"):
        driver.until_status(pending, status)
        refused = api.post(f"/sessions/{pending}/bid", {"bid_price": 1}, 409)
        assert refused["error"] == f"session {pending} is {status}; only a bid for a machine that is up can be changed"
    assert api.post("/sessions/sess-none/bid", {"bid_price": 1}, 404)["error"] == "session sess-none not found"
    assert told() == []


def test_while_it_boots_too(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock) -> None:
    market.settings(boot_seconds=4000)
    session_id = api.create(pricing="interruptible", bid_price=2)["session"]["id"]
    driver.until_status(session_id, "provisioning")
    assert api.post(f"/sessions/{session_id}/bid", {"bid_price": 3})["message"] == "bid changed"
    assert theirs(market) == [3]


def test_anothers_session_is_unknown(market: SandboxProcess, running: str, settings: Any) -> None:
    settings.API_AUTH = "key"
    other, reader = Caller(make("them").secret), Caller(make("my-application", ["read"]).secret)
    assert other("POST", f"/sessions/{running}/bid", {"bid_price": 3})[0] == 404
    assert reader("POST", f"/sessions/{running}/bid", {"bid_price": 3})[0] == 403
    assert Caller(make("my-application").secret)("POST", f"/sessions/{running}/bid", {"bid_price": 3})[0] == 200
    assert told() == [("bid_changed", "consumer:my-application")]


def test_the_same_request_and_the_same_bid_are_told_once(market: SandboxProcess, api: Api, running: str) -> None:
    key = {"Idempotency-Key": "once"}
    with on_the_wire(market, ("PUT", SET_BID, lambda request, n: None)) as calls:
        first = api.post(f"/sessions/{running}/bid", {"bid_price": 3}, 200, **key)
        assert api.post(f"/sessions/{running}/bid", {"bid_price": 3}, 200, **key) == first
        assert api.post(f"/sessions/{running}/bid", {"bid_price": 3}) == first
        assert calls == [1]
    assert [kind for kind, _ in told()] == ["bid_changed"]


@pytest.mark.parametrize(
    ("fault", "after"),
    [({"kind": "error_5xx"}, 2), ({"kind": "lost_answer"}, 3), ({"kind": "truncated_json"}, 3)],
)
def test_what_the_provider_does_not_answer_is_told_again(
    market: SandboxProcess,
    api: Api,
    driver: Driver,
    time: MovableClock,
    running: str,
    fault: dict[str, str],
    after: float,
) -> None:
    market.fault(**fault, operation="bid")
    answer = api.post(f"/sessions/{running}/bid", {"bid_price": 3}, 202)
    assert answer["message"] == "bid change in progress"
    assert bids(market) == (3, 2, [after])
    # Another one has to wait, so that nobody can say which came last.
    refused = api.post(f"/sessions/{running}/bid", {"bid_price": 4}, 409)
    assert refused["error"] == f"a bid of 3 an hour is on its way for session {running}; ask again"
    time.advance(seconds=6)
    driver.round()
    assert bids(market) == (None, 3, [3])
    assert [kind for kind, _ in told()] == ["bid_changed"]


def test_what_the_provider_refuses_is_taken_back(
    market: SandboxProcess, api: Api, driver: Driver, running: str
) -> None:
    market.fault("success_false", operation="bid", message="no such bid")
    refused = api.post(f"/sessions/{running}/bid", {"bid_price": 3}, 409)
    assert (refused["error_type"], refused["error"]) == ("invalid_request", "vastai bid: no such bid")
    assert bids(market) == (None, 2, [2])
    assert [kind for kind, _ in told()] == ["bid_refused"]
    driver.round()
    assert api.post(f"/sessions/{running}/bid", {"bid_price": 3})["message"] == "bid changed"


def test_a_worker_that_died_before_it_told(market: SandboxProcess, time: MovableClock, running: str) -> None:
    """The wish is written down, and the driver finds it when the lease is over."""
    Rental.objects.update(bid_wanted=3, bid_wanted_by="consumer:me", next_check_at=clock.now() + bid.LEASE)
    time.advance(seconds=bid.LEASE.total_seconds() + 1)
    drive.drive_rental(rental().id)
    assert bids(market) == (None, 3, [3])
    assert told() == [("bid_changed", "consumer:me")]


def test_a_session_that_ends_meanwhile(market: SandboxProcess, api: Api, driver: Driver, running: str) -> None:
    def ends(request: Any, n: int) -> None:
        api.post(f"/sessions/{running}/done")

    with on_the_wire(market, ("PUT", SET_BID, ends)):
        refused = api.post(f"/sessions/{running}/bid", {"bid_price": 3}, 409)
    assert refused["error"] == f"session {running} ended meanwhile, it is stopping"
    assert (bids(market)[1], told()) == (2, [])
    driver.until_status(running, "stopped")
    invariants.nothing_is_left(market.ledger())
