"""Offers in the console: filters, prices of the last 30 days, failures of a machine, and a fixed number of queries."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from gpubroker.common import clock
from offers import failures, prices
from offers.models import Offer, OfferPrice
from tests.console.people import person, text
from tests.harness import MovableClock
from tests.offers.factory import apply, row

pytestmark = pytest.mark.django_db
LIST = "/admin/offers/offer/"


def price(offer: str = "vastai-1") -> list[tuple[Decimal, Decimal]]:
    found = OfferPrice.objects.filter(offer=offer).order_by("id")
    return [(change.before, change.price_per_hour) for change in found]


def listed(page: Any) -> list[str]:
    return re.findall(r'href="/admin/offers/offer/([^/"]+)/change/', page.content.decode())


@pytest.fixture
def ann() -> Client:
    return person("viewer")


def test_a_change_of_price_is_a_row_and_an_unchanged_one_is_none() -> None:
    apply([row("1"), row("2")])
    assert apply([row("1", reliability=0.5), row("2")]).changed == 1
    assert OfferPrice.objects.count() == 0
    apply([row("1", price_per_hour=Decimal("0.5")), row("2")])
    apply([row("2", price_per_hour=Decimal("0.4"))])
    apply([row("1", price_per_hour=Decimal("0.3")), row("2", price_per_hour=Decimal("0.4"))])
    assert price() == [(Decimal("0.45"), Decimal("0.5")), (Decimal("0.5"), Decimal("0.3"))]
    assert price("vastai-2") == [(Decimal("0.45"), Decimal("0.4"))]


def test_a_listing_without_another_price_asks_nothing_more(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        prices.write([], clock.now())


def test_prices_are_kept_for_30_days_and_no_more_than_so_many(
    time: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply([row("1")])
    apply([row("1", price_per_hour=Decimal("0.5"))])
    time.advance(days=31)
    apply([row("1", price_per_hour=Decimal("0.6"))])
    assert price() == [(Decimal("0.5"), Decimal("0.6"))]
    monkeypatch.setattr(prices, "MOST_KEPT", 2)
    for number in range(4):
        apply([row("1", price_per_hour=Decimal(number + 1))])
    assert price() == [(Decimal(2), Decimal(3)), (Decimal(3), Decimal(4))]


def test_the_history_of_one_offer(time: MovableClock) -> None:
    apply([row("1", price_per_hour=Decimal("0.4"))])
    time.advance(hours=10)
    apply([row("1", price_per_hour=Decimal("0.8"))])
    time.advance(hours=10)
    found = prices.history(Offer.objects.get())
    assert (found.first, found.now, found.lowest, found.highest) == (
        Decimal("0.4"), Decimal("0.8"), Decimal("0.4"), Decimal("0.8"),
    )  # fmt: skip
    drawn = prices.picture(found)
    assert [round(height) for height, _ in drawn.rules] == [prices.TOP, prices.BASE]
    across = [float(point.split(",")[0]) for point in drawn.points.split()]
    assert across == pytest.approx([84, 402, 402, 720], abs=1)


def test_more_changes_than_are_drawn(time: MovableClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "MOST_DRAWN", 2)
    for number in range(1, 6):
        apply([row("1", price_per_hour=Decimal(number))])
        time.advance(hours=1)
    found = prices.history(Offer.objects.get())
    assert [change.price_per_hour for change in found.changes] == [5, 4]
    assert (found.first, found.since) == (Decimal(3), found.changes[-1].at)


def test_the_page_of_an_offer(ann: Client, time: MovableClock) -> None:
    apply([row("1")])
    time.advance(hours=1)
    apply([row("1", price_per_hour=Decimal("0.9"))])
    for _ in range(2):
        failures.record_failure(
            provider="vastai", offer_id="vastai-1", machine_id="7", gpu_type="RTX 4090", reason="boot_failed",
            message="<b>no</b>",
        )  # fmt: skip
    page = ann.get(f"{LIST}vastai-1/change/")
    assert page.status_code == 200
    assert "<polyline points=" in page.content.decode()
    assert "$0.4500 $0.9000 +100.0%" in text(page)
    assert text(page).count("boot_failed") == 2
    assert "<b>no</b>" not in page.content.decode()
    assert ann.get(f"{LIST}nothing/change/").status_code == 302


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["vastai-2", "vastai-1", "vastai-3"]),
        ("?listed=withdrawn", ["vastai-4"]),
        ("?listed=all", ["vastai-4", "vastai-2", "vastai-1", "vastai-3"]),
        ("?gpu=h100", ["vastai-3"]),
        ("?price=0.50", ["vastai-2", "vastai-1"]),
        ("?price=more", ["vastai-3"]),
        ("?price=much", ["vastai-2", "vastai-1", "vastai-3"]),
        ("?q=vastai-1", ["vastai-1"]),
        ("?provider=tensordock", []),
    ],
)
def test_filters(ann: Client, query: str, found: list[str]) -> None:
    costly = row("3", gpu_name_raw="H100", price_per_hour=Decimal(9))
    apply([row("1"), row("2", price_per_hour=Decimal("0.2")), costly, row("4", price_per_hour=Decimal("0.1"))])
    apply([row("1"), row("2", price_per_hour=Decimal("0.2")), costly])
    assert listed(ann.get(LIST + query)) == found


def test_a_suppressed_machine_is_not_sold(ann: Client) -> None:
    apply([row("1"), row("2", machine_id="8")])
    for _ in range(3):
        failures.record_failure(
            provider="vastai", offer_id="vastai-1", machine_id="7", gpu_type="RTX 4090", reason="boot_failed"
        )
    page = text(ann.get(LIST))
    assert "3 not sold" in page.replace("0.00 ", "")
    assert page.count("listed") >= 1
    machines = text(ann.get("/admin/offers/offerfailure/machines/"))
    assert "vastai 7 RTX 4090 vastai-1 3 3 boot_failed" in machines


def queries(ann: Client, path: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert ann.get(path).status_code == 200
    return len(captured)


@pytest.mark.parametrize("path", [LIST, "/admin/offers/offerfailure/", "/admin/offers/offerfailure/machines/"])
def test_no_row_costs_a_query(ann: Client, path: str) -> None:
    def fill(last: int) -> None:
        apply([row(str(number), machine_id=str(number)) for number in range(1, last)])
        for number in range(1, last):
            failures.record_failure(
                provider="vastai", offer_id=f"vastai-{number}", machine_id=str(number), gpu_type="RTX 4090",
                reason="boot_failed",
            )  # fmt: skip

    fill(3)
    few = queries(ann, path)
    fill(25)
    assert queries(ann, path) == few
    assert few <= 14


def test_old_failures_are_not_told(time: MovableClock) -> None:
    apply([row("1")])
    failures.record_failure(
        provider="vastai", offer_id="vastai-1", machine_id="7", gpu_type="RTX 4090", reason="boot_failed"
    )
    offer = Offer.objects.get()
    assert failures.counts([offer]) == {"vastai:7": 1}
    time.advance(days=31)
    assert failures.counts([offer]) == {}
    assert list(failures.of_machine(offer)) == []
