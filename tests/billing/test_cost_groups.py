"""GET /costs and /costs/summary with group_by and as CSV: lines, sums, refusals, and cells that calculate nothing."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing import ledger, metering, services
from gpubroker.common import clock
from gpubroker.common.csvfile import cell, lines
from sessions_app.states import Status
from tests.harness import Api
from tests.keys import Caller, make
from tests.sessions_app.test_states import make_session

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)
NOTHING = {
    "gpu_cost": 0, "storage_cost": 0, "bandwidth_cost": 0, "failed_attempts_cost": 0, "preserved_disk_cost": 0,
    "hours_used": 0,
}  # fmt: skip


def used(consumer: str, session_id: str, provider: str, gpu_type: str) -> services.Account:
    payer = services.ensure_consumer(consumer)
    return services.Account(uuid.uuid4(), session_id, payer.pk, provider, gpu_type)


@pytest.fixture(autouse=True, params=["booked", "not booked"])
def history(db: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Over and booked, running, failed, kept; and once the same with nothing booked at all."""
    over = used("ada", "sess-ada", "vastai", "RTX 4090")
    services.set_rate(over, "gpu", Decimal("1"), datetime(2026, 3, 14, 23, 30, tzinfo=UTC))
    services.set_rate(over, "disk", Decimal("0.1"), datetime(2026, 3, 14, 23, 30, tzinfo=UTC))
    services.stop_kind(over.rental_id, "gpu", datetime(2026, 3, 15, 0, 30, tzinfo=UTC))
    metering.keep_disk(over.rental_id, datetime(2026, 3, 15, 0, 30, tzinfo=UTC))
    services.settle(over.rental_id, datetime(2026, 3, 15, 1, 30, tzinfo=UTC))
    failed = used("bob", "sess-bob", "tensordock", "=A100")
    services.set_rate(failed, "disk", Decimal("0.3"), datetime(2026, 3, 15, 11, tzinfo=UTC))
    metering.mark_failed(failed.rental_id)
    services.settle(failed.rental_id, datetime(2026, 3, 15, 11, 20, tzinfo=UTC))
    running = used("bob", "sess-bob", "vastai", "RTX 4090")
    services.set_rate(running, "gpu", Decimal("2"), datetime(2026, 3, 15, 12, tzinfo=UTC))
    metering.set_traffic(running.rental_id, datetime(2026, 3, 15, 12, tzinfo=UTC), Decimal("0.05"))
    make_session(Status.RUNNING, id="sess-bob", consumer=services.ensure_consumer("bob"))
    with clock.use(lambda: NOW):
        for _ in range({"booked": 1, "not booked": 0}[request.param]):
            ledger.accrue()
        yield


def found(api: Api, group_by: str, **params: str) -> dict[str, float]:
    answer = api.get("/costs", 200, group_by=group_by, **params)
    assert answer["count"] == len(answer["groups"])
    return {next(iter(line.values())): line["total_cost"] for line in answer["groups"]}


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("day", {"2026-03-14": 0.55, "2026-03-15": 1.8}),
        ("hour", {"2026-03-14T23:00:00Z": 0.55, "2026-03-15T00:00:00Z": 0.6, "2026-03-15T01:00:00Z": 0.05,
                  "2026-03-15T11:00:00Z": 0.1, "2026-03-15T12:00:00Z": 1.05}),
        ("session", {"sess-ada": 1.2, "sess-bob": 1.15}),
        ("gpu_type", {"=A100": 0.1, "RTX 4090": 2.25}),
        ("provider", {"tensordock": 0.1, "vastai": 2.25}),
        ("consumer", {"ada": 1.2, "bob": 1.15}),
    ],
)  # fmt: skip
def test_groups(api: Api, group_by: str, expected: dict[str, float]) -> None:
    assert found(api, group_by) == expected
    assert api.get("/costs", group_by=group_by)["total_cost"] == api.get("/costs")["total_cost"] == 2.35
    assert api.get("/costs/summary", group_by=group_by)["groups"] == api.get("/costs", group_by=group_by)["groups"]


