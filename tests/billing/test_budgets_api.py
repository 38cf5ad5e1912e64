"""Budgets as programs and staff see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from billing.budget_models import Budget, BudgetPeriod
from billing.services import ensure_consumer
from sessions_app.models import Session
from tests import invariants, keys
from tests.billing import budget_world as world
from tests.keys import Caller
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db
ORDER = {
    "consumer_id": "me", "offer_id": "vastai-1", "workload_type": "llm", "reservation_hours": 2, "disk_gb": 8,
    "ssh_public_key": world.KEY,
}  # fmt: skip


@pytest.fixture
def boss(settings: Any) -> Caller:
    settings.API_AUTH = "key"
    ensure_consumer("me")
    ensure_consumer("them")
    return Caller(keys.staff().secret)


@pytest.fixture
def me(boss: Caller) -> Caller:
    return Caller(keys.make("me").secret)


@pytest.fixture
def listed(sandbox: SandboxProcess) -> Iterator[None]:
    with world.stopped():
        world.list_offers()
        yield


def test_set_looked_at_and_deleted(boss: Caller, me: Caller, listed: None) -> None:
    status, made = boss("PUT", "/budgets/me", {"monthly_limit": 10.5, "thresholds": [90, 10]})
    assert (status, made["mode"], made["thresholds"], made["total"]) == (200, "hard", [10, 90], None)
    assert made["updated_by"].startswith("staff:gpb_")
    assert {**made["monthly"], "period": ""} == {
        "period": "", "limit": 10.5, "spent": 0, "reserved": 0, "left": 10.5, "over": 0, "forecast": 0,
        "runs_dry_at": None,
    }  # fmt: skip
    assert me("POST", "/sessions", ORDER)[0] == 201
    status, found = me("GET", "/budgets/me")
    assert (status, found["monthly"]["left"]) == (200, 10.5 - 2.1875)
    assert boss("GET", "/budgets/me") == (status, found)
    assert boss("DELETE", "/budgets/me") == (200, {"message": "budget deleted", "consumer_id": "me"})
    status, gone = me("GET", "/budgets/me")
    assert (status, gone["error"], gone["consumer_id"]) == (404, "budget of me not found", "me")
    assert boss("DELETE", "/budgets/me")[0] == 404


def test_put_again_says_it_all_anew(boss: Caller) -> None:
    boss("PUT", "/budgets/me", {"monthly_limit": 10, "total_limit": 20, "mode": "soft", "thresholds": []})
    status, found = boss("PUT", "/budgets/me", {"total_limit": 5})
    assert (status, found["monthly"], found["total"]["limit"]) == (200, None, 5)
    assert (found["mode"], found["thresholds"]) == ("hard", [50, 80, 95])
    assert (Budget.objects.count(), BudgetPeriod.objects.count()) == (1, 1)


def test_another_consumers_is_as_unknown_as_none(boss: Caller, me: Caller) -> None:
    boss("PUT", "/budgets/them", {"monthly_limit": 10})
    theirs, nobodys = me("GET", "/budgets/them"), me("GET", "/budgets/nobody")
    assert (theirs[0], nobodys[0]) == (404, 404)
    assert theirs[1]["error"].replace("them", "nobody") == nobodys[1]["error"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_only_staff_changes(boss: Caller, me: Caller, method: str) -> None:
    boss("PUT", "/budgets/me", {"monthly_limit": 10})
    before = invariants.digest()
    status, answer = me(method, "/budgets/me", {"monthly_limit": 1000})
    assert (status, answer["error"]) == (403, "this key lacks the scope staff")
    assert invariants.digest() == before
    assert Caller("")(method, "/budgets/me", {"monthly_limit": 1})[0] == 401


def test_a_name_may_hold_what_names_hold(boss: Caller) -> None:
    name = "team a/nightly é"
    status, answer = boss("PUT", f"/budgets/{name}", {"monthly_limit": 1})
    assert (status, answer["error"]) == (404, f"consumer {name} not found")
    assert boss("POST", "/consumers", {"consumer_id": name})[0] == 201
    assert boss("PUT", f"/budgets/{name}", {"monthly_limit": 1})[1]["consumer_id"] == name
    assert boss("GET", f"/budgets/{name}")[0] == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "monthly_limit"),
        ({"monthly_limit": None, "total_limit": None}, "monthly_limit"),
        ({"monthly_limit": -1}, "monthly_limit"),
        ({"monthly_limit": "10"}, "monthly_limit"),
        ({"monthly_limit": True}, "monthly_limit"),
        ({"total_limit": 1e12}, "total_limit"),
        ({"total_limit": 0.0000001}, "total_limit"),
        ({"total_limit": 1, "mode": "firm"}, "mode"),
        ({"total_limit": 1, "thresholds": [0]}, "thresholds.0"),
        ({"total_limit": 1, "thresholds": [50, 101]}, "thresholds.1"),
        ({"total_limit": 1, "thresholds": list(range(1, 12))}, "thresholds"),
    ],
)
def test_what_is_refused(boss: Caller, body: dict[str, Any], field: str) -> None:
    before = invariants.digest()
    status, answer = boss("PUT", "/budgets/me", body)
    assert (status, answer["field"]) == (400, field)
    assert invariants.digest() == before


def test_a_create_that_does_not_fit(boss: Caller, me: Caller, listed: None) -> None:
    boss("PUT", "/budgets/me", {"monthly_limit": 3})
    assert me("POST", "/sessions", ORDER)[0] == 201
    before = invariants.digest()
    for key in ("", "again"):
        headers = {"Idempotency-Key": key} if key else {}
        status, answer = me("POST", "/sessions", {**ORDER, "offer_id": "vastai-2"}, **headers)
        assert (status, answer["error_type"], answer["budget"]) == (402, "insufficient_budget", "monthly")
        assert (answer["needed"], answer["shortfall"], answer["limit"]) == (2.1875, 1.375, 3)
        assert answer["spent"] + answer["reserved"] == 2.1875
    assert invariants.digest() == before
    boss("PUT", "/budgets/me", {"monthly_limit": 5})
    assert me("POST", "/sessions", {**ORDER, "offer_id": "vastai-2"}, **{"Idempotency-Key": "again"})[0] == 201


def test_an_extension_that_does_not_fit(boss: Caller, me: Caller, listed: None) -> None:
    boss("PUT", "/budgets/me", {"monthly_limit": 3})
    session_id = me("POST", "/sessions", ORDER)[1]["session"]["id"]
    before = invariants.digest()
    status, answer = me("POST", f"/sessions/{session_id}/extend", {"additional_hours": 1})
    assert (status, answer["error_type"], answer["budget"]) == (402, "insufficient_budget", "monthly")
    assert invariants.digest() == before
    assert Session.objects.get().reservation_hours == 2


def test_an_estimate_tells_of_the_budget(boss: Caller, me: Caller, listed: None) -> None:
    assert me("POST", "/sessions/estimate", ORDER)[1]["budget"] is None
    boss("PUT", "/budgets/me", {"monthly_limit": 10, "total_limit": 3})
    assert me("POST", "/sessions/estimate", ORDER)[1]["budget"] == {
        "mode": "hard", "needed": 2.1875, "monthly_left": 10, "total_left": 3, "fits": True,
    }  # fmt: skip
    me("POST", "/sessions", ORDER)
    told = me("POST", "/sessions/estimate", {**ORDER, "offer_id": "vastai-2"})
    assert (told[0], told[1]["budget"]["total_left"], told[1]["budget"]["fits"]) == (200, 0.8125, False)
    boss("PUT", "/budgets/me", {"total_limit": 1, "mode": "soft"})
    told = me("POST", "/sessions/estimate", {**ORDER, "offer_id": "vastai-2"})
    assert (told[1]["budget"]["total_left"], told[1]["budget"]["fits"]) == (0, True)


def test_on_an_open_api_whoever_asks_is_staff(listed: None) -> None:
    ensure_consumer("me")
    somebody = Caller("")
    assert somebody("PUT", "/budgets/me", {"monthly_limit": 1})[0] == 200
    assert somebody("GET", "/budgets/me")[1]["updated_by"] == "consumer"
    assert somebody("POST", "/sessions", ORDER)[0] == 402


def test_the_margin_is_a_setting(listed: None, settings: Any) -> None:
    settings.BUDGET_MARGIN_PERCENT = 0
    ensure_consumer("me")
    somebody = Caller("")
    somebody("PUT", "/budgets/me", {"monthly_limit": 2.1})
    assert somebody("POST", "/sessions/estimate", ORDER)[1]["budget"]["needed"] == 2.083334
    assert somebody("POST", "/sessions", ORDER)[0] == 201


def test_however_many_sessions_the_number_of_queries_is_fixed(
    sandbox: SandboxProcess, django_assert_num_queries: Any
) -> None:
    apply([row(str(number), machine_id=str(number)) for number in range(1, 30)])
    ensure_consumer("me")
    somebody = Caller("")
    somebody("PUT", "/budgets/me", {"monthly_limit": 1000, "total_limit": 1000})
    for few in (2, 10):
        for number in range(few, few + few):
            world.rent(number)
        with django_assert_num_queries(7):
            somebody("GET", "/budgets/me")
