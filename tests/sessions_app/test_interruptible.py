"""Interruptible sessions until they run: what may be bid, bids that do not win, outbid while they boot."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gpubroker.common import providers as configured
from offers.models import Offer, OfferFailure
from sessions_app import boot_time
from sessions_app.models import Rental, Session
from sessions_app.states import Debt
from tests import invariants
from tests.harness import Api, Driver, MovableClock, offers_on_different_machines, refresh_offers
from tests.sandbox import SandboxProcess
from tests.sessions_app.bidders import DEAR, kinds, last, others, rental_of, run


@pytest.fixture
def offer(market: SandboxProcess) -> Offer:
    return Offer.objects.get(id=offers_on_different_machines(1)[0])


# -- create and estimate ---------------------------------------------------------------------------------------


def test_the_bid_goes_with_the_order_and_is_the_price(
    market: SandboxProcess, offer: Offer, api: Api, driver: Driver, time: MovableClock
) -> None:
    assert (offer.interruptible, offer.min_bid_per_hour is not None) == (True, True)
    shown = api.create(offer_id=offer.id, pricing="interruptible", bid_price=DEAR)["session"]
    assert (shown["pricing"], shown["bid_price"], shown["price_per_hour"]) == ("interruptible", DEAR, DEAR)
    assert (shown["paused"], shown["paused_at"]) == (False, None)
    driver.until_status(shown["id"], "running")
    assert [(contract["is_bid"], contract["bid"]) for contract in market.alive()] == [(True, DEAR)]
    driver.sweep_now()
    assert {rental_of(shown["id"]).price_asked, rental_of(shown["id"]).gpu_rate} == {Decimal(DEAR)}


def test_without_a_bid_it_is_the_least_one(market: SandboxProcess, offer: Offer, api: Api, driver: Driver) -> None:
    shown = api.create(offer_id=offer.id, pricing="interruptible")["session"]
    assert Decimal(str(shown["bid_price"])) == offer.min_bid_per_hour
    driver.until_status(shown["id"], "running")
    assert [Decimal(str(contract["bid"])) for contract in market.alive()] == [offer.min_bid_per_hour]


def test_on_demand_has_no_bid(market: SandboxProcess, offer: Offer, api: Api, driver: Driver) -> None:
    shown = api.create(offer_id=offer.id)["session"]
    assert (shown["pricing"], shown["bid_price"], shown["paused"]) == ("on_demand", None, False)
    driver.until_status(shown["id"], "running")
    assert [contract["is_bid"] for contract in market.alive()] == [False]


@pytest.mark.parametrize(
    ("asked", "field", "sentence"),
    [
        ({"bid_price": 1, "pricing": "on_demand"}, "bid_price", "only with pricing interruptible"),
        ({"pricing": "spot"}, "pricing", '"spot" is not a valid choice.'),
        ({"bid_price": 0.0011}, "bid_price", "at least 0.04 an hour on this offer, got 0.0011"),
        ({"bid_price": 0.0001}, "bid_price", "Ensure this value is greater than or equal to 0.001."),
        ({"bid_price": 129}, "bid_price", "Ensure this value is less than or equal to 128."),
        ({"bid_price": 33}, "bid_price", "at most 32 an hour for 1 GPUs, got 33"),
        ({"bid_price": "1"}, "bid_price", "must be a number"),
        ({"bid_price": 2, "max_price": 1}, "bid_price", "a bid of 2 an hour is above max_price, 1"),
        ({"max_price": 0.01}, "max_price", "a bid of 0.04 an hour is above max_price, 0.01"),
    ],
)  # fmt: skip
def test_what_cannot_be_bid(
    market: SandboxProcess, offer: Offer, api: Api, asked: dict[str, Any], field: str, sentence: str
) -> None:
    Offer.objects.filter(id=offer.id).update(min_bid_per_hour=Decimal("0.04"))
    before = invariants.digest()
    asked = {"pricing": "interruptible", **asked}
    refused = api.create(400, offer_id=offer.id, **asked)
    assert (refused["field"], refused["error"]) == (field, f"{field}: {sentence}")
    body = {"consumer_id": "me", "offer_id": offer.id, "workload_type": "llm", "reservation_hours": 1, **asked}
    assert api.post("/sessions/estimate", body, 400)["error"] == refused["error"]
    assert invariants.digest() == before


def test_only_where_bids_are_taken(market: SandboxProcess, offer: Offer, api: Api) -> None:
    Offer.objects.filter(id=offer.id).update(interruptible=False)
    refused = api.create(400, offer_id=offer.id, pricing="interruptible")
    assert refused["error"] == "pricing: no bids are taken on this offer; use on_demand"
    Offer.objects.filter(id=offer.id).update(interruptible=True, min_bid_per_hour=None)
    refused = api.create(400, offer_id=offer.id, pricing="interruptible")
    assert refused["error"] == "bid_price: needed: this offer does not tell the least bid"
    assert Session.objects.count() == 0


def test_a_provider_without_bids(market: SandboxProcess, api: Api, settings: Any) -> None:
    settings.TENSORDOCK_API_TOKEN = market.tensordock_tokens[0]
    settings.TENSORDOCK_BASE_URL = market.tensordock_url
    configured.configured.cache_clear()
    refresh_offers("tensordock")
    dock = Offer.objects.filter(provider="tensordock").earliest("id")
    refused = api.create(400, offer_id=dock.id, pricing="interruptible", bid_price=1)
    assert refused["error"] == "pricing: tensordock has no interruptible machines; use on_demand"
    assert dock.interruptible is False


def test_an_estimate_of_the_bid(market: SandboxProcess, offer: Offer, api: Api) -> None:
    body = {"consumer_id": "me", "offer_id": offer.id, "workload_type": "llm", "reservation_hours": 3}
    told = api.post("/sessions/estimate", {**body, "pricing": "interruptible", "bid_price": 0.5})
    assert (told["pricing"], told["bid_price"]) == ("interruptible", 0.5)
    assert (told["per_hour"]["gpu"], told["total"]["gpu"]) == (0.5, 1.5)
    assert api.post("/sessions/estimate", body)["bid_price"] is None


def test_a_contract_that_comes_with_a_refusal_is_destroyed(
    market: SandboxProcess, offer: Offer, api: Api, driver: Driver, time: MovableClock
) -> None:
    """A bid too low: the machine exists, stopped, and its disk would be billed for ever."""
    market.fault("success_false", operation="create", contract=True, message="your bid is below the winning price")
    session_id = api.create(offer_id=offer.id, pricing="interruptible")["session"]["id"]
    driver.until_status(session_id, "failed")
    assert len(market.ledger()) == 1
    assert market.alive() == []
    invariants.nothing_is_left(market.ledger())
    session = Session.objects.get(id=session_id)
    assert (session.end_reason, session.end_message) == ("outbid", "your bid is below the winning price")
    assert (rental_of(session_id).state, rental_of(session_id).proof is not None) == (Debt.CLOSED, True)
    # It says nothing about the machine.
    assert OfferFailure.objects.count() == 0


def test_an_offer_that_is_gone_for_a_bid_is_held_against_nobody(
    market: SandboxProcess, offer: Offer, api: Api, driver: Driver, time: MovableClock
) -> None:
    """The marketplace says so of a bid that is too low by now: nothing is made, as we forbid it."""
    Offer.objects.filter(id=offer.id).update(min_bid_per_hour=Decimal("0.001"))
    session_id = api.create(offer_id=offer.id, pricing="interruptible", bid_price=0.002)["session"]["id"]
    driver.until_status(session_id, "failed")
    assert (Session.objects.get(id=session_id).end_reason, market.ledger()) == ("offer_gone", [])
    assert OfferFailure.objects.count() == 0


def test_a_refused_bid_goes_on_elsewhere_where_that_was_asked(
    market: SandboxProcess, offer: Offer, api: Api, driver: Driver, time: MovableClock
) -> None:
    market.fault("success_false", operation="create", contract=True)
    session_id = run(api, driver, offer_id=offer.id, auto_retry=True, retry_scope="any")
    attempts = api.get(f"/sessions/{session_id}/attempts")["attempts"]
    assert [(each["error"] or {}).get("reason") for each in attempts] == ["outbid", None]
    assert [(contract["is_bid"], contract["bid"]) for contract in market.alive()] == [(True, DEAR)]
    invariants.one_machine_per_session(market.ledger())


def test_the_next_attempt_is_where_the_bid_is_enough(
    market: SandboxProcess, offer: Offer, api: Api, driver: Driver, time: MovableClock
) -> None:
    enough = offers_on_different_machines(5)[3]
    Offer.objects.exclude(id__in=[offer.id, enough]).update(min_bid_per_hour=Decimal(25))
    Offer.objects.filter(id=enough).update(price_per_hour=Decimal(500))
    market.fault("offer_gone")
    session_id = api.create(
        offer_id=offer.id, pricing="interruptible", bid_price=DEAR, auto_retry=True, retry_scope="any"
    )["session"]["id"]
    driver.until(lambda: Rental.objects.filter(session_id=session_id).count() == 2)
    assert Session.objects.get(id=session_id).offer_id == enough


# -- outbid while it boots -------------------------------------------------------------------------------------


@pytest.fixture
def booting(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, offer: Offer) -> str:
    market.settings(boot_seconds=4000)
    session_id = str(
        api.create(offer_id=offer.id, pricing="interruptible", bid_price=DEAR, reservation_hours=8)["session"]["id"]
    )
    driver.until_status(session_id, "provisioning")
    time.advance(seconds=300)
    driver.sweep_now()
    others(market, session_id, "outbid")
    driver.sweep_now()
    driver.round()
    return session_id


def test_a_pause_takes_no_time_from_a_boot(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, booting: str
) -> None:
    shown = api.get(f"/sessions/{booting}")
    assert (shown["status"], shown["paused"]) == ("provisioning", True)
    assert last(booting, "paused").details["while"] == "provisioning"
    before = boot_time.deadline(Session.objects.get(id=booting), rental_of(booting))
    for _ in range(2):
        time.advance(minutes=14)
        driver.sweep_now()
        driver.round()
    assert Session.objects.get(id=booting).status == "provisioning"
    others(market, booting, "win")
    driver.sweep_now()
    shown = api.get(f"/sessions/{booting}")
    assert (shown["status"], shown["paused"], kinds(booting)[-1]) == ("provisioning", False, "boot_resumed")
    later = boot_time.deadline(Session.objects.get(id=booting), rental_of(booting)) - before
    assert timedelta(minutes=28) <= later < timedelta(minutes=29)
    driver.round()
    assert Session.objects.get(id=booting).status == "provisioning"
    market.advance(4000)
    driver.until_status(booting, "running")
    assert "resumed" not in kinds(booting)


def test_but_nobody_waits_for_ever(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, booting: str
) -> None:
    time.advance(minutes=31)
    driver.until_status(booting, "failed")
    session = Session.objects.get(id=booting)
    assert session.end_reason == "outbid"
    assert session.end_message == "outbid for 30 minutes before the machine ever ran"
    assert market.alive() == []
    assert OfferFailure.objects.count() == 0
    refused = api.post(
        "/sessions", {"consumer_id": "x", "offer_id": session.offer_id, "workload_type": "llm", "reservation_hours": 1},
        404,
    )  # fmt: skip
    assert refused["offer_id"] == session.offer_id


def test_the_boots_own_time_runs_on_afterwards(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock, booting: str
) -> None:
    others(market, booting, "win")
    driver.sweep_now()
    time.advance(minutes=11)
    driver.until_status(booting, "failed")
    assert Session.objects.get(id=booting).end_reason == "boot_timeout"
