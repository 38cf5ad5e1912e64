"""Another consumer's ids on every operation there is, and rights that a caller gives to itself."""

from __future__ import annotations

from typing import Any

import pytest

from billing.models import ApiKey
from sessions_app.models import Session
from tests.attacks.conftest import World
from tests.attacks.surface import ALL, Attacker, Operation, assert_refused, books

#: Everybody may see these: they are nobody's.
SHARED = {"list_offers", "get_offer", "list_compatible_templates", "list_templates", "get_template", "offer_health"}
#: Whoever is not staff is told no more than that, whatever the id.
STAFF_ONLY = {"set_hard_maximum", "set_budget", "delete_budget"}
FOR_STAFF = [
    operation for operation in ALL if {"keys", "providers"} & set(operation.tags) or operation.name in STAFF_ONLY
]
ON_SESSIONS = [operation for operation in ALL if "{session_id}" in operation.path and operation not in FOR_STAFF]
ON_WEBHOOKS = [operation for operation in ALL if "{webhook_id}" in operation.path]
#: Named after a consumer in the path.
ON_CONSUMERS = [operation for operation in ALL if "{consumer}" in operation.path and operation not in FOR_STAFF]
FOR_CONSUMERS = [
    operation for operation in ALL if "consumer_id" in {*operation.query, *operation.fields}
    and "keys" not in operation.tags
]  # fmt: skip


def names(found: list[Operation]) -> set[str]:
    return {operation.name for operation in found}


def test_every_operation_is_attacked_below_or_nobodys() -> None:
    """A new operation must say which it is."""
    assert {operation.name for operation in ALL} == (
        names(ON_SESSIONS) | names(ON_WEBHOOKS) | names(ON_CONSUMERS) | names(FOR_CONSUMERS) | names(FOR_STAFF) | SHARED
    )


@pytest.mark.parametrize("operation", ON_SESSIONS, ids=lambda each: each.name)
def test_anothers_session_is_as_unknown_as_none(world: World, operation: Operation) -> None:
    before = books()
    for session_id in (world.theirs, "sess-none"):
        answer = world.me(operation.method, operation.at(session_id=session_id), operation.body())
        sentence = {True: "the agent token is not valid for this session", False: f"session {session_id} not found"}
        by_token = operation.name == "session_heartbeat"
        assert_refused(answer, 401 if by_token else 404, error=sentence[by_token])
    assert books() == before


@pytest.mark.parametrize("operation", ON_WEBHOOKS, ids=lambda each: each.name)
def test_anothers_webhook_is_as_unknown_as_none(world: World, operation: Operation) -> None:
    before = books()
    for webhook_id in (world.webhook, "wh-none"):
        path = operation.at(**{**world.ids, "webhook_id": webhook_id})
        answer = world.me(operation.method, path, operation.body() if operation.fields else None)
        assert_refused(answer, 404, error=f"webhook {webhook_id} not found")
    assert books() == before


@pytest.mark.parametrize("operation", ON_CONSUMERS, ids=lambda each: each.name)
def test_anothers_page_is_as_unknown_as_none(world: World, operation: Operation) -> None:
    before = books()
    for consumer in ("them", "nobody", "ME"):
        path = operation.at(**{**world.ids, "consumer": consumer})
        answer = world.me(operation.method, path, operation.body() if operation.fields else None)
        what = {True: "budget of", False: "consumer"}["budgets" in operation.tags]
        assert_refused(answer, 404, error=f"{what} {consumer} not found")
    assert books() == before


@pytest.mark.parametrize("operation", FOR_CONSUMERS, ids=lambda each: each.name)
def test_another_consumer_is_refused_whether_there_is_one_or_not(world: World, operation: Operation) -> None:
    """In the query or in the body; ``mе`` has a Cyrillic letter."""
    before, in_body = books(), "consumer_id" in operation.fields
    for consumer in ("them", "nobody", "ME", "mе", "me,them", "*", "%", "' OR '1'='1"):
        path, where = operation.at(**world.ids), {True: "", False: f"?consumer_id={consumer.replace('%', '%25')}"}
        body = operation.body(**({"consumer_id": consumer} if in_body else {})) if operation.fields else None
        answer = world.me(operation.method, path + where[in_body], body)
        assert_refused(answer, 403, error="this key belongs to another consumer", field="consumer_id")
    assert books() == before


