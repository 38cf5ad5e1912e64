"""Machines that never become what was promised are given back, and cost no longer than that takes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lifecycle.life import Life


@pytest.mark.parametrize("fault", ["boot_never", "no_ssh"])
def test_a_boot_that_never_finishes(life: Life, settings: Any, fault: str) -> None:
    life.market.fault(fault)
    session_id = life.begin()
    life.until(lambda: life.alive() != [])
    life.work(4, step=settings.SSH_VERIFY_SECONDS / 5)
    assert life.session(session_id).status == "provisioning"
    life.ended(session_id, "boot_timeout", step=60)
    assert [contract["alive"] for contract in life.contracts()] == [False]


def test_a_machine_that_does_not_start(life: Life) -> None:
    for fault in life.face.failed_boots:
        life.market.fault(**fault)
        session_id = life.begin()
        session = life.ended(session_id, "boot_failed")
        assert (session.status, session.running_at) == ("failed", None), fault
        assert life.alive() == []
    assert len(life.contracts()) == len(life.face.failed_boots)


def test_a_machine_that_is_another(life: Life) -> None:
    life.market.fault("wrong_gpu")
    life.ended(life.begin(), "wrong_machine")
    assert [contract["alive"] for contract in life.contracts()] == [False]


def test_a_machine_whose_driver_is_missing(life: Life) -> None:
    life.market.fault("no_driver")
    life.ended(life.begin(), "boot_timeout", step=160)
    assert [contract["alive"] for contract in life.contracts()] == [False]


def test_ssh_that_comes_late_is_waited_for(life: Life) -> None:
    life.market.fault("ssh_delay", seconds=40)
    session_id = life.begin()
    life.until_status(session_id, "running", step=8)
    assert life.rental(session_id).verify_failures >= 1


def test_ended_while_it_boots(life: Life) -> None:
    life.market.fault("boot_never")
    session_id = life.begin()
    life.until_status(session_id, "provisioning")
    life.end(session_id)
    life.ended(session_id, "deleted")
    assert [contract["alive"] for contract in life.contracts()] == [False]


def test_another_offer_is_taken_where_that_is_wanted(life: Life) -> None:
    """And its machine is made when the first one is proved gone."""
    life.market.fault(**life.face.failed_boots[0])
    session_id = life.running(auto_retry=True, max_retries=2, retry_scope="any")
    assert [contract["alive"] for contract in life.contracts()] == [False, True]
    attempts = life.api.get(f"/sessions/{session_id}/attempts")["attempts"]
    assert [attempt["error"] and attempt["error"]["reason"] for attempt in attempts] == ["boot_failed", None]