def test_a_line_says_what_it_was_for(api: Api) -> None:
    answer = api.get("/costs", group_by="session", start_date="2026-03-15", end_date="2026-03-15")
    assert {name: value for name, value in answer.items() if name != "groups"} == {
        "consumer_id": "", "group_by": "session", "start_date": "2026-03-15", "end_date": "2026-03-15",
        "total_cost": 1.8, "hours_used": 1, "count": 2, "total": 2, "next": None,
    }  # fmt: skip
    ada, bob = answer["groups"]
    assert ada == {
        **NOTHING, "session_id": "sess-ada", "total_cost": 0.65, "gpu_cost": 0.5, "storage_cost": 0.15,
        "preserved_disk_cost": 0.1, "hours_used": 0.5,
    }  # fmt: skip
    assert bob == {
        **NOTHING, "session_id": "sess-bob", "total_cost": 1.15, "gpu_cost": 1, "storage_cost": 0.1,
        "bandwidth_cost": 0.05, "failed_attempts_cost": 0.1, "hours_used": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("group_by", ["session", "hour", "day", "consumer"])
def test_pages(api: Api, group_by: str) -> None:
    whole = api.get("/costs/summary", group_by=group_by)
    lines: list[Any] = []
    following: dict[str, str] = {}
    for left in range(whole["total"] - 1, -1, -1):
        page = api.get("/costs/summary", 200, group_by=group_by, limit=1, **following)
        assert (page["count"], page["total"], page["total_cost"]) == (1, whole["total"], 2.35)
        assert (page["next"] is None) == (left == 0)
        lines += page["groups"]
        following = {"after": page["next"] or ""}
    assert lines == whole["groups"]
    beyond = api.get("/costs/summary", group_by=group_by, after="~")
    assert (beyond["groups"], beyond["count"], beyond["next"]) == ([], 0, None)
    assert api.get("/costs/summary", 400, group_by=group_by, limit=0)["field"] == "limit"


def test_a_summary_prints_the_same_amounts_as_its_lines(api: Api) -> None:
    """Thirds of a millionth: rounded by themselves they would not add up."""
    for number, provider in enumerate(("vastai", "tensordock", "vastai")):
        dear = used("ada", f"sess-third-{number}", provider, f"GPU {number}")
        services.set_rate(dear, "gpu", Decimal("0.00000140"), NOW - timedelta(minutes=20))
        services.settle(dear.rental_id, NOW)
    summary = api.get("/costs/summary")
    for group_by in ("provider", "gpu_type"):
        assert summary[f"by_{group_by}"] == found(api, group_by)
        assert sum(Decimal(str(each)) for each in summary[f"by_{group_by}"].values()) == Decimal(
            str(summary["total_cost"])
        )


def test_one_consumer_one_session_and_days(api: Api) -> None:
    assert found(api, "day", consumer_id="ada") == {"2026-03-14": 0.55, "2026-03-15": 0.65}
    assert found(api, "provider", session_id="sess-bob") == {"tensordock": 0.1, "vastai": 1.05}
    assert found(api, "hour", session_id="sess-bob", end_date="2026-03-14") == {}
    assert found(api, "day", start_date="2026-03-14", end_date="2026-03-14") == {"2026-03-14": 0.55}
    whole = api.get("/costs", group_by="day", session_id="sess-bob")
    assert (whole["session_id"], whole["start_date"], whole["end_date"]) == ("sess-bob", None, None)
    assert api.get("/costs", 404, group_by="day", session_id="sess-none")["session_id"] == "sess-none"


def test_a_session_tells_its_parts(api: Api) -> None:
    assert api.get("/costs", session_id="sess-bob") == {
        "session_id": "sess-bob", "total_cost": 1.15, "currency": "USD", "gpu_cost": 1, "storage_cost": 0.1,
        "bandwidth_cost": 0.05, "failed_attempts_cost": 0.1, "preserved_disk_cost": 0, "hours_used": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [("group_by", "week"), ("group_by", ""), ("format", "xml")])
@pytest.mark.parametrize("path", ["/costs", "/costs/summary"])
def test_refused_by_name(api: Api, path: str, name: str, value: str) -> None:
    assert api.get(path, 400, **{name: value})["field"] == name


def table(path: str, accept: str = "*/*", **params: str) -> tuple[Any, list[dict[str, str]]]:
    answer = Client().get(f"/api/v1{path}", {"format": "csv", **params}, headers={"Accept": accept})
    assert answer.status_code == 200
    return answer, list(csv.DictReader(io.StringIO(b"".join(answer).decode(), newline="")))


def test_as_a_file(api: Api) -> None:
    answer, rows = table("/costs", accept="text/csv", group_by="gpu_type", start_date="2026-03-01")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    name = "costs-2026-03-01-to-2026-03-15-by-gpu-type.csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["X-Request-ID"]
    assert [(row["gpu_type"], row["total_cost"], row["hours_used"]) for row in rows] == [
        ("'=A100", "0.1", "0"), ("RTX 4090", "2.25", "1.5"),
    ]  # fmt: skip


def test_a_file_is_by_day_and_adds_up(api: Api) -> None:
    for path in ("/costs", "/costs/summary"):
        _, rows = table(path)
        assert [row["day"] for row in rows] == ["2026-03-14", "2026-03-15"]
        assert sum(Decimal(row["total_cost"]) for row in rows) == Decimal("2.35")
    assert table("/costs", session_id="sess-bob")[0].headers["Content-Disposition"].endswith('"costs-by-day.csv"')


def test_a_refusal_of_a_file_is_json() -> None:
    answer = Client().get("/api/v1/costs", {"format": "csv", "period": "x"}, headers={"Accept": "text/csv"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/json")
    assert answer.json()["field"] == "period"


def test_a_key_sees_only_its_consumers_lines(settings: Any) -> None:
    settings.API_AUTH = "key"
    ada = Caller(make("ada").secret)
    for group_by, names in (("consumer", ["ada"]), ("session_id", []), ("provider", ["vastai"])):
        answer = ada("GET", f"/costs?group_by={group_by.removesuffix('_id')}")[1]
        assert [next(iter(line.values())) for line in answer["groups"]] == (names or ["sess-ada"])
    assert ada("GET", "/costs?group_by=day&consumer_id=bob")[0] == 403
    assert ada("GET", "/costs?group_by=day&session_id=sess-bob")[0] == 404


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@SUM(A1)", "'@SUM(A1)"), ("\t=1", "'\t=1"), (" =1", "' =1"),
        ("\r\n=1", "'\r\n=1"), ("＝1", "'＝1"), ("RTX 4090", "RTX 4090"), ("a=1", "a=1"), ("", ""), (None, ""),
        (Decimal("0.100000"), "0.1"), (Decimal("-1.5"), "-1.5"), (Decimal(20), "20"), (-3, "-3"),
    ],
)  # fmt: skip
def test_cells(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_a_long_table_is_sent_in_parts() -> None:
    parts = list(lines(["a", "b"], ({"a": number, "b": 'x,"y"\n'} for number in range(450))))
    assert len(parts) == 3
    rows = list(csv.DictReader(io.StringIO("".join(parts), newline="")))
    assert [row["a"] for row in rows] == [str(number) for number in range(450)]
    assert {row["b"] for row in rows} == {'x,"y"\n'}


def test_the_last_minutes_count(api: Api) -> None:
    with clock.use(lambda: NOW + timedelta(seconds=9)):
        assert found(api, "session")["sess-bob"] == 1.155
