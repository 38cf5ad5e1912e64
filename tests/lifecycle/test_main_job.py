"""What it is all for: rent, verify, log in, work, give back, and pay what was used."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sessions_app.states import Debt
from tests.lifecycle.life import LATENESS, Life


def test_rented_logged_in_given_back_and_paid(life: Life) -> None:
    life.strangers()
    begun = life.begun()
    session_id = begun["session"]["id"]
    session = life.until_status(session_id, "running")
    rental, machine = life.rental(session_id), life.machine()
    assert (str(machine["id"]), machine["label"]) == (rental.instance_id, rental.label)
    assert session.provider == life.face.provider

    printed = life.log_in(session_id, begun["ssh_private_key"], "nvidia-smi")
    assert "NVIDIA-SMI" in printed

    life.work(3)
    life.advance(50 * 60)
    life.end(session_id)
    life.until_status(session_id, "stopped")
    rental.refresh_from_db()
    assert rental.state == Debt.CLOSED
    assert rental.proof is not None
    assert rental.proof["answer"] == "the provider has no such machine"

    ours, (theirs,) = life.api.get("/costs", session_id=session_id), life.contracts()
    assert theirs["total_dollars"] > 0.05
    assert ours["gpu_cost"] == pytest.approx(theirs["gpu_dollars"], rel=0.01)
    assert ours["storage_cost"] == pytest.approx(theirs["disk_dollars"], rel=0.01)
    assert ours["total_cost"] == pytest.approx(theirs["total_dollars"], rel=0.01)


def test_it_ends_when_its_time_is_up_and_not_before(life: Life) -> None:
    session_id = life.running(reservation_hours=1)
    life.advance((life.session(session_id).expires_at - life.session(session_id).created_at).total_seconds() - 120)
    life.work(1)
    assert life.session(session_id).status == "running"
    life.ended(session_id, "expired", step=5)
    assert timedelta(0) <= life.late() <= LATENESS


def test_the_hard_maximum_is_kept(life: Life) -> None:
    session_id = life.running(reservation_hours=12)
    life.advance(12 * 3600 - 60)
    life.ended(session_id, "expired", step=5)
    assert timedelta(0) <= life.late() <= LATENESS
