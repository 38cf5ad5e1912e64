"""GET /costs and /costs/summary: dates, refusals, and sums."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing import services
from gpubroker.common import clock
from tests.billing.test_meter import account
from tests.harness import Api

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def history() -> object:
    for first, rate in ((datetime(2026, 2, 28, 23, tzinfo=UTC), 1), (datetime(2026, 3, 15, 10, tzinfo=UTC), 3)):
        who = account(f"sess-{rate}")
        services.set_rate(who, "gpu", Decimal(rate), first)
        services.settle(who.rental_id, first + timedelta(hours=2))
    with clock.use(lambda: NOW):
        yield


@pytest.mark.parametrize(
    ("params", "total", "sessions"),
    [
        ({}, 7.0, 2),
        ({"period": "monthly"}, 7.0, 2),
        ({"period": "daily"}, 6.0, 1),
        ({"start_date": "2026-02-28", "end_date": "2026-02-28"}, 1.0, 1),
        ({"start_date": "2026-02-28"}, 8.0, 2),
        ({"end_date": "2026-03-01"}, 1.0, 1),
        ({"start_date": "2026-03-16", "end_date": "2026-03-20"}, 0.0, 0),
        ({"consumer_id": "nobody"}, 0.0, 0),
        ({"consumer_id": "me"}, 7.0, 2),
    ],
)
def test_periods(api: Api, params: dict[str, str], total: float, sessions: int) -> None:
    answer = api.get("/costs", 200, **params)
    assert (answer["total_cost"], answer["session_count"]) == (total, sessions)
    assert answer["consumer_id"] == params.get("consumer_id", "")
    assert sum(answer["by_provider"].values()) == total
    assert sum(answer["by_gpu_type"].values()) == total


def test_summary_is_this_month(api: Api) -> None:
    assert api.get("/costs/summary") == {
        "consumer_id": "", "total_cost": 7.0, "session_count": 2, "hours_used": 3.0,
        "by_provider": {"vastai": 7.0}, "by_gpu_type": {"RTX 4090": 7.0},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "params"),
    [
        ("start_date", {"start_date": "2026-03-02", "end_date": "2026-03-01"}),
        ("start_date", {"start_date": "03/01/2026"}),
        ("end_date", {"end_date": "2026-02-30"}),
        ("period", {"period": "weekly"}),
        ("start_date", {"start_date": "99999-01-01"}),
    ],
)
def test_bad_dates_are_refused_by_name(api: Api, field: str, params: dict[str, str]) -> None:
    assert api.get("/costs", 400, **params)["field"] == field


def test_the_ends_of_time_are_no_accident(api: Api) -> None:
    assert api.get("/costs", start_date="0001-01-01", end_date="9999-12-31")["total_cost"] == 8.0
