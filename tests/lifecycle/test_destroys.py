"""Destroys that go wrong: a debt is paid for ever, and closed only by the provider's word that the machine is gone."""

from __future__ import annotations

import pytest

from sessions_app.states import Debt
from tests.lifecycle.faces import Fault
from tests.lifecycle.life import Life

#: It is not gone, whatever was answered.
NOT_GONE: list[Fault] = [
    {"kind": "refuse_destroy", "mode": "silent"},
    {"kind": "refuse_destroy", "mode": "error"},
    {"kind": "error_5xx"},
    {"kind": "success_false"},
    {"kind": "auth_error"},
]
#: It is gone, and nobody is told.
LOST: list[Fault] = [
    {"kind": "lost_answer"},
    {"kind": "error_after"},
    {"kind": "truncated_json"},
    {"kind": "malformed"},
]


def test_refused_destroys_are_tried_for_ever(life: Life) -> None:
    session_id = life.running()
    life.market.fault(**{"operation": "destroy", "times": -1, **NOT_GONE[0]})
    life.end(session_id)
    for fault in NOT_GONE:
        life.market.clear_faults()
        life.market.fault(**{"operation": "destroy", "times": -1, **fault})
        before = life.rental(session_id)
        life.work(4, step=200)
        rental = life.rental(session_id)
        tries = rental.destroy_attempts + rental.destroy_failures
        assert tries > before.destroy_attempts + before.destroy_failures, fault
        assert (rental.state, life.session(session_id).status, len(life.alive())) == (Debt.DESTROYING, "stopping", 1)
    life.market.clear_faults()
    life.until_status(session_id, "stopped", step=30)


@pytest.mark.parametrize("fault", LOST, ids=str)
def test_a_destroy_whose_answer_is_lost_is_proved_all_the_same(life: Life, fault: Fault) -> None:
    session_id = life.running()
    # Old enough for "no such machine" to be a proof.
    life.advance(120)
    life.market.fault(**{"operation": "destroy", **fault})
    life.end(session_id)
    life.until_status(session_id, "stopped")
    assert life.alive() == []


def test_a_destroy_that_takes_too_long_to_answer(life: Life) -> None:
    session_id = life.running()
    life.advance(120)
    life.market.fault("slow", operation="destroy", seconds=2.5, after=True)
    life.end(session_id)
    with life.impatience():
        life.until(lambda: life.rental(session_id).destroy_failures > 0)
    life.until_status(session_id, "stopped")
    assert life.alive() == []


def test_a_slow_destroy_is_waited_for_and_paid_to_its_end(life: Life) -> None:
    session_id = life.running()
    life.market.fault("refuse_destroy", mode="slow", seconds=240, times=-1)
    life.end(session_id)
    life.work(3, step=20)
    assert (life.rental(session_id).state, len(life.alive())) == (Debt.DESTROYING, 1)
    life.until_status(session_id, "stopped", step=10)
    assert life.alive() == []


def test_too_many_calls_in_every_form_only_delay_it(life: Life) -> None:
    for settings, form in life.face.too_many:
        life.market.settings(**settings)
        session_id = life.running()
        life.market.fault("rate_limited", operation="destroy", times=2, **form)
        life.end(session_id)
        life.until_status(session_id, "stopped", step=5)
        assert life.alive() == []


def test_looks_that_fail_are_no_proof(life: Life) -> None:
    session_id = life.running()
    life.market.fault("malformed", operation="get", times=-1)
    life.end(session_id)
    life.work(5, step=30)
    rental = life.rental(session_id)
    assert (rental.state, rental.destroy_answered_at is not None, life.alive()) == (Debt.DESTROYING, True, [])
    life.market.clear_faults()
    life.until_status(session_id, "stopped", step=10)
