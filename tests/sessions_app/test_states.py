"""The tables of moves, walked: what is allowed happens with its event, what is not changes nothing."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing.models import Consumer
from gpubroker.common import clock
from sessions_app.models import Event, Rental, Session
from sessions_app.states import FINAL, HAS_MACHINE, RENTAL_MOVES, SESSION_MOVES, Debt, Status
from sessions_app.transitions import IllegalMove, move_rental, transition

SESSION_PAIRS = list(product(Status, Status))
RENTAL_PAIRS = list(product(Debt, Debt))


def make_session(status: Status = Status.PENDING, **changes: Any) -> Session:
    now = clock.now()
    consumer, _ = Consumer.objects.get_or_create(name="me", defaults={"created_at": now})
    fields: dict[str, Any] = {
        "consumer": consumer, "status": status, "offer_id": "vastai-1", "provider": "vastai", "gpu_type": "RTX 4090",
        "gpu_count": 1, "vram_mb": 24564, "price_per_hour": "0.4", "storage_price_per_gb_month": "0.1",
        "workload_type": "llm", "reservation_hours": 1, "disk_gb": 50, "ssh_public_key": "ssh-ed25519 AAAA",
        "created_at": now, "expires_at": now + timedelta(hours=1), "hard_max_at": now + timedelta(hours=12),
    }  # fmt: skip
    return Session.objects.create(**{**fields, **changes})


def make_rental(session: Session | None, state: Debt = Debt.INTENDED, **changes: Any) -> Rental:
    now = clock.now()
    fields: dict[str, Any] = {"session": session, "provider": "vastai", "state": state, "created_at": now}
    fields["label"] = f"gpb-testdep-aaaaaaaaaaaaaaaa-{Rental.objects.count() + 1}"
    if state in HAS_MACHINE:
        fields["instance_id"] = str(Rental.objects.count() + 1000)
    if state == Debt.CLOSED:
        fields |= {"closed_at": now, "proof": {"call": "test"}}
    return Rental.objects.create(**{**fields, **changes})


@pytest.mark.django_db
@pytest.mark.parametrize(("before", "after"), SESSION_PAIRS)
def test_session_moves(before: Status, after: Status) -> None:
    session = make_session(before)
    if after in SESSION_MOVES[before]:
        assert transition(session.id, {before}, after, reason="because", actor="me") is True
        event = Event.objects.get()
        assert (event.from_state, event.to_state, event.reason, event.actor) == (before, after, "because", "me")
        assert Session.objects.get().status == after
    else:
        with pytest.raises(IllegalMove):
            transition(session.id, {before}, after)
        assert Session.objects.get().status == before
        assert not Event.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(("before", "after"), RENTAL_PAIRS)
def test_rental_moves(before: Debt, after: Debt) -> None:
    rental = make_rental(make_session(), before)
    changes: dict[str, Any] = {"instance_id": "77"} if after in HAS_MACHINE else {}
    if after == Debt.CLOSED:
        changes = {"closed_at": clock.now(), "proof": {"call": "test"}}
    if after in RENTAL_MOVES[before]:
        assert move_rental(rental, {before}, after, **changes) is True
        assert Rental.objects.get().state == after
        assert Event.objects.count() == 1
    else:
        with pytest.raises(IllegalMove):
            move_rental(rental, {before}, after, **changes)
        assert Rental.objects.get().state == before
        assert not Event.objects.exists()


def test_final_states_have_no_way_out() -> None:
    assert all(SESSION_MOVES[status] == frozenset() for status in FINAL)
    assert RENTAL_MOVES[Debt.CLOSED] == frozenset()
    assert RENTAL_MOVES[Debt.DESTROYING] == {Debt.CLOSED}  # I6: only a proof


@pytest.mark.django_db
def test_whoever_comes_second_does_nothing() -> None:
    session = make_session(Status.RUNNING)
    assert transition(session.id, {Status.RUNNING}, Status.STOPPING) is True
    assert transition(session.id, {Status.RUNNING}, Status.STOPPING) is False
    assert Event.objects.count() == 1
    assert transition("sess-unknown", {Status.RUNNING}, Status.STOPPING) is False


@pytest.mark.django_db
def test_one_open_rental_per_session_is_the_databases_rule() -> None:
    """I3."""
    session = make_session()
    make_rental(session, Debt.CLOSED)
    make_rental(session, Debt.LIVE)
    with pytest.raises(IntegrityError), transaction.atomic():
        make_rental(session, Debt.INTENDED)
    assert Rental.objects.count() == 2


@pytest.mark.django_db
def test_no_close_without_a_proof_is_the_databases_rule() -> None:
    """I6."""
    rental = make_rental(make_session(), Debt.DESTROYING)
    with pytest.raises(IntegrityError), transaction.atomic():
        Rental.objects.filter(id=rental.id).update(state=Debt.CLOSED, closed_at=clock.now())
    assert Rental.objects.get().state == Debt.DESTROYING


@pytest.mark.django_db
def test_labels_are_unique() -> None:
    """I1."""
    first = make_rental(make_session(), Debt.CLOSED)
    with pytest.raises(IntegrityError), transaction.atomic():
        make_rental(make_session(offer_id="vastai-2"), Debt.INTENDED, label=first.label)


@pytest.mark.django_db
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(walk=st.lists(st.tuples(st.sampled_from(list(Status)), st.sampled_from(list(Status))), max_size=12))
def test_any_walk_ends_where_the_table_says(walk: list[tuple[Status, Status]]) -> None:
    """Whatever is tried in whatever order, the status is the one that a plain model of the table reaches."""
    with transaction.atomic():
        session = make_session()
        expected, events = Status.PENDING, 0
        for before, after in walk:
            if after not in SESSION_MOVES[before]:
                continue
            moved = transition(session.id, {before}, after)
            assert moved is (before == expected)
            if moved:
                expected, events = after, events + 1
        assert Session.objects.get(id=session.id).status == expected
        assert Event.objects.filter(session=session).count() == events
        transaction.set_rollback(True)
