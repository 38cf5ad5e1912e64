"""Webhooks over HTTP and in the admin: each consumer's own, secrets shown once, a refusal changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import deliver, services, webhooks
from billing.models import WebhookDelivery, WebhookEndpoint, WebhookMessage
from billing.outbox import emit
from billing.webhooks import MadeEndpoint
from gpubroker.common import clock, idempotency
from gpubroker.common.models import IdempotencyRecord
from tests.billing.receiver import Receiver
from tests.harness import MovableClock
from tests.keys import Caller, make, staff

pytestmark = pytest.mark.django_db
URL = "https://hooks.example.com/gpu?token=abc"


@pytest.fixture
def closed(settings: Any) -> None:
    settings.API_AUTH = "key"


@pytest.fixture
def me(closed: None) -> Caller:
    return Caller(make("me").secret)


@pytest.fixture
def boss(closed: None) -> Caller:
    return Caller(staff().secret)


def books() -> list[Any]:
    models = (WebhookEndpoint, WebhookMessage, WebhookDelivery, IdempotencyRecord)
    return [list(model.objects.order_by("pk").values()) for model in models]


def theirs(url: str = URL) -> MadeEndpoint:
    return webhooks.make("them", url, by="test")


def told(made: MadeEndpoint, kind: str = "session.running") -> str:
    """The id of a message that waits for this webhook."""
    emit(kind, made.endpoint.consumer_id, {}, subject="sess-1")
    return str(WebhookDelivery.objects.filter(endpoint=made.endpoint).latest("id").message_id)


def test_make_look_change_delete(me: Caller) -> None:
    wish = {"url": URL, "kinds": ["budget.*", "session.failed", "session.failed"], "description": "on call"}
    status, made = me("POST", "/webhooks", wish)
    assert (status, set(made)) == (201, {"webhook", "webhook_secret"})
    hook = made["webhook"]
    assert hook == {
        "id": hook["id"], "consumer_id": "me", "url": URL, "kinds": ["session.failed", "budget.*"],
        "description": "on call", "active": True, "disabled_reason": "", "failing_since": None,
        "old_secret_until": None, "created_at": hook["created_at"], "created_by": "consumer:me",
    }  # fmt: skip
    path = f"/webhooks/{hook['id']}"
    assert me("GET", path) == (200, hook)
    assert me("GET", "/webhooks") == (200, {"webhooks": [hook], "count": 1, "total": 1})
    changed = {"url": "https://other.example.com/", "kinds": [], "description": "", "active": False}
    expected = {**hook, **changed, "disabled_reason": "switched off"}
    assert me("PATCH", path, changed) == (200, expected)
    assert me("PATCH", path, {}) == (200, expected)
    assert me("PATCH", path, {"active": True}) == (200, {**expected, "active": True, "disabled_reason": ""})
    gone = {**expected, "disabled_reason": "deleted"}
    assert me("DELETE", path) == (200, gone)
    for method in ("GET", "DELETE"):
        status, answer = me(method, path)
        assert (status, answer["error"]) == (404, f"webhook {hook['id']} not found")
    assert me("GET", "/webhooks")[1]["total"] == 0
    row = WebhookEndpoint.objects.get()
    assert (row.active, row.secret_sealed, row.deleted_at is None) == (False, "", False)


def test_the_secret_is_shown_once_and_cached_by_nobody(me: Caller) -> None:
    answer = me.client.post("/api/v1/webhooks", {"url": URL}, content_type="application/json")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    secret, path = answer.json()["webhook_secret"], f"/webhooks/{answer.json()['webhook']['id']}"
    shown = [me("GET", "/webhooks"), me("GET", path), me("PATCH", path, {"active": False}), me("DELETE", path)]
    assert {status for status, _ in shown} == {200}
    assert secret[6:] not in str([shown, books()])


def test_the_same_wish_twice_is_one_webhook_and_the_same_secret(me: Caller, time: MovableClock) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = me("POST", "/webhooks", {"url": URL}, **key)
    assert (first[0], me("POST", "/webhooks", {"url": URL}, **key)) == (201, first)
    assert me("POST", "/webhooks", {"url": URL, "kinds": ["session.*"]}, **key)[0] == 409
    assert WebhookEndpoint.objects.count() == 1
    assert first[1]["webhook_secret"] not in str(books())
    time.advance(minutes=11)
    later = me("POST", "/webhooks", {"url": URL}, **key)
    note = idempotency.GONE[idempotency.WEBHOOK_SECRET]
    assert later == (201, {"webhook": first[1]["webhook"], "note": note})
    path = f"/webhooks/{first[1]['webhook']['id']}"
    for action, body in (("rotate", {}), ("test", None), ("replay", {"since": "2026-01-01T00:00:00Z"})):
        key = {"Idempotency-Key": action}
        once, twice = (me("POST", f"{path}/{action}", body, **key) for _ in range(2))
        assert once == twice
        assert once[0] in (201, 202)
    assert WebhookMessage.objects.count() == 1
    key = {"Idempotency-Key": "redeliver"}
    redeliver = f"{path}/deliveries/{WebhookMessage.objects.get().id}/redeliver"
    assert me("POST", redeliver, **key) == me("POST", redeliver, **key)


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("url", {}),
        ("url", {"url": 7}),
        ("url", {"url": ""}),
        ("url", {"url": "ftp://hooks.example.com/"}),
        ("url", {"url": "https://user:secret@hooks.example.com/"}),
        ("url", {"url": "http://169.254.169.254/latest/meta-data"}),
        ("url", {"url": "http://2130706433/"}),
        ("url", {"url": "http://[::ffff:127.0.0.1]/"}),
        ("url", {"url": "http://localhost:8080/api/v1/sessions"}),
        ("url", {"url": "https://hooks.example.com/" + "a" * 2000}),
        ("kinds", {"url": URL, "kinds": "session.running"}),
        ("kinds.0", {"url": URL, "kinds": ["session.exploded"]}),
        ("kinds.0", {"url": URL, "kinds": ["ping"]}),
        ("description", {"url": URL, "description": "x" * 201}),
        ("description", {"url": URL, "description": "turn\u202eed"}),
        ("consumer_id", {"url": URL, "consumer_id": "x" * 129}),
    ],
)
def test_a_bad_wish_is_refused_by_name_and_makes_nothing(boss: Caller, field: str, body: dict[str, Any]) -> None:
    kept = theirs()
    before = books()
    status, answer = boss("POST", "/webhooks", body)
    assert (status, answer["field"]) == (400, field)
    assert "secret@" not in answer["error"]
    status, answer = boss("PATCH", f"/webhooks/{kept.endpoint.id}", {**body, "url": body.get("url", 7)})
    assert status == {"consumer_id": 200}.get(field, 400)
    assert books() == before


@pytest.mark.parametrize("body", [{"active": "yes"}, {"active": 1}, {"active": None}])
def test_active_is_true_or_false(me: Caller, body: Any) -> None:
    made = webhooks.make("me", URL, by="test")
    before = books()
    assert me("PATCH", f"/webhooks/{made.endpoint.id}", body)[1]["field"] == "active"
    assert books() == before


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("since", {}),
        ("since", {"since": "yesterday"}),
        ("since", {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}),
        ("since", {"since": "2999-01-01T00:00:00Z"}),
        ("until", {"since": "2026-01-01T00:00:00Z", "until": 5}),
    ],
)
def test_a_replay_of_no_time_is_refused(me: Caller, field: str, body: Any) -> None:
    made = webhooks.make("me", URL, by="test")
    told(made)
    before = books()
    status, answer = me("POST", f"/webhooks/{made.endpoint.id}/replay", body)
    assert (status, answer["field"]) == (400, field)
    assert books() == before


def test_at_most_twenty(me: Caller, boss: Caller) -> None:
    ids = [me("POST", "/webhooks", {"url": URL})[1]["webhook"]["id"] for _ in range(20)]
    before = books()
    status, answer = me("POST", "/webhooks", {"url": URL})
    assert (status, answer["limit"]) == (409, 20)
    assert answer["error"] == "there are 20 webhooks already; delete one first"
    assert books() == before
    assert boss("POST", "/webhooks", {"url": URL})[0] == 201
    assert me("DELETE", f"/webhooks/{ids[0]}")[0] == 200
    assert me("POST", "/webhooks", {"url": URL})[0] == 201


def test_staff_make_them_for_all_and_for_others(boss: Caller, me: Caller) -> None:
    status, for_all = boss("POST", "/webhooks", {"url": URL})
    assert (status, for_all["webhook"]["consumer_id"]) == (201, None)
    status, for_me = boss("POST", "/webhooks", {"url": URL, "consumer_id": "me"})
    assert (status, for_me["webhook"]["consumer_id"]) == (201, "me")
    assert [hook["id"] for hook in me("GET", "/webhooks")[1]["webhooks"]] == [for_me["webhook"]["id"]]
    assert boss("GET", "/webhooks")[1]["total"] == 2
    assert boss("GET", "/webhooks?consumer_id=me&limit=1")[1]["webhooks"] == [for_me["webhook"]]
    assert me("GET", f"/webhooks/{for_all['webhook']['id']}")[0] == 404


def calls(endpoint_id: str, message_id: str) -> list[tuple[str, str, Any]]:
    path = f"/webhooks/{endpoint_id}"
    return [
        ("GET", path, None), ("PATCH", path, {"active": False}), ("DELETE", path, None), ("POST", f"{path}/rotate", {}),
        ("POST", f"{path}/test", None), ("GET", f"{path}/deliveries", None),
        ("POST", f"{path}/replay", {"since": "2026-01-01T00:00:00Z"}),
        ("POST", f"{path}/deliveries/{message_id}/redeliver", None),
    ]  # fmt: skip


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("consumer", ["them", None])
def test_anothers_is_as_unknown_as_none(me: Caller, consumer: str | None, index: int) -> None:
    """Staff's is another's as well."""
    made = webhooks.make(consumer, URL, by="test")
    message_id = told(made)
    before = books()
    status, answer = me(*calls(made.endpoint.id, message_id)[index])
    unknown_status, unknown = me(*calls("wh-none", message_id)[index])
    assert (status, unknown_status) == (404, 404)
    assert answer["error"] == f"webhook {made.endpoint.id} not found"
    assert unknown["error"] == "webhook wh-none not found"
    assert books() == before


def test_a_message_of_another_webhook_is_not_found_under_ones_own(me: Caller) -> None:
    mine, message_id = webhooks.make("me", URL, by="test"), told(theirs())
    before = books()
    for wrong in (message_id, "0b9e6c1e-0000-4000-8000-000000000000", "7", "x" * 500):
        status, answer = me("POST", f"/webhooks/{mine.endpoint.id}/deliveries/{wrong}/redeliver")
        assert (status, answer["error"]) == (404, f"delivery {wrong[:64]} not found")
    assert books() == before


def test_anothers_name_is_403(me: Caller) -> None:
    before = books()
    assert me("POST", "/webhooks", {"url": URL, "consumer_id": "them"})[0] == 403
    assert me("GET", "/webhooks?consumer_id=them")[0] == 403
    assert me("POST", "/webhooks", {"url": URL, "consumer_id": "me"})[0] == 201
    assert books()[1:] == before[1:]


def test_scopes(closed: None) -> None:
    made = webhooks.make("me", URL, by="test")
    message_id = told(made)
    asked = [*calls(made.endpoint.id, message_id), ("GET", "/webhooks", None), ("POST", "/webhooks", {"url": URL})]
    before = books()
    reader, spender = Caller(make("me", ["read"]).secret), Caller(make("me", ["spend"]).secret)
    for method, path, body in asked:
        allowed, refused = {"GET": (reader, spender)}.get(method, (spender, reader))
        assert Caller()(method, path, body)[0] == 401
        status, answer = refused(method, path, body)
        assert (status, answer["scope"]) == (403, {"GET": "read"}.get(method, "spend"))
        assert allowed is not refused
    assert books() == before
    assert [reader(*each)[0] for each in asked if each[0] == "GET"] == [200, 200, 200]


def test_an_open_api_allows_all(receiver: Receiver) -> None:
    status, made = Caller()("POST", "/webhooks", {"url": receiver.url})
    assert (status, made["webhook"]["consumer_id"], made["webhook"]["created_by"]) == (201, None, "consumer")
    assert Caller()("POST", f"/webhooks/{made['webhook']['id']}/test")[0] == 202
    assert deliver.drain() == 1
    assert receiver.received[0].message["kind"] == "ping"


def test_a_ping_and_what_came_of_it(me: Caller, receiver: Receiver) -> None:
    made = webhooks.make("me", receiver.url, by="test", kinds=["budget.*"])
    webhooks.make("me", receiver.url, by="test")
    path = f"/webhooks/{made.endpoint.id}"
    receiver.plan = [500]
    receiver.answer = b"<b>full</b>\x07 for now"
    status, asked = me("POST", f"{path}/test")
    assert (status, asked["kind"], asked["state"], asked["subject"]) == (202, "ping", "pending", made.endpoint.id)
    assert deliver.drain() == 1
    assert receiver.received[0].message["data"] == {"webhook_id": made.endpoint.id, "asked_by": "consumer:me"}
    status, listed = me("GET", f"{path}/deliveries")
    assert (status, listed["count"], listed["total"]) == (200, 1, 1)
    (shown,) = listed["deliveries"]
    facts = {"state": "pending", "attempts": 1, "sequence": 1, "last_status": 500, "last_error": "answered 500"}
    assert {name: shown[name] for name in facts} == facts
    assert (shown["id"], shown["last_response"], shown["delivered_at"]) == (asked["id"], "full for now", None)
    assert shown["next_attempt_at"] > shown["last_attempt_at"]
    status, again = me("POST", f"{path}/deliveries/{asked['id']}/redeliver")
    assert (status, again["state"], again["id"]) == (202, "pending", asked["id"])
    assert deliver.drain() == 1
    (shown,) = me("GET", f"{path}/deliveries?state=delivered")[1]["deliveries"]
    assert (shown["attempts"], shown["next_attempt_at"], shown["last_error"]) == (2, None, "")
    assert me("GET", f"{path}/deliveries?state=failed")[1] == {"deliveries": [], "count": 0, "total": 0}
    assert me("GET", f"{path}/deliveries?state=lost")[0] == 400
    assert len({each.message["id"] for each in receiver.received}) == 1


def test_a_replay_sends_all_of_a_time(me: Caller, receiver: Receiver) -> None:
    made = webhooks.make("me", receiver.url, by="test")
    began = clock.now() - timedelta(seconds=1)
    told(made, "session.created")
    told(made, "session.failed")
    assert deliver.drain() == 2
    until = clock.now() + timedelta(hours=1)
    body = {"since": began.isoformat(), "until": until.isoformat()}
    status, answer = me("POST", f"/webhooks/{made.endpoint.id}/replay", body)
    assert (status, answer) == (202, {"messages": 2, "since": clock.iso(began), "until": clock.iso(until)})
    assert deliver.drain() == 2
    assert sorted(each.message["attempt"] for each in receiver.received) == [1, 1, 2, 2]


def test_what_is_off_is_sent_nothing(me: Caller, receiver: Receiver) -> None:
    made = webhooks.make("me", receiver.url, by="test")
    message_id, path = told(made), f"/webhooks/{made.endpoint.id}"
    assert me("PATCH", path, {"active": False})[0] == 200
    (shown,) = me("GET", f"{path}/deliveries")[1]["deliveries"]
    assert (shown["state"], shown["next_attempt_at"], shown["last_error"]) == ("cancelled", None, "switched off")
    before = books()
    for method, asked, body in calls(made.endpoint.id, message_id)[4:]:
        status, answer = me(method, asked, body)
        assert (status, answer.get("error")) == {
            "GET": (200, None),
        }.get(method, (409, f"webhook {made.endpoint.id} is not active (switched off); switch it on first"))
    assert books() == before
    assert deliver.drain() == 0
    assert receiver.received == []


def test_rotate(me: Caller) -> None:
    made = webhooks.make("me", URL, by="test")
    path = f"/webhooks/{made.endpoint.id}/rotate"
    answer = me.client.post(f"/api/v1{path}", {"overlap_seconds": 60}, content_type="application/json")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert answer.json()["webhook"]["old_secret_until"] is not None
    assert answer.json()["webhook_secret"] not in ("", made.secret)
    status, again = me("POST", path, {"overlap_seconds": 0})
    assert (status, again["webhook"]["old_secret_until"]) == (201, None)
    before = books()
    assert me("POST", path, {"overlap_seconds": -1})[0] == 400
    assert me("POST", path, {"overlap_seconds": True})[0] == 400
    assert books() == before


@pytest.mark.parametrize(("path", "expected"), [("/webhooks", 2), ("/webhooks/{}/deliveries", 3)])
def test_a_list_costs_the_same_queries_however_long(boss: Caller, path: str, expected: int) -> None:
    made = theirs()
    boss("GET", "/webhooks")
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            assert boss("GET", path.format(made.endpoint.id))[0] == 200
        assert len(queries) == expected
        for number in range(5):
            webhooks.make(f"more-{number}", URL, by="test")
            told(made)


def test_consumers_are_made_by_staff_only_as_with_keys(boss: Caller) -> None:
    assert boss("POST", "/webhooks", {"url": URL, "consumer_id": "new"})[0] == 201
    assert services.ensure_consumer("new").webhooks.count() == 1
