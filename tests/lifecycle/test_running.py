"""What happens to machines that run: only what the provider itself says, and says again, ends a session."""

from __future__ import annotations

from typing import Any

import pytest

from gpubroker.common import ids
from gpubroker.common import providers as configured
from gpubroker.common.deployment import deployment_id
from providers.labels import make_label
from sessions_app.models import Rental
from sessions_app.states import Debt
from tests.lifecycle.faces import Fault
from tests.lifecycle.life import Life

#: Listings that cannot be believed.
BAD: list[Fault] = [
    {"kind": "error_5xx"},
    {"kind": "rate_limited"},
    {"kind": "auth_error"},
    {"kind": "malformed"},
    {"kind": "truncated_json"},
    {"kind": "truncated_json", "mid_stream": True},
    {"kind": "lost_answer"},
]


@pytest.mark.parametrize("how", ["offline", "exited"])
def test_a_machine_that_dies_is_paid_off(life: Life, how: str) -> None:
    session_id = life.running()
    life.dies(how)
    session = life.ended(session_id, "provider_lost", step=10)
    assert session.status == "failed"
    assert [contract["alive"] for contract in life.contracts()] == [False]


def test_an_account_that_runs_dry_ends_it(life: Life) -> None:
    session_id = life.running()
    machine = life.machine()
    life.broken.add(str(machine["id"]))
    life.rough.add(session_id)
    life.market.credit(0)
    life.ended(session_id, "provider_lost", step=10)
    assert [contract["alive"] for contract in life.contracts()] == [False]


def test_listings_that_fail_end_nothing(life: Life) -> None:
    session_id = life.running()
    life.work(2, step=30)
    seen = life.rental(session_id).last_seen_at
    for fault in BAD:
        life.market.fault(**{"operation": "list", "times": -1, **fault})
        life.advance(60)
        assert life.workers.sweep_now() is None, fault
        life.market.clear_faults()
    rental = life.rental(session_id)
    assert (rental.state, rental.missing_listings, rental.last_seen_at) == (Debt.LIVE, 0, seen)
    life.work(4, step=60)
    assert life.session(session_id).status == "running"


def test_a_listing_that_hangs_ends_nothing(life: Life) -> None:
    session_id = life.running()
    life.advance(60)
    life.market.fault("slow", operation="list", seconds=2.5)
    with life.impatience():
        assert life.workers.sweep_now() is None
    assert life.session(session_id).status == "running"


@pytest.mark.parametrize("fault", [{"kind": "empty_listing"}, {"kind": "partial_listing", "keep": 1}], ids=str)
def test_a_listing_that_leaves_machines_out_ends_nothing(life: Life, fault: Fault) -> None:
    """However often: the direct look finds them alive."""
    life.strangers()
    session_id = life.running()
    life.advance(60)
    life.market.fault(**{"times": -1, **fault})
    life.work(6, step=40)
    assert life.session(session_id).status == "running"
    life.market.clear_faults()
    life.work(2, step=40)
    assert (life.rental(session_id).missing_listings, len(life.alive())) == (0, 1)


def test_a_ghost_is_closed_by_two_listings_and_a_look(life: Life) -> None:
    session_id = life.running()
    life.advance(60)
    life.work(1)
    machine = life.machine()
    life.broken.add(str(machine["id"]))
    life.rough.add(session_id)
    # Somebody destroys it in the provider's own console.
    configured.get(life.face.provider).destroy(str(machine["id"]))
    life.workers.sweep_now()
    assert life.session(session_id).status == "running"
    life.market.fault("error_5xx", operation="get", times=1)
    life.advance(40)
    life.workers.sweep_now()
    assert life.session(session_id).status == "running"
    life.advance(40)
    life.workers.sweep_now()
    session = life.session(session_id)
    assert (session.status, session.end_reason) == ("failed", "provider_lost")
    assert life.rental(session_id).state == Debt.CLOSED


def test_an_orphan_is_destroyed_after_its_grace_and_no_other(life: Life, settings: Any) -> None:
    life.strangers()
    label = make_label(deployment_id(), ids.new_session_id(), 1)
    orphan = str(life.market.foreign(label))
    life.workers.sweep_now()
    life.advance(settings.ORPHAN_GRACE_SECONDS - 10)
    life.workers.sweep_now()
    assert orphan in {str(contract["id"]) for contract in life.market.alive()}
    life.advance(20)
    life.workers.sweep_now()
    life.until(lambda: not Rental.objects.exclude(state=Debt.CLOSED).exists())
    rental = Rental.objects.get()
    assert (rental.origin, rental.instance_id, rental.label) == ("orphan", orphan, label)
    assert {str(contract["id"]) for contract in life.market.alive()} == life.foreign


def test_machines_of_others_are_left_alone(life: Life) -> None:
    life.strangers()
    session_id = life.running()
    life.work(4, step=3600)
    life.ended(session_id, "expired")
    life.work(3, step=86_400)
    assert {str(contract["id"]) for contract in life.market.alive()} == life.foreign
    assert Rental.objects.count() == 1


def test_an_outage_ends_nothing_and_what_was_due_happens_after_it(life: Life) -> None:
    session_id = life.running(reservation_hours=1)
    life.market.fault("error_5xx", operation="any", status=503, times=-1)
    life.work(10, step=60)
    assert life.session(session_id).status == "running"
    life.work(10, step=360)
    session = life.session(session_id)
    assert (session.status, session.end_reason) == ("stopping", "expired")
    assert (life.rental(session_id).state, len(life.alive())) == (Debt.DESTROYING, 1)
    life.market.clear_faults()
    life.until_status(session_id, "stopped", step=5)
    assert life.alive() == []


def test_a_provider_that_cannot_be_reached_at_all(life: Life) -> None:
    session_id = life.running()
    life.market.kill()
    try:
        life.work_alone(5, step=60)
        assert life.session(session_id).status == "running"
        life.end(session_id)
        life.work_alone(3, step=60)
        assert life.rental(session_id).state == Debt.DESTROYING
    finally:
        life.market.start()
    life.market.advance(8 * 60)
    life.until_status(session_id, "stopped", step=5)
    assert life.alive() == []


def test_a_key_that_is_refused_while_it_runs(life: Life) -> None:
    session_id = life.running()
    life.market.fault("auth_error", operation="any", times=-1)
    life.work(6, step=60)
    assert life.session(session_id).status == "running"
    life.end(session_id)
    life.work(6, step=60)
    rental = life.rental(session_id)
    assert (rental.state, len(life.alive())) == (Debt.DESTROYING, 1)
    assert rental.destroy_failures >= 2
    life.market.clear_faults()
    life.until_status(session_id, "stopped", step=10)
    assert life.alive() == []
