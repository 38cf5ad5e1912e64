"""Providers' books in the console: balances, charges and findings, and who may not decide about them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.models import BillFinding, ChargeFetch, ProviderBalance, ProviderCharge
from gpubroker.common import clock
from tests import invariants
from tests.console.people import person, text

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)
BOOKS = "/admin/billing/"
YES = {"confirmed": "yes"}


@pytest.fixture(autouse=True)
def now() -> Iterator[None]:
    with clock.use(lambda: NOW):
        yield


def fill(count: int) -> None:
    for number in range(count):
        name = f"p-{number}"
        ProviderBalance.objects.create(provider=name, credit=Decimal(7), read_at=NOW, next_read_at=NOW + timedelta(1))
        ChargeFetch.objects.create(provider=name, next_at=NOW + timedelta(1), completed_at=NOW)
        ProviderCharge.objects.create(provider=name, key="i:1", source="i", amount=Decimal(2), fetched_at=NOW)
        BillFinding.objects.create(
            provider=name, kind="unowned", subject="i", ours=Decimal(0), theirs=Decimal(2), why="no label of ours",
            first_seen_at=NOW, last_seen_at=NOW,
        )  # fmt: skip


def chosen(model: Any, action: str) -> dict[str, Any]:
    return {"action": action, "_selected_action": [model.objects.get().pk], **YES}


def test_no_row_costs_a_query() -> None:
    ann = person("viewer")

    def queries() -> list[int]:
        counted = []
        for page in ("providerbalance", "chargefetch", "providercharge", "billfinding"):
            with CaptureQueriesContext(connection) as captured:
                assert ann.get(f"{BOOKS}{page}/").status_code == 200
            counted.append(len(captured))
        return counted

    fill(2)
    few = queries()
    for model in (ProviderBalance, ChargeFetch, ProviderCharge, BillFinding):
        model.objects.all().delete()
    fill(12)
    assert queries() == few
    assert max(few) <= 10


def test_finance_asks_and_decides() -> None:
    fill(1)
    ann = person("finance")
    ann.post(f"{BOOKS}providerbalance/", chosen(ProviderBalance, "read_now"))
    assert ProviderBalance.objects.get().next_read_at == NOW
    unconfirmed = {"action": "ignore", "_selected_action": [BillFinding.objects.get().pk]}
    asked = text(ann.post(f"{BOOKS}billfinding/", unconfirmed))
    assert "unowned at p-0, i: no label of ours" in asked
    assert BillFinding.objects.get().state == "open"
    ann.post(f"{BOOKS}billfinding/", chosen(BillFinding, "ignore"))
    finding = BillFinding.objects.get()
    assert (finding.state, finding.decided_by, finding.decided_at) == ("ignored", "staff:ann", NOW)
    told = LogEntry.objects.order_by("pk").values_list("change_message", flat=True)
    assert list(told) == ["asked for the balance", "marked it as ignored"]
    assert "p-0 good 7.000000 7.00" in text(ann.get(f"{BOOKS}providerbalance/"))


def test_a_decision_is_taken_back() -> None:
    fill(1)
    ann = person("finance")
    for action, state, by in (
        ("explain", "explained", "staff:ann"),
        ("reopen", "open", ""),
        ("ignore", "ignored", "staff:ann"),
    ):
        ann.post(f"{BOOKS}billfinding/", chosen(BillFinding, action))
        finding = BillFinding.objects.get()
        assert (finding.state, finding.decided_by) == (state, by)
    BillFinding.objects.update(state="settled", decided_at=None, decided_by="", decided_gap=None)
    told = ann.post(f"{BOOKS}billfinding/", chosen(BillFinding, "explain"), follow=True)
    assert "0 are explained now" in text(told)
    assert BillFinding.objects.get().state == "settled"


@pytest.mark.parametrize("role", ["", "viewer", "operator"])
def test_who_may_not_manage_money_decides_nothing(role: str) -> None:
    fill(1)
    ann = person(role)
    books = (ProviderBalance, ChargeFetch, ProviderCharge, BillFinding)
    before = invariants.digest(), [model.objects.values().get() for model in books]
    ann.post(f"{BOOKS}providerbalance/", chosen(ProviderBalance, "read_now"))
    ann.post(f"{BOOKS}chargefetch/", chosen(ChargeFetch, "fetch_now"))
    for action in ("explain", "ignore", "reopen"):
        ann.post(f"{BOOKS}billfinding/", chosen(BillFinding, action))
    assert (invariants.digest(), [model.objects.values().get() for model in books]) == before
    assert not LogEntry.objects.exists()
