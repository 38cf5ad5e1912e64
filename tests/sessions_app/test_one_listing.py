"""One listing of a provider at a time, however long it takes and whoever asks for another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from gpubroker.common import clock
from providers.base import Instance, Phase
from sessions_app import drive, launch, strays, sweep
from sessions_app.models import ProviderWatch
from sessions_app.states import Debt, Status
from tests.harness import MovableClock
from tests.interleave import Elsewhere
from tests.sandbox import SandboxProcess
from tests.sessions_app import many


def seen() -> ProviderWatch:
    return ProviderWatch.objects.get(provider="vastai")


@pytest.mark.django_db
def test_a_listing_under_way_is_a_lease(market: SandboxProcess, time: MovableClock) -> None:
    assert sweep.claim_due() == ["vastai"]
    assert sweep.claim_due() == []
    time.advance(seconds=sweep.LEASE.total_seconds() + 1)
    assert sweep.claim_due() == ["vastai"]


@pytest.mark.django_db
def test_whoever_asks_meanwhile_waits_for_its_end(market: SandboxProcess, time: MovableClock) -> None:
    assert sweep.claim_due() == ["vastai"]
    for ask in (sweep.ask, launch.wake_sweep):
        ask("vastai")
        assert sweep.claim_due() == []
    sweep.sweep("vastai")
    assert seen().listing_until is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ask", [sweep.ask, launch.wake_sweep])
def test_what_was_asked_for_meanwhile_begins_right_after(
    market_with_threads: SandboxProcess, ask: Callable[[str], object]
) -> None:
    market_with_threads.fault("slow", operation="list", seconds=1.0)
    assert sweep.claim_due() == ["vastai"]
    listing = Elsewhere(lambda: sweep.sweep("vastai"))
    listing.start()
    ask("vastai")
    assert sweep.claim_due() == []
    listing.finish()
    assert seen().last_sweep_at is not None
    assert seen().next_sweep_at < clock.now() + timedelta(seconds=2)


@pytest.mark.django_db(transaction=True)
def test_a_long_listing_keeps_its_lease(market_with_threads: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "RENEW_SECONDS", 0.1)
    market_with_threads.fault("slow", operation="list", seconds=1.0)
    assert sweep.claim_due() == ["vastai"]
    first = seen().listing_until
    listing = Elsewhere(lambda: sweep.sweep("vastai"))
    listing.start()
    renewed = seen().listing_until
    listing.finish()
    assert first is not None
    assert renewed is not None
    assert renewed > first
    assert seen().listing_until is None
    assert seen().next_sweep_at > clock.now() + timedelta(seconds=10)


@pytest.mark.django_db(transaction=True)
def test_a_listing_that_outlives_its_first_lease_is_not_taken_for_asked_for(
    market_with_threads: SandboxProcess, time: MovableClock, settings: Any
) -> None:
    settings.RECONCILE_SECONDS = 300
    market_with_threads.fault("slow", operation="list", seconds=1.0)
    assert sweep.claim_due() == ["vastai"]
    listing = Elsewhere(lambda: sweep.sweep("vastai"))
    listing.start()
    time.advance(seconds=sweep.LEASE.total_seconds() + 10)
    listing.finish()
    assert seen().next_sweep_at > clock.now() + timedelta(seconds=100)


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_stuck_does_not_keep_the_listing_for_ever(
    market_with_threads: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(sweep, "LONGEST_SECONDS", 0.0)
    market_with_threads.fault("slow", operation="list", seconds=1.0)
    assert sweep.claim_due() == ["vastai"]
    first = seen().listing_until
    listing = Elsewhere(lambda: sweep.sweep("vastai"))
    listing.start()
    kept = seen().listing_until
    listing.finish()
    assert (kept, kept is None) == (first, False)


@pytest.mark.django_db
def test_a_failed_listing_leaves_room_for_the_next(market: SandboxProcess, time: MovableClock) -> None:
    market.fault("error_5xx", operation="list")
    assert sweep.claim_due() == ["vastai"]
    assert sweep.sweep("vastai") is None
    assert seen().listing_until is None
    time.advance(seconds=5)
    assert sweep.claim_due() == ["vastai"]


@pytest.mark.django_db
@pytest.mark.parametrize("again", [lambda: sweep.give_back("vastai"), drive.recover])
def test_a_listing_that_was_broken_off_begins_again_at_once(
    market: SandboxProcess, again: Callable[[], object]
) -> None:
    assert sweep.claim_due() == ["vastai"]
    again()
    assert sweep.claim_due() == ["vastai"]


@pytest.mark.django_db
def test_a_machine_that_was_destroyed_while_it_was_listed_is_no_orphan(time: MovableClock) -> None:
    began = clock.now()
    time.advance(seconds=60)
    proof = {"call": "get", "answer": "gone"}
    just = many.rental(many.session(Status.STOPPED), Debt.CLOSED, closed_at=clock.now(), proof=proof, instance_id="11")
    old = many.rental(many.session(Status.STOPPED), Debt.CLOSED, closed_at=began, proof=proof, instance_id="12")
    # Made twice by a lost answer: the other one's proof says nothing of it.
    twin = machine("13", just.label)
    listed = [machine("11", just.label), machine("12", old.label), twin]
    assert [each.instance_id for each in strays.not_closed_since("vastai", listed, began)] == ["12", "13"]
    assert strays.not_closed_since("tensordock", listed, began) == listed


def machine(instance_id: str, label: str) -> Instance:
    return Instance(instance_id=instance_id, label=label, phase=Phase.RUNNING, status="running", status_message="")
