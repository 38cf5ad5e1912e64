"""Creates that go wrong: the answer is lost, late, a refusal or a riddle. Never two machines, and none forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from sessions_app.models import Rental, Session
from sessions_app.states import Debt
from tests.harness import Api, BackgroundDriver, MovableClock, refresh_offers
from tests.lifecycle.faces import Face, Fault
from tests.lifecycle.life import Life, is_closed
from tests.sandbox import SandboxProcess

#: The machine is made, and nobody is told.
LOST: list[Fault] = [
    {"kind": "lost_answer"},
    {"kind": "error_after"},
    {"kind": "truncated_json"},
    {"kind": "truncated_json", "mid_stream": True},
    {"kind": "malformed"},
]


@pytest.mark.parametrize("fault", LOST, ids=str)
def test_a_machine_whose_create_was_not_answered_is_found_and_used(life: Life, fault: Fault) -> None:
    life.market.fault(**{"operation": "create", **fault})
    session_id = life.running()
    assert life.moves(session_id) == ["unknown", "live"]
    assert len(life.contracts()) == 1


def test_a_create_that_takes_too_long_is_found_too(life: Life) -> None:
    life.market.fault("slow", operation="create", seconds=2.5, after=True)
    session_id = life.begin()
    with life.impatience():
        life.until(lambda: life.rental(session_id).state == Debt.UNKNOWN)
    life.until(lambda: life.alive() != [])
    life.until_status(session_id, "running")
    assert len(life.contracts()) == 1


def test_a_lost_machine_that_listings_show_late_is_waited_for(life: Life) -> None:
    life.market.fault("listing_lag", seconds=30)
    life.market.fault("lost_answer")
    session_id = life.running()
    assert life.rental(session_id).lookups >= 3
    assert len(life.contracts()) == 1


def test_listings_that_fail_do_not_make_a_lost_machine_a_second_one(life: Life) -> None:
    life.market.fault("lost_answer")
    life.market.fault("error_5xx", operation="list", times=-1)
    session_id = life.begin()
    life.work(10, step=30)
    assert (life.rental(session_id).state, life.session(session_id).status) == (Debt.UNKNOWN, "pending")
    life.market.clear_faults()
    life.until_status(session_id, "running")
    assert len(life.contracts()) == 1


def test_what_was_never_made_is_given_up_only_after_the_lag(life: Life, settings: Any) -> None:
    """Nobody can tell this 502 from one after the effect."""
    life.market.fault("error_5xx", operation="create")
    session_id = life.begin()
    life.until(lambda: life.rental(session_id).lookups >= 4, step=settings.LISTING_LAG_SECONDS / 10)
    assert life.rental(session_id).state == Debt.UNKNOWN
    life.ended(session_id, "create_lost", step=5)
    assert life.contracts() == []


def test_ended_while_nobody_knows_whether_there_is_a_machine(life: Life) -> None:
    life.market.fault("listing_lag", seconds=10)
    life.market.fault("lost_answer")
    session_id = life.begin()
    life.until(lambda: life.rental(session_id).state == Debt.UNKNOWN, step=0.2)
    life.end(session_id)
    assert life.session(session_id).status == "stopping"
    life.ended(session_id, "deleted")
    assert len(life.contracts()) == 1


def test_too_many_calls_in_every_form_only_delay_it(life: Life) -> None:
    for settings, form in life.face.too_many:
        life.market.settings(**settings)
        life.market.fault("rate_limited", operation="create", **form)
        session_id = life.begin()
        life.until(lambda: life.rental(session_id).last_error != "", step=0.2)  # noqa: B023 - it is over by the next
        assert (life.rental(session_id).state, life.alive()) == (Debt.INTENDED, [])
        life.until_status(session_id, "running")
        life.end(session_id)
        life.until_status(session_id, "stopped")
    assert len(life.contracts()) == len(life.face.too_many)


def test_no_credit_ends_it_at_once(life: Life) -> None:
    life.market.credit(0)
    session_id = life.begin()
    life.ended(session_id, "no_credit")
    assert life.contracts() == []


def test_an_offer_that_is_gone_in_every_form(life: Life) -> None:
    for shape in life.face.gone:
        life.market.fault("offer_gone", shape=shape)
        session_id = life.begin()
        gone = life.session(session_id).offer_id
        life.ended(session_id, "offer_gone")
        assert gone != life.order()["offer_id"]
    assert life.contracts() == []


@pytest.mark.django_db(transaction=True)
def test_who_waits_for_an_offer_that_is_gone_is_told_of_stale_inventory(
    face: Face, place: SandboxProcess, api: Api, time: MovableClock
) -> None:
    refresh_offers(face.provider)
    order = Life(face, place, time, api).order()
    place.fault("offer_gone")
    with BackgroundDriver():
        answer = api.post("/sessions", order, 503, Prefer="wait=20")
    told = {name: answer[name] for name in ("error_type", "offer_id", "provider", "retry_suggested")}
    assert told == {
        "error_type": "stale_inventory", "offer_id": order["offer_id"], "provider": face.provider,
        "retry_suggested": True,
    }  # fmt: skip
    assert (Session.objects.get().status, is_closed(Rental.objects.get())) == ("failed", True)
    assert place.ledger() == []


def test_a_refusal_that_left_a_machine_is_paid_off(life: Life) -> None:
    """It bills although the provider said no."""
    life.market.fault("success_false", operation="create", contract=True)
    session_id = life.begin()
    life.ended(session_id, "refused")
    assert [contract["alive"] for contract in life.contracts()] == [False]


def test_a_refused_key_makes_nothing(life: Life) -> None:
    life.market.fault("auth_error", operation="create", status=401)
    session_id = life.begin()
    life.ended(session_id, "provider_auth")
    assert life.contracts() == []