def test_of_a_repeated_parameter_one_is_checked_and_the_same_is_used(world: World) -> None:
    assert_refused(world.me("GET", "/api/v1/sessions?consumer_id=me&consumer_id=them"), 403)
    status, answer = world.me.json("GET", "/api/v1/sessions?consumer_id=them&consumer_id=me")
    assert (status, [each["id"] for each in answer["sessions"]]) == (200, [world.mine])
    before = books()
    twice = '{"consumer_id": "me", "offer_id": "vastai-3", "workload_type": "llm", "reservation_hours": 1, "consumer_id": "them"}'  # noqa: E501
    assert_refused(world.me("POST", "/api/v1/sessions", twice), 403)
    assert books() == before


@pytest.mark.parametrize("operation", FOR_STAFF, ids=lambda each: each.name)
def test_what_is_for_staff(world: World, operation: Operation) -> None:
    before = books()
    changes = {"consumer_id": "me"} if "consumer_id" in operation.fields else {}
    answer = world.me(operation.method, operation.at(**world.ids), operation.body(**changes))
    assert_refused(answer, 403, error="this key lacks the scope staff", scope="staff")
    assert books() == before


MASS: dict[str, Any] = {
    "id": "sess-chosen", "status": "running", "price_per_hour": 0, "hard_max_at": "2099-01-01T00:00:00Z",
    "expires_at": "2099-01-01T00:00:00Z", "created_at": "2000-01-01T00:00:00Z", "provider": "other", "gpu_count": 99,
    "ssh_host": "evil.example", "ssh_port": 1, "end_reason": "done", "agent_token_hash": "0" * 64, "consumer": 1,
    "consumer__name": "them", "running_at": "2000-01-01T00:00:00Z", "launch_options": {"access": "x"}, "scope": "staff",
    "storage_price_per_gb_month": 0, "api_endpoint": "http://evil.example", "__class__": {}, "pk": 1, "attempt": 9,
}  # fmt: skip


def test_what_a_create_is_not_asked_for_it_does_not_take(world: World) -> None:
    order = {"consumer_id": "me", "offer_id": "vastai-3", "workload_type": "llm", "reservation_hours": 1}
    status, answer = world.me.json("POST", "/api/v1/sessions", {**MASS, **order, "ssh_key_type": "ed25519"})
    assert status == 201
    session = Session.objects.select_related("consumer").get(id=answer["session"]["id"])
    assert session.id != "sess-chosen"
    assert (session.consumer.name, session.provider, session.status, session.gpu_count) == (
        "me",
        "vastai",
        "pending",
        1,
    )
    assert (str(session.price_per_hour), str(session.storage_price_per_gb_month)) == ("0.450000", "0.150000")
    assert (session.hard_max_at - session.created_at).total_seconds() == 12 * 3600
    assert (session.expires_at - session.created_at).total_seconds() == 3600
    assert (session.ssh_host, session.api_endpoint, session.end_reason, session.running_at) == ("", "", "", None)
    assert session.agent_token_hash != "0" * 64
    assert "access" not in session.launch_options


def test_nor_do_extend_done_and_destroy(world: World) -> None:
    before = Session.objects.get(id=world.mine)
    status, answer = world.me.json("POST", f"/api/v1/sessions/{world.mine}/extend", {**MASS, "additional_hours": 1})
    assert status == 200, answer
    after = Session.objects.get(id=world.mine)
    assert (after.expires_at - before.expires_at).total_seconds() == 3600
    same = ("status", "price_per_hour", "hard_max_at", "consumer_id", "agent_token_hash", "created_at")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    world.me("POST", f"/api/v1/sessions/{world.mine}/done", MASS)
    assert Session.objects.get(id=world.mine).end_reason == "done"
    assert Session.objects.get(id=world.theirs).status == "pending"


def test_a_key_is_made_as_asked_and_no_more(world: World) -> None:
    wish = {"consumer_id": "me", "scopes": ["read"]}
    forged = {"prefix": "gpb_aaaaaaaa", "digest": "0" * 64, "api_key": "gpb_x", "created_by": "x", "revoked_at": None}
    status, answer = world.staff.json("POST", "/api/v1/keys", {**forged, **wish})
    assert status == 201
    key = ApiKey.objects.get(prefix=answer["key"]["prefix"])
    assert (key.prefix == "gpb_aaaaaaaa", key.digest == "0" * 64, key.scopes) == (False, False, "read")
    assert key.created_by.startswith("staff:gpb_")
    reader = Attacker(answer["api_key"])
    assert_refused(reader("POST", f"/api/v1/sessions/{world.mine}/done"), 403, scope="spend")
