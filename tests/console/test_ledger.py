"""The ledger in the console: rows of a bounded choice, totals that are theirs, and the same as a file."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import ledger, ledger_admin, metering, services
from billing.ledger_choice import Choice, span
from billing.models import LedgerRow
from gpubroker.common import clock
from tests.console.people import person, text

pytestmark = pytest.mark.django_db
LIST = "/admin/billing/ledgerrow/"
NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def now() -> Iterator[None]:
    with clock.use(lambda: NOW):
        yield


@pytest.fixture
def ann() -> Client:
    return person("viewer")


def used(
    session: str, start: datetime, hours: float, gpu: str = "1", consumer: str | None = "me", **more: Any
) -> uuid.UUID:
    owner = services.ensure_consumer(consumer).pk if consumer else None
    who = services.Account(uuid.uuid4(), session, owner, more.get("provider", "vastai"), "RTX 4090")
    services.set_rate(who, "gpu", Decimal(gpu), start)
    services.set_rate(who, "disk", Decimal("0.1"), start)
    services.settle(who.rental_id, start + timedelta(hours=hours))
    return who.rental_id


def books() -> None:
    """me: 2 h yesterday; you: 1 h a week ago and at another provider; nobody: half an hour today."""
    used("sess-a", NOW - 26 * HOUR, 2)
    used("sess-b", NOW - timedelta(days=8), 1, "3", "you", provider="tensordock")
    used("", NOW - 3 * HOUR, 0.5, "4", None)
    metering.set_traffic(used("sess-c", NOW - 5 * HOUR, 1, "2"), NOW - 5 * HOUR, Decimal("0.05"))
    ledger.accrue()


def total(page: Any) -> str:
    return text(page).split("Total, ")[1].split("$")[1].split(" ")[0]


@pytest.mark.parametrize(
    ("query", "dollars", "rows"),
    [
        ("", "6.40", 13),
        ("?when=today", "4.20", 7),
        ("?when=yesterday", "2.20", 6),
        ("?when=2026-03-14", "2.20", 6),
        ("?when=31d", "9.50", 17),
        ("?when=month", "9.50", 17),
        ("?when=last", "0.00", 0),
        ("?when=nonsense", "6.40", 13),
        ("?when=31d&consumer=you", "3.10", 4),
        ("?consumer=me", "4.35", 11),
        ("?consumer=-", "2.05", 2),
        ("?consumer=nobody", "0.00", 0),
        ("?kind=gpu", "6.00", 6),
        ("?kind=bandwidth", "0.05", 1),
        ("?kind=sound", "6.40", 13),
        ("?when=31d&provider=tensordock", "3.10", 4),
        ("?q=sess-b", "3.10", 4),
        ("?q=sess", "0.00", 0),
        ("?q=sess-b&when=today", "0.00", 0),
    ],
)
def test_totals_are_those_of_the_rows(ann: Client, query: str, dollars: str, rows: int) -> None:
    books()
    page = ann.get(LIST + query)
    assert page.status_code == 200
    chosen = Choice.of(dict(pair.split("=") for pair in query.removeprefix("?").split("&") if pair))
    found = list(chosen.rows())
    assert len(found) == rows
    assert sum((each.dollars for each in chosen.totals()), Decimal(0)) == sum((row.amount for row in found), Decimal(0))
    assert total(page) == dollars
    assert f"{rows} ledger row" in text(page) or rows == 0


def test_a_rental_is_found_by_its_id(ann: Client) -> None:
    books()
    rental = used("sess-d", NOW - timedelta(days=60), 1)
    ledger.accrue()
    assert total(ann.get(f"{LIST}?q={rental}")) == "1.10"
    row = LedgerRow.objects.filter(rental_id=rental).earliest("pk")
    assert "sess-d" in text(ann.get(f"{LIST}{row.pk}/change/"))


def test_the_file_holds_the_rows(ann: Client) -> None:
    books()
    answer = ann.get(f"{LIST}csv/?consumer=me&when=yesterday")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(b"".join(answer).decode())))
    assert [line["hour"] for line in lines[::2]] == [
        "2026-03-14T10:00:00Z", "2026-03-14T11:00:00Z", "2026-03-14T12:00:00Z",
    ]  # fmt: skip
    assert sum(Decimal(line["dollars"]) for line in lines) == Decimal("2.2")
    assert {(line["consumer_id"], line["session_id"]) for line in lines} == {("me", "sess-a")}
    assert LogEntry.objects.get().change_message == "exported the ledger: 2026-03-14 to 2026-03-14, me"


def test_too_much_for_one_file(ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    books()
    monkeypatch.setattr(ledger_admin, "MOST_EXPORTED", 12)
    answer = ann.get(f"{LIST}csv/?when=7d", follow=True)
    assert answer.redirect_chain == [(f"{LIST}?when=7d", 302)]
    assert "more than 12 rows" in text(answer)
    assert not LogEntry.objects.exists()
    monkeypatch.setattr(ledger_admin, "MOST_EXPORTED", 13)
    assert ann.get(f"{LIST}csv/?when=7d").status_code == 200


def test_nobody_writes_it() -> None:
    books()
    root, before = person("admin"), list(LedgerRow.objects.order_by("pk").values())
    row = LedgerRow.objects.earliest("pk")
    assert root.get(f"{LIST}add/").status_code == 403
    assert root.post(f"{LIST}{row.pk}/change/", {"nanos": 1}).status_code == 403
    assert root.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert list(LedgerRow.objects.order_by("pk").values()) == before


def test_who_may_not_look_sees_nothing() -> None:
    nobody = person("")
    assert nobody.get(LIST).status_code == 403
    assert nobody.get(f"{LIST}csv/").status_code == 403


def test_no_row_costs_a_query(ann: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert ann.get(LIST).status_code == 200
        return len(captured)

    books()
    few = queries()
    for number in range(6):
        used(f"sess-{number}", NOW - 30 * HOUR, 4, consumer=f"c-{number}")
    ledger.accrue()
    assert queries() == few
    assert few <= 8


def test_a_name_that_is_markup_is_text(ann: Client) -> None:
    used("sess-a", NOW - 3 * HOUR, 1, consumer="<script>alert(1)</script>")
    ledger.accrue()
    page = ann.get(f"{LIST}?consumer=%3Cscript%3Ealert(1)%3C/script%3E").content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize(
    ("when", "first", "last"),
    [
        ("last", date(2026, 2, 1), date(2026, 2, 28)),
        ("month", date(2026, 3, 1), date(2026, 3, 15)),
        ("7d", date(2026, 3, 9), date(2026, 3, 15)),
        ("2026-02-30", date(2026, 3, 9), date(2026, 3, 15)),
        ("9999-12-31", date(9999, 12, 31), date(9999, 12, 31)),
    ],
)
def test_spans(when: str, first: date, last: date) -> None:
    assert span(when) == (first, last)
    assert list(Choice(first, last).rows()) == []
