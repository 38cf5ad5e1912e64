"""GET /inventory?template_hash_id= and compatible-templates: the two that need offers and templates."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from gpubroker.common import clock
from offers import selectors, services, snapshot
from offers.selectors import InventoryQuery
from templates_app.models import Template
from tests.harness import Api, MovableClock
from tests.offers.factory import apply, row
from tests.templates_app.factory import template

pytestmark = pytest.mark.django_db


def offer(number: str, price: str, **raw: Any) -> Any:
    return row(number, price_per_hour=Decimal(price), raw={"gpu_ram": 24564, "num_gpus": 1, **raw})


ROWS = [
    offer("1", "0.10", cpu_arch="amd64", verification="verified"),
    offer("2", "0.20", cpu_arch="arm64", verification="unverified"),
    offer("3", "0.30", cpu_arch="amd64", gpu_ram="48000"),
    offer("4", "0.40"),
]


@pytest.fixture(autouse=True)
def inventory() -> None:
    apply(ROWS)
    template("amd", '{"cpu_arch": {"eq": "amd64"}}', name="AMD")
    template("big", {"gpu_ram": {"gte": "30000"}}, name="Big", raw={"recommended_disk_space": "64"})
    template("plain", "", name="Plain")
    template("broken", '{"gpu_ram": {"gte": ', name="Broken")
    template("other", None, name="Elsewhere", provider="tensordock")


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["id"].removeprefix("vastai-") for item in answer["offers"]]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"template_hash_id": "amd"}, ["1", "3"]),
        ({"template_hash_id": "big"}, ["3"]),
        ({"template_hash_id": "plain"}, ["1", "2", "3", "4"]),
        ({"template_hash_id": "other"}, []),
        ({"template_hash_id": "amd", "max_price": "0.2"}, ["1"]),
        ({"template_hash_id": "amd", "provider": "tensordock"}, []),
        ({"template_hash_id": "amd", "min_vram": "25"}, []),
    ],
)
def test_filters_compose_with_the_template(api: Api, params: dict[str, str], expected: list[str]) -> None:
    answer = api.get("/inventory", 200, **params)
    assert ids(answer) == expected
    assert (answer["count"], answer["total"], set(answer)) == (
        len(expected),
        len(expected),
        {"offers", "count", "total"},
    )


def test_pages_count_what_fits(api: Api) -> None:
    answer = api.get("/inventory", template_hash_id="amd", limit=1, offset=1)
    assert (ids(answer), answer["count"], answer["total"]) == (["3"], 1, 2)


def test_an_unknown_template_is_404_and_named(api: Api) -> None:
    answer = api.get("/inventory", 404, template_hash_id="nope")
    assert answer.pop("request_id")
    assert answer == {"error": "template nope not found", "template_hash_id": "nope"}
    assert api.get("/inventory", 400, template_hash_id="x" * 65)["field"] == "template_hash_id"
    assert api.get("/inventory", 400, template_hash_id="")["field"] == "template_hash_id"


def test_broken_filters_fit_nothing_and_say_why_without_hurting_others(api: Api) -> None:
    why = "extra_filters is not valid JSON: Expecting value: line 1 column 21 (char 20)"
    answer = api.get("/inventory", template_hash_id="broken")
    assert answer == {"offers": [], "count": 0, "total": 0, "filter_error": why}
    assert api.get("/templates/broken")["filter_error"] == why
    assert "filter_error" not in api.get("/templates/amd")
    assert [item["hash_id"] for item in api.get("/templates")["templates"]] == [
        "amd",
        "big",
        "broken",
        "other",
        "plain",
    ]
    assert ids(api.get("/inventory", template_hash_id="amd")) == ["1", "3"]


def test_compatible_templates(api: Api) -> None:
    answer = api.get("/inventory/vastai-3/compatible-templates")
    assert answer == {
        "offer_id": "vastai-3",
        "compatible_templates": [
            {"hash_id": "amd", "name": "AMD", "image": "vastai/ollama", "recommended_disk_space": 32},
            {"hash_id": "big", "name": "Big", "image": "vastai/ollama", "recommended_disk_space": 64},
            {"hash_id": "plain", "name": "Plain", "image": "vastai/ollama", "recommended_disk_space": 32},
        ],
        "count": 3,
    }
    assert [
        item["hash_id"] for item in api.get("/inventory/vastai-4/compatible-templates")["compatible_templates"]
    ] == ["plain"]
    assert api.get("/inventory/vastai-9/compatible-templates", 404)["error"] == "offer vastai-9 not found"


def test_both_directions_agree(api: Api) -> None:
    for hash_id in ("amd", "big", "plain", "broken", "other"):
        for number in ids(api.get("/inventory", 200, template_hash_id=hash_id)):
            fitting = api.get(f"/inventory/vastai-{number}/compatible-templates")["compatible_templates"]
            assert hash_id in [item["hash_id"] for item in fitting]


def test_a_new_template_is_known_at_once_and_a_new_version_reads_the_others_anew(api: Api) -> None:
    api.get("/inventory", template_hash_id="amd")
    template("new", '{"num_gpus": {"gt": "0"}}')
    assert api.get("/inventory", template_hash_id="new")["total"] == 4
    Template.objects.filter(hash_id="amd").delete()
    apply(ROWS)
    assert api.get("/inventory", 404, template_hash_id="amd")["error"] == "template amd not found"


def test_duration_counts_from_when_the_offer_was_listed(api: Api) -> None:
    end = (clock.now() + timedelta(hours=2)).timestamp()
    apply([offer("7", "1", end_date=end), offer("8", "1", end_date=end - 3600)])
    template("long", '{"duration": {"gte": "5400"}}')
    assert ids(api.get("/inventory", template_hash_id="long")) == ["7"]


# -- what it costs the database ------------------------------------------------------------------------------


def queries(api: Api, **params: Any) -> int:
    with CaptureQueriesContext(connection) as captured:
        api.get("/inventory", 200, **params)
    return len(captured)


def test_queries_per_version_are_few_and_do_not_grow(api: Api) -> None:
    snapshot.forget()
    assert queries(api) == 3  # the versions, the offers, what failed lately
    assert queries(api, template_hash_id="amd") == 2  # the templates, the vendors' rows
    for number in range(30):
        template(f"more-{number}", '{"gpu_ram": {"gte": 1}}')
    assert queries(api, template_hash_id="more-1") == 2  # unknown until now: it exists; then all, once
    for params in ({}, {"template_hash_id": "big"}, {"template_hash_id": "more-7", "limit": 2}, {"gpu_type": "A100"}):
        assert queries(api, **params) == 0
    apply([*ROWS, *(offer(str(number), "0.5") for number in range(10, 60))])
    assert queries(api, template_hash_id="amd") == 5
    assert queries(api, template_hash_id="big") == 0
    assert queries(api) == 0


def test_compatible_templates_take_as_many_queries_for_thirty(api: Api, django_assert_num_queries: Any) -> None:
    for number in range(30):
        template(f"more-{number}", '{"gpu_ram": {"gte": 1}}')
    with django_assert_num_queries(3):  # the offer, what failed lately, the templates
        assert api.get("/inventory/vastai-1/compatible-templates")["count"] == 32


@pytest.mark.parametrize("count", [1, 30])
def test_the_template_list_takes_one_query(api: Api, django_assert_num_queries: Any, count: int) -> None:
    for number in range(count):
        template(f"more-{number}")
    with django_assert_num_queries(1):
        assert api.get("/templates")["count"] == 5 + count
    with django_assert_num_queries(1):
        assert api.get("/templates", name="aM")["count"] == 1 + count


# -- answers kept as bytes -----------------------------------------------------------------------------------


def body(query: str = "") -> bytes:
    response = Client().get(f"/api/v1/inventory{query}")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    return response.content


def test_kept_answers_are_those_that_would_be_printed(api: Api) -> None:
    questions = [
        "", "?limit=2", "?template_hash_id=amd", "?min_availability_confidence=0.6&offset=1", "?gpu_type=rtx4090",
    ]  # fmt: skip
    listed = clock.now()
    apply(ROWS, listed)
    for seconds in (0, 60, 149, 151, 300, 750, 751, 7200):
        with clock.use(lambda seconds=seconds: listed + timedelta(seconds=seconds)):  # type: ignore[misc]
            kept = snapshot.current()
            first = [body(question) for question in questions]
            again = [body(question) for question in questions]
            assert snapshot.current() is kept
            snapshot.forget()
            anew = [body(question) for question in questions]
            assert snapshot.current() is not kept
            assert first == again == anew


def test_the_same_question_is_printed_once_per_version_and_step(api: Api, time: MovableClock) -> None:
    apply(ROWS)
    kept = snapshot.current().rendered
    for _ in range(3):
        body("?max_price=0.5")
        body("?max_price=0.50")
        body("?unknown=1&max_price=.5")
    assert len(kept) == 1
    time.advance(seconds=140)
    body("?max_price=0.5")
    assert len(kept) == 1
    time.advance(minutes=5)
    body("?max_price=0.5")
    assert len(kept) == 2


def test_a_withdrawn_offer_leaves_the_kept_answers_at_once(api: Api) -> None:
    assert b"vastai-2" in body("?template_hash_id=plain")
    services.withdraw("vastai-2", "gone at create")
    snapshot.forget()
    assert b"vastai-2" not in body("?template_hash_id=plain")


def test_the_view_answers_what_the_search_finds(api: Api) -> None:
    assert body("?limit=1&offset=2") == selectors.search(InventoryQuery(limit=1, offset=2))
