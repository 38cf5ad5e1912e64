"""api.md's decisions, line by line: errors, query parameters, inventory and its freshness, lists, costs, health."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from gpubroker.common import clock
from offers import snapshot
from tests.harness import Api, Driver, MovableClock
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db
API = "/api/v1"


def client() -> Client:
    return Client(raise_request_exception=False)


# -- Errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "media", "status"),
    [
        ("POST", "/sessions", "{", "application/json", 400), ("GET", "/inventory?limit=0", "", "", 400),
        ("GET", "/nothing", "", "", 404), ("GET", "/sessions/sess-x", "", "", 404),
        ("PATCH", "/sessions", "{}", "application/json", 405), ("DELETE", "/inventory", "", "", 405),
        ("POST", "/sessions", "a=1", "application/x-www-form-urlencoded", 415),
        ("POST", "/sessions", '{"a": "' + "x" * 1_100_000 + '"}', "application/json", 413),
    ],
)  # fmt: skip
def test_every_error_has_the_one_shape(method: str, path: str, body: str, media: str, status: int) -> None:
    response = client().generic(method, f"{API}{path}", body, content_type=media or "application/json")
    answer = response.json()
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    assert isinstance(answer["error"], str)
    assert answer["error"]
    assert answer["request_id"] == response.headers["X-Request-ID"]
    assert uuid.UUID(answer["request_id"])


def test_unexpected_faults_are_500_and_nothing_internal_leaks(monkeypatch: Any) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(snapshot._holder, "current", broken)
    response = client().get(f"{API}/inventory")
    assert response.status_code == 500
    assert set(response.json()) == {"error", "request_id"}
    assert "secret" not in response.content.decode()


def test_too_many_requests_say_when_to_come_again(settings: Any) -> None:
    settings.API_RATE_PER_MINUTE = 3
    answers = [client().get(f"{API}/templates") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert set(answers[-1].json()) >= {"error", "request_id"}


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/metrics", "/api/v1/inventory", "/api/v1/nothing", "/api/schema"]
)
def test_the_request_id_is_on_every_answer(path: str) -> None:
    assert client().get(path, headers={"X-Request-ID": "my.own-id_7"}).headers["X-Request-ID"] == "my.own-id_7"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ünï", "a\r\nb", "a/b"])
def test_a_malformed_request_id_is_replaced(given: str) -> None:
    assert uuid.UUID(client().get(f"{API}/templates", headers={"X-Request-ID": given}).headers["X-Request-ID"])


def test_the_request_id_is_in_the_log_lines_of_the_request(monkeypatch: Any, caplog: Any) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(snapshot._holder, "current", broken)
    handler = logging.getLogger().handlers[0]
    lines: list[str] = []
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(handler.format(record)))
    client().get(f"{API}/inventory", headers={"X-Request-ID": "find-me"})
    assert any("find-me" in line for line in lines)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/inventory/vastai-9", "offer vastai-9 not found"), ("/templates/abc", "template abc not found"),
        ("/inventory?template_hash_id=abc", "template abc not found"), ("/sessions/sess-9", "session sess-9 not found"),
        ("/costs?session_id=sess-9", "session sess-9 not found"), ("/nothing", "there is no /api/v1/nothing"),
    ],
)  # fmt: skip
def test_a_404_names_what_was_not_found(path: str, sentence: str) -> None:
    response = client().get(f"{API}{path}")
    assert (response.status_code, response.json()["error"]) == (404, sentence)


# -- Query parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/inventory", "min_vram", "-1"), ("/inventory", "limit", "0"), ("/inventory", "min_reliability", "1.2"),
        ("/inventory", "max_price", "NaN"), ("/inventory", "min_cuda", "inf"), ("/inventory", "min_cuda", "-1"),
        ("/inventory", "offset", "-1"), ("/inventory", "gpu_count", "two"), ("/inventory", "provider", "aws"),
        ("/inventory", "min_availability_confidence", "1.01"), ("/sessions", "limit", "0"),
        ("/sessions", "provider", "aws"), ("/sessions", "status", "gone"), ("/costs", "start_date", "2026-13-01"),
        ("/costs", "period", "weekly"), ("/inventory/vastai-1", "disk_gb", "7"),
    ],
)  # fmt: skip
def test_a_bad_value_is_400_and_names_the_parameter_and_what_it_got(path: str, name: str, value: str) -> None:
    apply([row("1")])
    answer = client().get(f"{API}{path}", {name: value})
    assert answer.status_code == 400
    assert answer.json()["field"] == name
    assert answer.json()["error"].startswith(f"{name}: ")
    assert value in answer.json()["error"]


@pytest.mark.parametrize("path", ["/inventory", "/templates", "/sessions", "/costs", "/costs/summary"])
def test_unknown_parameters_are_ignored(path: str) -> None:
    plain = client().get(f"{API}{path}")
    assert client().get(f"{API}{path}?color=red&limitt=0").content == plain.content


# -- Inventory ---------------------------------------------------------------------------------------------------


def test_gpu_type_ignores_case_and_spaces_and_the_raw_name_stays(api: Api) -> None:
    apply([row("1", gpu_name_raw="A100 SXM4", vram_mb=81920), row("2")])
    for asked in ("a100", "A100", " A 100"):
        (offer,) = api.get("/inventory", gpu_type=asked)["offers"]
        assert (offer["gpu_type"], offer["gpu_name_raw"]) == ("A100", "A100 SXM4")
    assert api.get("/inventory", gpu_type="A10")["total"] == 0


def test_location_is_a_part_in_any_case(api: Api) -> None:
    apply([row("1", location="Stockholm, SE"), row("2", location="Texas, US")])
    assert [each["id"] for each in api.get("/inventory", location="sTOCK")["offers"]] == ["vastai-1"]


def test_order_is_price_then_confidence_then_id_and_stable_across_pages(api: Api) -> None:
    apply([row(str(number), price_per_hour=Decimal(number % 4)) for number in range(30)])
    whole = [each["id"] for each in api.get("/inventory")["offers"]]
    assert whole == sorted(whole, key=lambda name: (int(name.removeprefix("vastai-")) % 4, name))
    paged = [each["id"] for start in range(0, 30, 7) for each in api.get("/inventory", limit=7, offset=start)["offers"]]
    assert paged == whole


def test_no_limit_means_all_with_count_and_total(api: Api) -> None:
    apply([row(str(number)) for number in range(130)])
    answer = api.get("/inventory")
    assert (len(answer["offers"]), answer["count"], answer["total"]) == (130, 130, 130)
    page = api.get("/inventory", limit=10, offset=125)
    assert (len(page["offers"]), page["count"], page["total"]) == (5, 5, 130)


def test_what_every_offer_is_judged_by(api: Api) -> None:
    apply([row("1")])
    (offer,) = api.get("/inventory")["offers"]
    assert set(offer) >= {
        "availability_confidence", "gpu_vram_total_gb", "compute_capability", "cpu_cores", "ram_gb", "disk_gb",
        "storage_price_per_gb_month", "inet_down_mbps", "inet_up_mbps", "verified", "datacenter", "interruptible",
        "min_bid_per_hour", "machine_id", "gpu_name_raw",
    }  # fmt: skip


def test_the_quote_adds_storage_to_the_plain_price(api: Api) -> None:
    apply([row("1", price_per_hour=Decimal("0.45"), storage_price_per_gb_month=Decimal("0.36"))])
    offer = api.get("/inventory/vastai-1", disk_gb=200)
    assert offer["price_per_hour"] == 0.45
    assert offer["quote"].pop("price_includes") == []  # this broker has no provider
    assert offer["quote"] == {"disk_gb": 200, "gpu_per_hour": 0.45, "storage_per_hour": 0.1, "total_per_hour": 0.55}


def test_an_unknown_cuda_version_is_absent(api: Api) -> None:
    apply([row("1", cuda_version=None), row("2", price_per_hour=Decimal(9))])
    one, two = api.get("/inventory")["offers"]
    assert "cuda_version" not in one
    assert two["cuda_version"] == 12.4
    assert api.get("/inventory", min_cuda="0")["total"] == 1


def test_an_offer_that_is_no_longer_listed_is_404_and_never_sold(sandbox: SandboxProcess, api: Api) -> None:
    apply([row("1"), row("2")])
    apply([row("2")])
    assert api.get("/inventory/vastai-1", 404)["error"] == "offer vastai-1 not found"
    assert api.create(404, offer_id="vastai-1")["error"] == "offer vastai-1 not found"
    assert api.get("/sessions")["total"] == 0


# -- Inventory freshness -----------------------------------------------------------------------------------------


def test_fetched_at_is_when_the_provider_was_asked(api: Api) -> None:
    asked = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)
    apply([row("1")], asked)
    assert api.get("/inventory")["offers"][0]["fetched_at"] == "2026-01-29T12:00:00Z"


def test_stale_offers_are_served_with_their_age_showing(sandbox: SandboxProcess, api: Api, time: MovableClock) -> None:
    apply([row("1")], clock.now() - timedelta(seconds=750))
    assert client().get("/health").json()["services"]["inventory"] == "stale"
    assert api.get("/inventory")["offers"][0]["availability_confidence"] == 0.5
    apply([row("1")])
    assert client().get("/health").json()["services"]["inventory"] == "ok"
    assert api.get("/inventory")["offers"][0]["availability_confidence"] == 1.0


# -- Costs -------------------------------------------------------------------------------------------------------


def test_a_running_sessions_cost_counts_up_to_now_in_plain_numbers(
    market: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    session_id = api.create()["session"]["id"]
    session = driver.until_metered(session_id)
    time.advance(minutes=30)
    cost = api.get("/costs", session_id=session_id)
    assert float(session.price_per_hour) * 0.5 <= cost["total_cost"] <= float(session.price_per_hour) * 0.6 + 0.05
    assert 0.5 <= cost["hours_used"] < 0.6
    text = client().get(f"{API}/costs", {"session_id": session_id}).content.decode()
    printed = text.partition('"total_cost":')[2].partition(",")[0]
    assert len(printed.partition(".")[2]) <= 6
    assert "e" not in printed
    whole = api.get("/costs", period="daily")
    assert whole["session_count"] == 1


def test_dates_that_end_before_they_begin_are_400(api: Api) -> None:
    answer = api.get("/costs", 400, start_date="2026-02-02", end_date="2026-02-01")
    assert answer["field"] in ("start_date", "end_date")
    assert api.get("/costs", start_date="2026-02-01", end_date="2026-02-01")["total_cost"] == 0
