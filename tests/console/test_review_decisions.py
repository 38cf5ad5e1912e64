"""What may be decided in the review queue: each choice asks, does its deed once, and is written down."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry

from billing.models import BillFinding, ProviderCharge
from gpubroker.common import clock
from gpubroker.console import review
from gpubroker.metrics.review import counts
from sessions_app import sweep
from sessions_app.models import Event, ProviderWatch, Rental, SeenOrphan, Session, UnknownMachine
from sessions_app.states import Debt, Status
from tests.console.people import person, text
from tests.console.waiting import (
    PAGE,
    buttons,
    dear,
    finding,
    hold,
    lost_destroy,
    press,
)
from tests.harness import Driver, MovableClock
from tests.sandbox import SandboxProcess
from tests.sessions_app import many

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("vastai")]


def test_a_held_sweep_is_released_by_a_typed_word_alone() -> None:
    watch, ann = hold(), person("operator")
    for wrong in ("", "release", "release Vastai"):
        form = {"action": "release", "item": "vastai", "confirmed": "yes", "confirm_typed": wrong}
        assert "nothing was changed" in text(ann.post(PAGE, form))
    watch.refresh_from_db()
    assert (watch.held_reason != "", watch.released_until) == (True, None)
    assert "vastai: released." in press(ann, "release", "vastai", confirm_typed="release vastai")
    watch.refresh_from_db()
    assert (watch.held_reason, watch.released_by) == ("", "staff:ann")
    assert watch.next_sweep_at <= clock.now()
    assert Event.objects.get(kind="sweep_released").actor == "staff:ann"
    entry = LogEntry.objects.get()
    assert (entry.user.get_username(), entry.object_repr) == ("ann", "vastai")
    assert entry.change_message == "Let it end what it found: released"
    again = {"action": "release", "item": "vastai", "confirmed": "yes", "confirm_typed": "release vastai"}
    assert review.NOTHING in text(ann.post(PAGE, again, follow=True))
    assert LogEntry.objects.count() == 1


def test_keep_holding_takes_it_off_the_queue_until_the_hold_is_over() -> None:
    hold()
    ann = person("operator")
    assert "vastai: kept held." in press(ann, "keep-holding", "vastai")
    assert review.open_count() == 0
    shown = text(ann.get(PAGE))
    assert ("Held, and that is right" in shown, "kept by staff:ann" in shown) == (True, True)
    assert buttons(ann) == {"release", "sweep"}
    assert Event.objects.get(kind="sweep_kept").actor == "staff:ann"
    assert "vastai: listed again." in press(ann, "sweep", "vastai")
    assert sweep.claim_due() == ["vastai"]


def test_a_hold_that_begins_anew_asks_anew(market: SandboxProcess, driver: Driver, time: MovableClock) -> None:
    labels = [f"gpb-testdep-aaaaaaaaaaaaaaaa-{number}" for number in range(1, 5)]
    machines = [market.foreign(label) for label in labels]
    driver.sweep_now()
    time.advance(hours=1)
    driver.sweep_now()
    press(person("operator"), "keep-holding", "vastai")
    time.advance(minutes=1)
    driver.sweep_now()
    assert counts()["held"] == 0
    for machine in machines[:2]:
        market.api("DELETE", f"/api/v0/instances/{machine}/", {})
    time.advance(minutes=1)
    SeenOrphan.objects.update(decision="leave")
    driver.sweep_now()
    assert ProviderWatch.objects.get().held_known_at is None


def test_orphans_are_destroyed_at_once_or_left_alone(
    market: SandboxProcess, driver: Driver, time: MovableClock, settings: Any
) -> None:
    away, kept = (market.foreign(f"gpb-testdep-aaaaaaaaaaaaaaa{letter}-1") for letter in "ab")
    driver.sweep_now()
    ann = person("operator")
    gone = SeenOrphan.objects.get(instance_id=str(away))
    stays = SeenOrphan.objects.get(instance_id=str(kept))
    assert "left alone." in press(ann, "leave-orphan", stays.pk)
    assert "to be destroyed." in press(ann, "destroy-orphan", gone.pk)
    assert review.open_count() == 0
    driver.until(lambda: [contract["id"] for contract in market.alive()] == [kept])
    time.advance(seconds=settings.ORPHAN_GRACE_SECONDS + 60)
    driver.sweep_now()
    assert [contract["id"] for contract in market.alive()] == [kept]
    said = [(event.reason, event.actor) for event in Event.objects.filter(kind="orphan_decided").order_by("id")]
    assert said == [("to be left alone", "staff:ann"), ("to be destroyed now", "staff:ann")]
    assert "up to its grace again." in press(ann, "let-grace-count", stays.pk)
    driver.sweep_now()
    driver.until(lambda: market.alive() == [])


def test_what_was_decided_one_by_one_is_not_held(market: SandboxProcess, driver: Driver, time: MovableClock) -> None:
    """Five orphans at once would be too much for a sweep alone."""
    machines = [market.foreign(f"gpb-testdep-aaaaaaaaaaaaaaa{letter}-1") for letter in "abcdef"]
    driver.sweep_now()
    ann = person("operator")
    for row in SeenOrphan.objects.exclude(instance_id=str(machines[-1])):
        press(ann, "destroy-orphan", row.pk)
    swept = driver.sweep_now()
    assert swept is not None
    assert (swept.held, swept.orphans_destroyed) == (False, 5)
    driver.until(lambda: [contract["id"] for contract in market.alive()] == machines[-1:])


def test_machines_of_others_are_told_of_once_and_never_touched(
    market: SandboxProcess, driver: Driver, time: MovableClock
) -> None:
    mine = market.foreign("a notebook")
    market.foreign("gpb-another1-abcdefghijklmnop-1")
    driver.sweep_now()
    (row,) = UnknownMachine.objects.all()
    assert (row.instance_id, row.label) == (str(mine), "a notebook")
    ann = person("operator")
    assert "marked as known." in press(ann, "known-machine", row.pk)
    time.advance(days=1)
    driver.sweep_now()
    row.refresh_from_db()
    assert (row.known_by, review.open_count(), len(market.alive())) == ("staff:ann", 0, 2)
    assert "unknown again." in press(ann, "unknown-machine", row.pk)
    assert counts()["unknown"] == 1
    market.api("DELETE", f"/api/v0/instances/{mine}/", {})
    time.advance(minutes=1)
    driver.sweep_now()
    assert not UnknownMachine.objects.exists()


def test_a_ghost_is_looked_for_again() -> None:
    ProviderWatch.objects.create(provider="vastai", next_sweep_at=clock.now() + timedelta(hours=1))
    row = many.rental(many.session(), missing_listings=2)
    assert "looked for again." in press(person("operator"), "look-again", row.pk)
    assert sweep.claim_due() == ["vastai"]


def test_a_price_is_accepted_up_to_itself() -> None:
    row, ann = dear(), person("operator")
    assert "price accepted." in press(ann, "accept-price", row.pk)
    assert review.open_count() == 0
    event = Event.objects.get(kind="price_accepted")
    assert (event.actor, event.session_id, event.rental_id) == ("staff:ann", row.session_id, row.id)
    Rental.objects.update(price_actual=Decimal("0.8"))
    assert counts()["drift"] == 1


def test_a_dear_session_is_ended() -> None:
    row = dear()
    assert "session ended." in press(person("operator"), "end-dear", row.pk)
    session = Session.objects.get()
    assert (session.status, session.end_reason) == (Status.STOPPING, "staff")
    row.refresh_from_db()
    assert row.state == Debt.DESTROYING
    assert Event.objects.filter(kind="session", actor="staff:ann", to_state="stopping").count() == 1


def test_drift_is_known_since_it_was_billed(
    market: SandboxProcess, driver: Driver, api: Any, time: MovableClock
) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_metered(session_id)
    row = Rental.objects.get()
    assert (row.drifted_at, row.price_actual is None) == (None, False)
    Rental.objects.update(price_asked=Decimal("0.01"), price_actual=Decimal("0.009"))
    driver.sweep_now()
    row.refresh_from_db()
    since = row.drifted_at
    assert since is not None
    assert counts()["drift"] == 1
    Rental.objects.update(price_asked=Decimal(90), price_actual=Decimal("0.009"))
    driver.sweep_now()
    row.refresh_from_db()
    assert row.drifted_at is None


def test_an_unproved_destroy_is_tried_again_and_may_be_known(time: MovableClock) -> None:
    later = clock.now() + timedelta(minutes=30)
    row = lost_destroy(next_check_at=later)
    ann = person("operator")
    assert "tried again." in press(ann, "try-destroy", row.pk)
    row.refresh_from_db()
    assert row.next_check_at is not None
    assert row.next_check_at <= clock.now()
    assert review.open_count() == 1
    assert "known." in press(ann, "know-unproved", row.pk)
    assert review.open_count() == 0
    time.advance(hours=25)
    assert review.open_count() == 1
    said = [(event.kind, event.actor) for event in Event.objects.filter(rental=row).order_by("id")]
    assert said == [("destroy_asked", "staff:ann"), ("unproved_known", "staff:ann")]


def charge(**changes: Any) -> None:
    row = {
        "provider": "vastai", "key": "instance-77:1", "source": "instance-77", "instance_id": "77",
        "amount": Decimal("1.25"), "fetched_at": clock.now(), "starts_at": clock.now() - timedelta(hours=2),
    }  # fmt: skip
    ProviderCharge.objects.create(**{**row, **changes})


def test_a_charge_is_assigned_to_a_rental() -> None:
    row, ann = finding(), person("finance")
    charge()
    other = many.rental(many.session(provider="tensordock"))
    rental = many.rental(many.session())
    for wrong in ("", "gpb-nothing", other.label):
        form = {"action": "assign-charge", "item": row.pk, "confirmed": "yes", "rental": wrong}
        assert ann.post(PAGE, form).status_code == 200
    assert ProviderCharge.objects.get().rental_id is None
    assert "assigned." in press(ann, "assign-charge", row.pk, rental=f" {rental.session_id} ")
    row.refresh_from_db()
    assert (ProviderCharge.objects.get().rental_id, row.state, row.decided_by) == (rental.id, "explained", "staff:ann")


@pytest.mark.parametrize(
    ("action", "kind", "state"),
    [("somebody-elses", "unowned", "ignored"), ("explained", "unowned", "explained"),
     ("explained", "difference", "explained"), ("explained", "missing", "explained")],
)  # fmt: skip
def test_a_charge_is_decided_on(action: str, kind: BillFinding.Kind, state: str) -> None:
    row, ann = finding(kind), person("finance")
    press(ann, action, row.pk)
    row.refresh_from_db()
    assert (row.state, row.decided_by) == (state, "staff:ann")
    assert review.open_count() == 0
    assert LogEntry.objects.count() == 1
