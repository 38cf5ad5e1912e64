"""One consumer never sees, infers or touches another's things; a refusal changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from billing import services
from gpubroker.common import clock
from sessions_app.models import Event, Rental, Session
from tests.harness import Api, MovableClock, offers_on_different_machines
from tests.keys import Caller, make, staff
from tests.sandbox import SandboxProcess


@dataclass(frozen=True)
class World:
    mine: str
    theirs: str
    offer: str


@pytest.fixture
def world(market: SandboxProcess, api: Api, settings: Any) -> World:
    """Two consumers with a session each, and then a closed API."""
    offers = offers_on_different_machines(3)
    mine = api.create(consumer_id="me", offer_id=offers[0])["session"]["id"]
    theirs = api.create(consumer_id="them", offer_id=offers[1])["session"]["id"]
    for session in Session.objects.select_related("consumer"):
        rental = Rental.objects.get(session=session)
        account = services.Account(rental.id, session.id, session.consumer_id, session.provider, session.gpu_type)
        services.set_rate(account, "gpu", session.price_per_hour, clock.now() - timedelta(hours=1))
    settings.API_AUTH = "key"
    return World(mine, theirs, offers[2])


def books() -> list[Any]:
    return [list(model.objects.order_by("pk").values()) for model in (Session, Rental, Event)]


def calls(session_id: str) -> list[tuple[str, str]]:
    return [
        ("GET", f"/sessions/{session_id}"),
        ("DELETE", f"/sessions/{session_id}"),
        ("POST", f"/sessions/{session_id}/done"),
        ("GET", f"/costs?session_id={session_id}"),
    ]


def wish(consumer: str, offer: str) -> dict[str, Any]:
    return {
        "consumer_id": consumer, "offer_id": offer, "workload_type": "llm", "reservation_hours": 1,
        "ssh_key_type": "ed25519",
    }  # fmt: skip


@pytest.mark.parametrize("who", ["nobody", "wrong", "expired", "revoked"])
def test_without_a_good_key_nothing_is_shown_or_touched(world: World, time: MovableClock, who: str) -> None:
    expired, revoked = make("me", expires_in=timedelta(seconds=1)), make("me")
    services.revoke_key(revoked.key.prefix, by="test")
    time.advance(seconds=2)
    secret = {"nobody": "", "wrong": "gpb_aaaaaaaa_" + "a" * 40, "expired": expired.secret, "revoked": revoked.secret}
    caller, before = Caller(secret[who]), books()
    asked = [
        *calls(world.mine), *calls("sess-doesnotexist"), ("GET", "/sessions"), ("GET", "/costs"),
        ("GET", "/costs/summary"), ("GET", "/inventory"), ("GET", f"/inventory/{world.offer}"),
    ]  # fmt: skip
    answers = [caller(method, path) for method, path in asked]
    answers.append(caller("POST", "/sessions", wish("me", world.offer)))
    assert {(status, answer["error"]) for status, answer in answers} == {(401, "a valid API key is needed")}
    assert books() == before


def test_a_key_that_may_only_read(world: World) -> None:
    caller, before = Caller(make("me", ["read"]).secret), books()
    for method, path in calls(world.mine):
        status, answer = caller(method, path)
        expected = {"GET": (200, None)}.get(method, (403, "this key lacks the scope spend"))
        assert (status, answer.get("error")) == expected
    status, answer = caller("POST", "/sessions", wish("me", world.offer))
    assert (status, answer["scope"]) == (403, "spend")
    assert books() == before


def test_a_key_that_may_only_spend_reads_nothing(world: World) -> None:
    caller = Caller(make("me", ["spend"]).secret)
    for path in (f"/sessions/{world.mine}", "/sessions", "/costs", "/costs/summary", "/inventory"):
        assert caller("GET", path)[0] == 403
    assert caller("POST", f"/sessions/{world.mine}/done")[0] == 200


@pytest.mark.parametrize("index", range(4))
def test_anothers_session_is_as_unknown_as_none(world: World, index: int) -> None:
    caller, before = Caller(make("me").secret), books()
    (method, theirs), (_, none) = calls(world.theirs)[index], calls("sess-doesnotexist")[index]
    status, answer = caller(method, theirs)
    unknown_status, unknown = caller(method, none)
    assert (status, unknown_status) == (404, 404)
    del answer["request_id"], unknown["request_id"]
    assert str(answer).replace(world.theirs, "sess-doesnotexist") == str(unknown)
    assert books() == before


def test_lists_and_sums_hold_only_ones_own(world: World) -> None:
    caller, boss = Caller(make("me").secret), Caller(staff().secret)
    status, listed = caller("GET", "/sessions")
    assert (status, [row["id"] for row in listed["sessions"]]) == (200, [world.mine])
    assert (listed["count"], listed["total"]) == (1, 1)
    for path in ("/costs", "/costs/summary"):
        _, own = caller("GET", path)
        _, asked = caller("GET", f"{path}?consumer_id=me")
        _, all_of_me = boss("GET", f"{path}?consumer_id=me")
        assert own["session_count"] == 1
        assert own["consumer_id"] == "me"
        assert own["total_cost"] == pytest.approx(asked["total_cost"], rel=0.01)
        assert own["total_cost"] == pytest.approx(all_of_me["total_cost"], rel=0.01)


@pytest.mark.parametrize("path", ["/sessions", "/costs", "/costs/summary"])
def test_asking_for_another_consumer_is_refused_whether_there_is_one_or_not(world: World, path: str) -> None:
    caller = Caller(make("me").secret)
    for consumer in ("them", "nobody"):
        status, answer = caller("GET", f"{path}?consumer_id={consumer}")
        assert (status, answer["error"]) == (403, "this key belongs to another consumer")


@pytest.mark.parametrize("consumer", ["them", "nobody", "Me"])
def test_renting_in_anothers_name_is_refused(world: World, consumer: str) -> None:
    caller, before = Caller(make("me").secret), books()
    status, answer = caller("POST", "/sessions", wish(consumer, world.offer))
    assert (status, answer["error"]) == (403, "this key belongs to another consumer")
    assert books() == before


def test_ones_own(world: World) -> None:
    caller = Caller(make("me").secret)
    status, made = caller("POST", "/sessions", wish("me", world.offer))
    assert (status, made["session"]["consumer_id"]) == (201, "me")
    assert caller("GET", f"/sessions/{world.mine}")[0] == 200
    assert caller("GET", f"/costs?session_id={world.mine}")[0] == 200
    assert caller("POST", f"/sessions/{world.mine}/done")[0] == 200
    assert caller("DELETE", f"/sessions/{world.mine}")[0] in (200, 202)
    actors = set(Event.objects.filter(session_id=world.mine).values_list("actor", flat=True))
    assert "consumer:me" in actors


def test_staff_sees_and_ends_everybodys(world: World) -> None:
    boss = Caller(staff().secret)
    assert boss("GET", "/sessions")[1]["total"] == 2
    assert boss("GET", "/sessions?consumer_id=them")[1]["total"] == 1
    assert boss("GET", "/costs")[1]["session_count"] == 2
    for session_id in (world.mine, world.theirs):
        assert boss("GET", f"/sessions/{session_id}")[0] == 200
        assert boss("DELETE", f"/sessions/{session_id}")[0] in (200, 202)
    assert boss("POST", "/sessions", wish("anybody", world.offer))[0] == 201


def test_a_key_counts_on_the_open_api_too(world: World, settings: Any) -> None:
    settings.API_AUTH = "open"
    caller = Caller(make("me").secret)
    assert caller("GET", f"/sessions/{world.theirs}")[0] == 404
    assert caller("GET", "/sessions")[1]["total"] == 1
    assert Caller()("GET", "/sessions")[1]["total"] == 2
