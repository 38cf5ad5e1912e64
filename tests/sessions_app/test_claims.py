"""Which due rows are taken in hand, and by whom: leases, turns, shares, and the line of those who find no room."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from gpubroker.common import clock
from sessions_app import claims, tasks
from sessions_app.models import Rental, Session
from sessions_app.states import Debt, Status
from sessions_app.waiting import Line
from tests.harness import MovableClock
from tests.interleave import Elsewhere
from tests.sessions_app import many


@pytest.mark.django_db
def test_claim_is_a_lease(time: MovableClock) -> None:
    owed = many.debt()
    assert claims.due().debts == {"vastai": [owed.id]}
    assert claims.due().debts == {}
    time.advance(seconds=claims.RENTAL_LEASE.total_seconds() + 1)
    assert claims.due().debts == {"vastai": [owed.id]}


@pytest.mark.django_db
def test_consumers_take_turns() -> None:
    """One consumer's hundred, all due for longer, do not delay another's destroy; nor an orphan's."""
    long_ago = clock.now() - timedelta(hours=1)
    for _ in range(12):
        many.debt("many", destroy_requested_at=long_ago)
    few = [many.debt("few"), many.debt("few")]
    orphan = many.rental(None, Debt.DESTROYING, destroy_requested_at=clock.now(), next_check_at=clock.now())
    debts = Rental.objects.filter(state=Debt.DESTROYING)
    turns = claims.in_turns(debts, claims.OWNER, ["destroy_requested_at", "id"], 5)
    assert {few[0].id, few[1].id, orphan.id} <= set(turns)
    assert turns[3:] != sorted([few[0].id, few[1].id])
    assert claims.due().debts["vastai"][:3].count(orphan.id) == 1


@pytest.mark.django_db
def test_providers_have_shares_of_their_own() -> None:
    crowd = claims.MOST_RENTALS + 5
    for _ in range(crowd):
        of = many.session(Status.PENDING, provider="deaf")
        many.rental(of, Debt.INTENDED, next_check_at=clock.now() - timedelta(hours=1))
    other = many.rental(many.session(Status.PENDING, "two"), Debt.INTENDED, next_check_at=clock.now())
    owed = many.debt()
    due = claims.due()
    assert other.id in due.rentals
    assert len(due.rentals) == claims.MOST_RENTALS + 1
    assert due.debts == {"vastai": [owed.id]}


@pytest.mark.django_db
def test_looks_go_first_where_a_listing_no_longer_shows_the_machine() -> None:
    answered: dict[str, Any] = {"destroy_answered_at": clock.now()}
    shown = many.debt(**answered, next_check_at=clock.now() - timedelta(hours=1))
    unlisted = many.debt(**answered, missing_listings=1)
    assert claims.due().debts == {"vastai": [unlisted.id, shown.id]}


@pytest.mark.django_db
def test_nudge_leaves_what_somebody_has_in_hand() -> None:
    of = many.session(Status.STOPPING, end_reason="deleted", next_check_at=clock.now())
    assert claims.take_session(of.id)
    tasks.drive_session(of.id)
    assert Session.objects.get(id=of.id).status == "stopping"
    tasks.drive_sessions([of.id])
    assert Session.objects.get(id=of.id).status == "stopped"


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_locked_rows_are_passed_over() -> None:
    locked, free = many.debt(), many.debt()
    found: list[Any] = []

    def claim() -> None:
        found.append(claims.due().debts)

    with transaction.atomic():
        Rental.objects.select_for_update().get(id=locked.id)
        elsewhere = Elsewhere(claim)
        elsewhere.start()
        elsewhere.finish()
    assert found == [{"vastai": [free.id]}]


# -- the line -------------------------------------------------------------------------------------------


def test_line_lets_so_many_in_and_remembers_the_others_once() -> None:
    line = Line(2)
    assert [line.enter(name) for name in "abcc"] == [True, True, False, False]
    assert line.next() is None
    line.leave()
    assert line.next() == "c"
    assert line.next() is None
    assert line.enter("c")
    assert not line.enter("d")


def test_line_takes_many_at_once_in_their_order() -> None:
    line = Line(1)
    line.queue(["a", "b", "a"])
    assert [line.next(), line.next(), line.next()] == ["a", "b", None]
