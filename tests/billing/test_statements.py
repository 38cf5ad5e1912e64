"""The month-end statement: lines, columns and total add up, and are what /costs says; JSON and paper."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing import ledger, metering, reports, services, statements
from billing.models import Consumer, MeterSegment
from gpubroker.common import clock
from gpubroker.common.money import MICRO, apportion
from tests.billing.test_keys_admin import logged_in
from tests.harness import Api
from tests.keys import Caller, make, staff

CENT = Decimal("0.01")
NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
MARCH = date(2026, 3, 1)


@pytest.fixture
def now() -> Any:
    with clock.use(lambda: NOW):
        yield NOW


def used(session: str, start: datetime, hours: float | None, gpu: str = "1", disk: str = "0.1", **more: Any) -> None:
    consumer = services.ensure_consumer(more.pop("consumer", "me"))
    usual = {"provider": "vastai", "gpu_type": "RTX 4090", **more}
    who = services.Account(uuid.uuid4(), session, consumer.pk, **usual)
    services.set_rate(who, "gpu", Decimal(gpu), start)
    services.set_rate(who, "disk", Decimal(disk), start)
    if hours is not None:
        services.settle(who.rental_id, start + timedelta(hours=hours))


amounts = st.lists(st.decimals(0, 1000, places=9), max_size=30)


@given(amounts=amounts, unit=st.sampled_from([MICRO, CENT]))
def test_parts_of_one_rounding(amounts: list[Decimal], unit: Decimal) -> None:
    parts = apportion(amounts, unit)
    total = sum(amounts, Decimal(0))
    assert abs(sum(parts, Decimal(0)) - total) <= unit / 2
    assert sum(parts, Decimal(0)) == total.quantize(unit, rounding="ROUND_HALF_UP")
    assert all(abs(part - exact) < unit for part, exact in zip(parts, amounts, strict=True))


@pytest.mark.django_db
@hypothesis_settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    uses=st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(-90_000_000, 850_000_000), st.integers(1, 400_000_000),
            st.decimals("0.00000001", 50, places=8), st.decimals(0, 1, places=8),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_it_adds_up_and_is_what_costs_says(now: datetime, api: Api, uses: list[Any]) -> None:
    """Sessions of several attempts, across both ends of the month, with odd milliseconds."""
    with transaction.atomic():
        services.ensure_consumer("me")
        for session, start, lasts, gpu, disk in uses:
            began = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(milliseconds=start)
            used(f"sess-{session}", began, lasts / 3_600_000, str(gpu), str(disk))
        consumer = Consumer.objects.get(name="me")
        for unit in (MICRO, CENT):
            found = statements.statement(consumer, MARCH, unit=unit)
            assert sum((line.total for line in found.lines), Decimal(0)) == found.total
            assert sum(found.columns.values(), Decimal(0)) == found.total
        told = api.get("/statements/me", month="2026-03")
        costs = api.get("/costs", consumer_id="me", start_date="2026-03-01", end_date="2026-03-31")
        assert told["total_cost"] == costs["total_cost"]
        assert told["session_count"] == costs["session_count"]
        assert told["hours_used"] == pytest.approx(costs["hours_used"], abs=1e-5)
        assert abs(found.total - Decimal(str(costs["total_cost"]))) <= CENT / 2 + MICRO
        transaction.set_rollback(True)


@pytest.mark.django_db
def test_a_line_per_session_within_the_month(now: datetime, api: Api) -> None:
    used("sess-a", datetime(2026, 2, 28, 23, tzinfo=UTC), 2)
    used("sess-b", datetime(2026, 3, 2, tzinfo=UTC), 1, "2", "0.5", gpu_type="H100", provider="tensordock")
    used("sess-b", datetime(2026, 3, 2, 2, tzinfo=UTC), 1, "1")
    used("sess-c", NOW - timedelta(hours=3), None)
    used("sess-d", NOW - timedelta(hours=3), 1, consumer="you")
    told = api.get("/statements/me")
    assert (told["month"], told["closed"], told["until"]) == ("2026-03", False, "2026-03-15T12:00:00Z")
    lines = {line["session_id"]: line for line in told["sessions"]}
    assert list(lines) == ["sess-a", "sess-b", "sess-c"]
    assert lines["sess-a"] == {
        "session_id": "sess-a", "provider": "vastai", "gpu_type": "RTX 4090", "started_at": "2026-03-01T00:00:00Z",
        "ended_at": "2026-03-01T01:00:00Z", "hours_used": 1, "gpu_cost": 1, "storage_cost": 0.1, "bandwidth_cost": 0,
        "total_cost": 1.1,
    }  # fmt: skip
    assert lines["sess-b"]["provider"] == "tensordock, vastai"
    assert lines["sess-b"]["gpu_type"] == "H100, RTX 4090"
    assert (lines["sess-b"]["gpu_cost"], lines["sess-b"]["storage_cost"]) == (3, 0.6)
    assert (lines["sess-c"]["ended_at"], lines["sess-c"]["total_cost"]) == (None, 3.3)
    assert (told["total_cost"], told["gpu_cost"], told["storage_cost"]) == (8, 7, 1)
    february = api.get("/statements/me", month="2026-02")
    assert (february["total_cost"], february["closed"], february["until"]) == (1.1, True, "2026-03-01T00:00:00Z")
    assert api.get("/statements/me", month="2026-04")["sessions"] == []


@pytest.mark.django_db
def test_it_is_the_same_whatever_is_booked_and_counts_traffic_whole(now: datetime, api: Api) -> None:
    used("sess-a", NOW - timedelta(hours=40), None, "0.333333", "0.000007")
    used("sess-b", datetime(2026, 2, 28, 22, 30, tzinfo=UTC), 30, "1.2")
    rental = MeterSegment.objects.filter(session_id="sess-a").values_list("rental_id", flat=True)[0]
    # Of the hour that has just begun: billed by volume, so it is owed as a whole.
    assert metering.set_traffic(rental, NOW, Decimal("0.6"))
    before = api.get("/statements/me")
    assert before["bandwidth_cost"] == 0.6
    assert before["total_cost"] == api.get("/costs")["total_cost"]
    ledger.accrue()
    assert api.get("/statements/me") == before
    days = reports.spend_by_day(MARCH, NOW.date(), "me")
    assert sum((amount for _, amount in days), Decimal(0)).quantize(MICRO) == Decimal(str(before["total_cost"]))


@pytest.mark.django_db
@pytest.mark.parametrize("month", ["2026", "2026-13", "2026-00", "26-01", "2026-1", "2026-01-01", "x", "１９９９-01"])
def test_another_month_is_refused_by_name(now: datetime, api: Api, month: str) -> None:
    services.ensure_consumer("me")
    assert api.get("/statements/me", 400, month=month)["field"] == "month"


@pytest.mark.django_db
def test_consumers_see_their_own(now: datetime, settings: Any) -> None:
    settings.API_AUTH = "key"
    used("sess-a", NOW - timedelta(hours=3), 1)
    used("sess-b", NOW - timedelta(hours=3), 1, consumer="you")
    me, boss = Caller(make("me").secret), Caller(staff().secret)
    assert me("GET", "/statements/me")[1]["total_cost"] == 1.1
    assert boss("GET", "/statements/you")[1]["total_cost"] == 1.1
    for consumer in ("you", "nobody"):
        status, answer = me("GET", f"/statements/{consumer}")
        assert (status, answer["error"]) == (404, f"consumer {consumer} not found")


@pytest.mark.django_db
def test_on_paper(now: datetime) -> None:
    for number in range(3):
        used(f"sess-{number}", NOW - timedelta(hours=30 * (number + 1)), 1, "0.333333", "0.001")
    consumer = Consumer.objects.get()
    ann = logged_in(superuser=True)
    page = ann.get(f"/admin/billing/consumer/{consumer.pk}/statement/?month=2026-03")
    assert page.status_code == 200
    text = page.content.decode()
    cells = [Decimal(found) for found in re.findall(r'<td class="number">([\d.]+)</td></tr>', text)]
    assert cells == [Decimal("0.34"), Decimal("0.33"), Decimal("0.33"), Decimal("1.00")]
    assert "/static/billing/money.css" in text
    assert (
        f"/admin/billing/consumer/{consumer.pk}/statement/"
        in ann.get(f"/admin/billing/consumer/{consumer.pk}/change/").content.decode()
    )
    assert ann.get(f"/admin/billing/consumer/{consumer.pk}/statement/?month=2026-99").status_code == 404
    assert ann.get("/admin/billing/consumer/99999/statement/").status_code == 404


@pytest.mark.django_db
def test_paper_is_for_those_who_may_see_consumers(now: datetime) -> None:
    consumer = services.ensure_consumer("me")
    assert logged_in("view_session").get(f"/admin/billing/consumer/{consumer.pk}/statement/").status_code == 403


# -- spend by day ------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_spend_by_day_is_cut_at_midnight_and_adds_up(now: datetime, api: Api) -> None:
    used("sess-a", datetime(2026, 3, 12, 18, tzinfo=UTC), 12, "1", "0")
    used("sess-b", NOW - timedelta(hours=2), None, "2", "0", consumer="you")
    days = reports.spend_by_day(date(2026, 3, 12), date(2026, 3, 16))
    assert [(day.day, int(amount)) for day, amount in days] == [(12, 6), (13, 6), (14, 0), (15, 4), (16, 0)]
    assert reports.spend_by_day(date(2026, 3, 13), date(2026, 3, 15), "you")[2][1] == 4
    costs = api.get("/costs", start_date="2026-03-12", end_date="2026-03-16")
    assert costs["total_cost"] == sum(float(amount) for _, amount in days)


@pytest.mark.django_db
def test_the_picture(now: datetime) -> None:
    used("sess-a", datetime(2026, 3, 12, 18, tzinfo=UTC), 12, "3", "0")
    ann = logged_in(superuser=True)
    page = ann.get("/admin/billing/metersegment/spend/?days=7").content.decode()
    assert page.count("<rect ") == 7
    assert "2026-03-12: $18.00" in page
    assert 'tracking-tight">$36.00<' in page
    assert "$20" in page
    assert ann.get("/admin/billing/metersegment/spend/?days=everything").content.decode().count("<rect ") == 31
    assert "spend/" in ann.get("/admin/billing/metersegment/").content.decode()


@pytest.mark.parametrize(("most", "top"), [("0", "1"), ("0.03", "0.05"), ("1", "1"), ("18", "20"), ("999", "1000")])
def test_the_scale_is_round(most: str, top: str) -> None:
    drawn = reports.picture([(MARCH, Decimal(most)), (date(2026, 3, 2), Decimal(0))])
    assert drawn.lines[-1][1] == Decimal(top)
    assert drawn.bars[0].height == pytest.approx(float(Decimal(most) / Decimal(top)) * 150, abs=0.01)
    assert drawn.bars[1].height == 0
