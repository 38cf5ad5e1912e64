"""A consumer never sees, infers or touches another's sessions: with a key, another's session is as unknown as none."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from billing.models import Consumer, MeterSegment
from billing.services import Account, set_rate
from gpubroker.common import clock
from gpubroker.common.models import IdempotencyRecord
from sessions_app.models import Event, Rental, Session
from sessions_app.states import Debt, Status
from tests import keys
from tests.keys import Caller
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_rental, make_session

CALLS: list[tuple[str, str, Any]] = [
    ("GET", "", None), ("DELETE", "", None), ("POST", "/done", None), ("POST", "/extend", {"additional_hours": 1}),
    ("GET", "/diagnostics", None), ("GET", "/events", None), ("POST", "/rekey", {}),
    ("GET", "/attempts", None),
]  # fmt: skip


@pytest.fixture
def mine(db: None, settings: Any) -> Session:
    """``me`` has a running session that costs something."""
    settings.API_AUTH = "key"
    session = make_session(Status.RUNNING)
    rental = make_rental(session, Debt.LIVE)
    set_rate(
        Account(rental.id, session.id, session.consumer_id, "vastai", "RTX 4090"), "gpu", Decimal("0.4"), clock.now()
    )
    return session


def caller(consumer: str) -> Caller:
    return Caller(keys.make(consumer).secret)


def everything() -> list[Any]:
    models = (Session, Rental, Event, MeterSegment, IdempotencyRecord)
    return [list(model.objects.order_by("pk").values()) for model in models]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_anothers_session_is_as_unknown_as_none(mine: Session, method: str, path: str, body: Any) -> None:
    stranger = caller("stranger")
    before = everything()
    theirs = stranger(method, f"/sessions/{mine.id}{path}", body)
    none = stranger(method, f"/sessions/sess-none{path}", body)
    with_key = stranger(method, f"/sessions/{mine.id}{path}", body, **{"Idempotency-Key": "k"})
    for status, answer in (theirs, none, with_key):
        assert status == 404
        answer.pop("request_id")
    assert theirs[1]["error"].replace(mine.id, "sess-none") == none[1]["error"]
    assert set(theirs[1]) == set(none[1])
    assert everything() == before


@pytest.mark.parametrize(("method", "path", "body"), CALLS[:1] + CALLS[3:6])
def test_the_owner_and_staff_may(mine: Session, method: str, path: str, body: Any) -> None:
    assert caller("me")(method, f"/sessions/{mine.id}{path}", body)[0] == 200
    assert Caller(keys.staff().secret)(method, f"/sessions/{mine.id}{path}", body)[0] == 200


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_nobody_without_a_key(mine: Session, method: str, path: str, body: Any) -> None:
    before = everything()
    assert Caller()(method, f"/sessions/{mine.id}{path}", body)[0] == 401
    assert everything() == before


def test_lists_and_costs_are_narrowed(mine: Session) -> None:
    stranger, me, staff = caller("stranger"), caller("me"), Caller(keys.staff().secret)
    assert stranger("GET", "/sessions")[1]["total"] == 0
    assert me("GET", "/sessions")[1]["total"] == 1
    assert staff("GET", "/sessions")[1]["total"] == 1
    for path in ("/costs", "/costs/summary"):
        theirs = stranger("GET", path)[1]
        assert (theirs["consumer_id"], theirs["session_count"], theirs["total_cost"]) == ("stranger", 0, 0)
        assert (me("GET", path)[1]["consumer_id"], me("GET", path)[1]["session_count"]) == ("me", 1)
        assert (staff("GET", path)[1]["consumer_id"], staff("GET", path)[1]["session_count"]) == ("", 1)
    status, answer = stranger("GET", f"/costs?session_id={mine.id}")
    assert (status, answer["error"]) == (404, f"session {mine.id} not found")


@pytest.mark.parametrize("path", ["/sessions", "/costs", "/costs/summary"])
def test_another_consumer_id_in_a_query_is_403(mine: Session, path: str) -> None:
    status, answer = caller("stranger")("GET", f"{path}?consumer_id=me")
    assert (status, answer["field"]) == (403, "consumer_id")
    unknown = caller("stranger")("GET", f"{path}?consumer_id=nobody")
    assert (unknown[0], unknown[1]["error"]) == (403, answer["error"])


@pytest.mark.parametrize("path", ["/sessions", "/sessions/estimate"])
def test_another_consumer_id_in_a_body_is_403(sandbox: SandboxProcess, mine: Session, path: str) -> None:
    apply([row("1")])
    body = {"consumer_id": "me", "offer_id": "vastai-1", "workload_type": "llm", "reservation_hours": 2}
    before = everything()
    status, answer = caller("stranger")("POST", path, body)
    assert (status, answer["field"]) == (403, "consumer_id")
    assert everything() == before


def test_actors_are_named_and_idempotency_keys_are_each_consumers_own(sandbox: SandboxProcess, mine: Session) -> None:
    apply([row("1"), row("2", machine_id="8")])
    body = {"offer_id": "vastai-1", "workload_type": "llm", "reservation_hours": 2, "ssh_key_type": "ed25519"}
    made = [
        caller(name)("POST", "/sessions", {**body, "consumer_id": name, "offer_id": offer}, **{"Idempotency-Key": "k"})
        for name, offer in (("a", "vastai-1"), ("b", "vastai-2"))
    ]
    assert [status for status, _ in made] == [201, 201]
    actors = [Event.objects.get(session_id=answer["session"]["id"], to_state="pending").actor for _, answer in made]
    assert actors == ["consumer:a", "consumer:b"]
    assert IdempotencyRecord.objects.count() == 2
    assert {consumer.name for consumer in Consumer.objects.all()} >= {"a", "b", "me"}


def test_a_reading_key_may_estimate_but_not_create(sandbox: SandboxProcess, mine: Session) -> None:
    apply([row("1")])
    body = {"consumer_id": "me", "offer_id": "vastai-1", "workload_type": "llm", "reservation_hours": 2}
    reader = Caller(keys.make("me", ["read"]).secret)
    assert reader("POST", "/sessions/estimate", body)[0] == 200
    assert reader("POST", "/sessions", body)[0] == 403
    assert reader("POST", f"/sessions/{mine.id}/extend", {"additional_hours": 1})[0] == 403
