"""A worker was killed while its create was under way: the machine is found by its label long before the lease ends."""

from __future__ import annotations

from gpubroker.common import clock
from providers.base import Created
from sessions_app import launch
from sessions_app.models import Rental
from sessions_app.states import Debt
from sessions_app.transitions import move_rental
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import SandboxProcess


def killed_while_creating(api: Api, market: SandboxProcess) -> tuple[Rental, str]:
    """Its rental, and the machine that the create has made."""
    session_id = api.create()["session"]["id"]
    rental = Rental.objects.get(session_id=session_id)
    now = clock.now()
    assert move_rental(
        rental, {Debt.INTENDED}, Debt.CREATING, quiet=True, create_sent_at=now, next_check_at=now + launch.CREATE_LEASE
    )
    return rental, str(market.foreign(rental.label))


def test_its_machine_is_found_by_its_label(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    rental, machine = killed_while_creating(api, market)
    driver.sweep_now()
    rental.refresh_from_db()
    assert (rental.state, rental.instance_id) == (Debt.CREATING, "")
    time.advance(seconds=launch.ANSWER_LATE.total_seconds())
    driver.sweep_now()
    rental.refresh_from_db()
    assert (rental.state, rental.instance_id) == (Debt.LIVE, machine)
    driver.until_status(rental.session_id or "", "running")
    assert len(market.ledger()) == 1


def test_an_answer_that_comes_after_it_changes_nothing(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    rental, machine = killed_while_creating(api, market)
    time.advance(seconds=launch.ANSWER_LATE.total_seconds())
    driver.sweep_now()
    before = Rental.objects.filter(id=rental.id).values().get()
    launch.apply_created(rental, Created(machine))
    assert Rental.objects.filter(id=rental.id).values().get() == before
