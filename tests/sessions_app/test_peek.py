"""Young machines are seen between two listings, where there are many."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from gpubroker.common import clock
from sessions_app import drive, peek, sweep
from sessions_app.models import Pricing, ProviderWatch, Rental, Session
from sessions_app.states import Debt, Status
from tests.harness import Api, MovableClock, offers_on_different_machines
from tests.interleave import Elsewhere
from tests.sandbox import SandboxProcess
from tests.sessions_app import many

HOUR = 3600.0


def booting(api: Api, market: SandboxProcess, offer: int = 0) -> Rental:
    """A machine that is made, and shows no address before the marketplace's time jumps by an hour."""
    market.settings(boot_seconds=HOUR)
    created = api.create(offer_id=offers_on_different_machines(2)[offer])
    rental = Rental.objects.get(session_id=created["session"]["id"])
    drive.drive_rental(rental.id)
    rental.refresh_from_db()
    assert (rental.state, rental.ssh_endpoints) == (Debt.LIVE, [])
    return rental


@pytest.mark.django_db
def test_only_where_there_are_many_and_something_boots(market: SandboxProcess, time: MovableClock) -> None:
    watch = ProviderWatch.objects.create(provider="vastai", next_sweep_at=clock.now(), machines=peek.MANY + 1)
    ProviderWatch.objects.create(provider="tensordock", next_sweep_at=clock.now(), machines=peek.MANY + 1)
    many.rental(many.session(Status.RUNNING))
    many.rental(many.session(Status.PROVISIONING, pricing=Pricing.INTERRUPTIBLE, bid_price=Decimal(1)))
    assert peek.claim_due() == []
    many.rental(many.session(Status.PROVISIONING))
    many.rental(many.session(Status.PROVISIONING, provider="tensordock"))
    assert peek.claim_due() == ["vastai"]
    assert peek.claim_due() == []
    time.advance(seconds=peek.EVERY.total_seconds() + 1)
    assert peek.claim_due() == ["vastai"]
    time.advance(seconds=peek.EVERY.total_seconds() + 1)
    watch.machines = peek.MANY
    watch.save()
    assert peek.claim_due() == []


@pytest.mark.django_db(transaction=True)
def test_it_boots_without_a_listing(market_with_threads: SandboxProcess, api: Api) -> None:
    market = market_with_threads
    rental = booting(api, market)
    for _ in range(30):
        market.foreign("somebody else's")
    assert peek.look("vastai") == 0  # thirty are younger
    ours = booting(api, market, offer=1)
    assert peek.look("vastai") == 1
    market.advance(HOUR)
    before = clock.now()
    assert peek.look("vastai") == 1
    ours.refresh_from_db()
    assert ours.last_seen_at is not None
    assert ours.last_seen_at >= before
    assert ours.missing_listings == 0
    deadline = clock.now() + timedelta(seconds=30)
    while Session.objects.get(id=ours.session_id).status == Status.PROVISIONING and clock.now() < deadline:
        drive.drive_session(str(ours.session_id))
    assert Session.objects.get(id=ours.session_id).status == Status.RUNNING
    rental.refresh_from_db()
    assert (rental.ssh_endpoints, rental.last_seen_at) == ([], None)


@pytest.mark.django_db(transaction=True)
def test_an_older_listing_takes_nothing_back(market_with_threads: SandboxProcess, api: Api) -> None:
    market = market_with_threads
    rental = booting(api, market)
    market.fault("slow", operation="list", seconds=1.0, after=True)
    listing = Elsewhere(lambda: sweep.sweep("vastai"))
    listing.start()  # it has been read, and is on its way
    market.advance(HOUR)
    assert peek.look("vastai") == 1
    rental.refresh_from_db()
    seen, endpoints = rental.last_seen_at, rental.ssh_endpoints
    assert endpoints
    listing.finish()
    rental.refresh_from_db()
    assert (rental.last_seen_at, rental.ssh_endpoints) == (seen, endpoints)


@pytest.mark.django_db(transaction=True)
def test_what_a_listing_without_it_says_counts_not_against_a_machine_that_was_seen_since(
    market_with_threads: SandboxProcess, api: Api
) -> None:
    market = market_with_threads
    rental = booting(api, market)
    Rental.objects.filter(id=rental.id).update(accepted_at=clock.now() - timedelta(minutes=5))
    market.fault("slow", operation="list", seconds=1.0)
    market.fault("empty_listing")
    listing = Elsewhere(lambda: sweep.sweep("vastai"))
    listing.start()
    Rental.objects.filter(id=rental.id).update(last_seen_at=clock.now())
    listing.finish()
    rental.refresh_from_db()
    assert rental.missing_listings == 0


@pytest.mark.django_db
def test_after_a_clock_that_was_set_back_listings_count_again(
    market: SandboxProcess, api: Api, time: MovableClock
) -> None:
    rental = booting(api, market)
    Rental.objects.filter(id=rental.id).update(last_seen_at=clock.now() + timedelta(hours=5))
    market.advance(HOUR)
    assert sweep.sweep("vastai") is not None
    rental.refresh_from_db()
    assert rental.ssh_endpoints
    assert rental.last_seen_at is not None
    assert rental.last_seen_at <= clock.now()


@pytest.mark.django_db
@pytest.mark.parametrize("fault", ["error_5xx", "malformed", "auth_error", "rate_limited"])
def test_a_provider_that_does_not_answer_changes_nothing(market: SandboxProcess, api: Api, fault: str) -> None:
    rental = booting(api, market)
    market.advance(HOUR)
    market.fault(fault, operation="list")
    assert peek.look("vastai") == 0
    rental.refresh_from_db()
    assert (rental.ssh_endpoints, rental.last_seen_at) == ([], None)
