"""The review queue: what waits for a person stands there with age and choices, for those who may decide."""

from __future__ import annotations

import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing.models import BillFinding
from gpubroker.common import clock, roles
from gpubroker.console import review, review_choices, review_items
from sessions_app.models import ProviderWatch, SeenOrphan, UnknownMachine
from sessions_app.states import Debt, Status
from tests.console.people import person, text
from tests.console.waiting import (
    LABEL,
    PAGE,
    books,
    buttons,
    dear,
    finding,
    gauge,
    lost_destroy,
    one_of_each,
)
from tests.sessions_app import many

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("vastai")]


def test_nothing_waits() -> None:
    shown = text(person("viewer").get(PAGE))
    assert "Nothing waits for a person." in shown
    assert (review.open_count(), set(gauge().values())) == (0, {0.0})


def test_everything_that_waits_is_there_with_its_meaning() -> None:
    expected = one_of_each()
    page = person("admin").get(PAGE)
    shown, html = text(page), page.content.decode()
    assert (review.open_count(), gauge()) == (7, {kind: float(count) for kind, count in expected.items()})
    for kind in expected:
        assert f'id="{kind}"' in html
    for words in (
        "7 of 9 machines are lost by the listing", "Would destroy the orphans: 501", "and 2 more", "for 20 minutes",
        "it has not said yes", "accepted: 4", "vastai: 500 from the provider", f"label {LABEL}", "label a notebook",
        "missing in 2 complete listings", "the offer said $0.5 an hour, billed are $0.75",
        "a charge without a rental, machine 77", "ours $0, theirs $1.25",
    ):  # fmt: skip
        assert words in shown, words
    for alert in ("sweepheld", "destroyunproved", "orphanseen", "ghostfound", "pricedrift", "billdiffers"):
        assert f'href="/admin/runbook/#{alert}"' in html
        assert f'id="{alert}"' in person("viewer", alert).get("/admin/runbook/").content.decode()


def test_what_needs_nobody_is_not_there() -> None:
    lost_destroy(destroy_requested_at=clock.now() - timedelta(minutes=4))
    many.rental(many.session(), missing_listings=1)
    dear(drift_accepted=Decimal("0.75"))
    many.rental(
        many.session(Status.STOPPED), Debt.CLOSED, closed_at=clock.now(), proof={"answer": "gone"},
        drifted_at=clock.now(), price_asked=Decimal(1), price_actual=Decimal(2), missing_listings=3,
    )  # fmt: skip
    finding(state=BillFinding.State.EXPLAINED, decided_by="staff:ben", decided_at=clock.now(), decided_gap=Decimal(1))
    assert review.open_count() == 0
    assert buttons(person("admin")) == set()


def test_each_role_sees_its_own_buttons() -> None:
    one_of_each()
    money = {"assign-charge", "somebody-elses", "explained"}
    everything = set(review_choices.ALL) - {"let-grace-count", "unknown-machine"}
    seen = {role: buttons(person(role, role)) for role in ("viewer", "operator", "finance", "admin")}
    assert seen == {"viewer": set(), "operator": everything - money, "finance": money, "admin": everything}


def row_of(choice: review_choices.Choice) -> Any:
    row = choice.model._default_manager.first()
    assert row is not None
    return row


def test_nobody_decides_beyond_the_role() -> None:
    one_of_each()
    clients = {role: person(role, role) for role in ("viewer", "operator", "finance")}
    before = books()
    may = {"viewer": set(), "operator": {roles.OPERATE}, "finance": {roles.MONEY}}
    refused = [
        client.post(PAGE, {"action": choice.name, "item": row_of(choice).pk, "confirmed": "yes"}).status_code
        for role, client in clients.items() for choice in review_choices.ALL.values()
        if choice.power not in may[role]
    ]  # fmt: skip
    assert set(refused) == {403}
    assert len(refused) == 2 * len(review_choices.ALL)
    assert books() == before
    assert LogEntry.objects.count() == 0
    assert person(name="out").get(PAGE).status_code == 403
    assert Client().get(PAGE).headers["Location"].startswith("/admin/login/")


def test_what_is_over_by_then_changes_nothing() -> None:
    ann = person("admin")
    settled = finding(state=BillFinding.State.SETTLED)
    closed = many.rental(
        many.session(Status.STOPPED), Debt.CLOSED, closed_at=clock.now(), proof={"answer": "gone"},
    )  # fmt: skip
    watch = ProviderWatch.objects.create(provider="vastai", next_sweep_at=clock.now())
    before = books()
    for action, item in (
        ("explained", settled.pk), ("somebody-elses", settled.pk), ("accept-price", closed.pk),
        ("try-destroy", closed.pk), ("know-unproved", closed.pk), ("end-dear", closed.pk),
        ("keep-holding", watch.pk), ("destroy-orphan", "12"), ("leave-orphan", "x"), ("known-machine", "1" * 40),
        ("accept-price", uuid.uuid4()), ("explained", ""), ("nonsense", "1"), ("", ""),
    ):  # fmt: skip
        answer = ann.post(PAGE, {"action": action, "item": item, "confirmed": "yes"})
        assert (answer.status_code, answer.headers["Location"]) == (302, PAGE), action
    assert books() == before
    assert text(ann.get(PAGE)).count(review.NOTHING) == 14


def test_the_page_asks_a_fixed_number_of_questions() -> None:
    ann = person("admin")
    one_of_each()

    def asked() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert ann.get(PAGE).status_code == 200
        return len(captured)

    few = asked()
    for number in range(4):
        lost_destroy(consumer=f"consumer-{number}")
        dear()
        finding(subject=f"instance-{number}")
        SeenOrphan.objects.create(provider="vastai", instance_id=f"o{number}", label=LABEL, first_seen_at=clock.now())
    assert asked() == few
    UnknownMachine.objects.bulk_create(
        UnknownMachine(provider="vastai", instance_id=f"u{number}", first_seen_at=clock.now())
        for number in range(review_items.MOST_SHOWN)
    )
    assert f"Only the first {review_items.MOST_SHOWN} are shown." in text(ann.get(PAGE))
    assert asked() == few
