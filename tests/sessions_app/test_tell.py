"""What happens to sessions and providers reaches webhooks: one message for each, in the transaction of the event."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from billing.models import Consumer
from billing.webhook_kinds import KINDS as ALL_KINDS
from billing.webhook_models import WebhookDelivery, WebhookEndpoint, WebhookMessage
from gpubroker.common import breaker, clock
from sessions_app import outages, tell
from sessions_app.models import Event, Rental
from sessions_app.states import SESSION_MOVES, Debt, Status
from sessions_app.transitions import record, transition, transition_all
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_rental, make_session

pytestmark = pytest.mark.django_db(transaction=True)


def listen(api: Api, consumer_id: str | None = "my-application", **more: Any) -> Any:
    body = {"url": "https://hooks.example.com/gpu", **({"consumer_id": consumer_id} if consumer_id else {}), **more}
    return api.post("/webhooks", body, 201)


def kinds(consumer: str | None = "my-application") -> list[str]:
    messages = WebhookMessage.objects.filter(deliveries__endpoint__consumer__name=consumer).order_by("at", "id")
    return sorted(messages.values_list("kind", flat=True))


def test_a_session_from_beginning_to_end(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock) -> None:
    listen(api)
    listen(api, "somebody-else")
    listen(api, None)
    session_id = api.create(reservation_hours=1)["session"]["id"]
    driver.until_status(session_id, "running")
    api.post(f"/sessions/{session_id}/extend", {"additional_hours": 1})
    time.advance(hours=1, minutes=46)
    driver.until(lambda: Event.objects.filter(kind="ending_soon").exists())
    time.advance(minutes=15)
    driver.until_status(session_id, "stopped")
    told = [
        "session.created", "session.ending_soon", "session.extended", "session.running", "session.stopped",
        "session.stopping",
    ]  # fmt: skip
    assert kinds() == told
    assert kinds("somebody-else") == []
    assert kinds(None) == told
    running = WebhookMessage.objects.get(kind="session.running")
    assert running.subject == session_id
    assert running.data["session_id"] == session_id
    assert (running.data["from"], running.data["to"], running.data["actor"]) == ("provisioning", "running", "broker")
    assert running.data["details"]["ssh"].startswith("root@127.0.0.1:")


def test_nothing_is_told_of_what_is_rolled_back(api: Api) -> None:
    session = make_session()
    Consumer.objects.filter(id=session.consumer_id).update(name="my-application")
    listen(api)

    @transaction.atomic
    def fails() -> None:
        transition(session.id, {Status.PENDING}, Status.STOPPING)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (WebhookMessage.objects.count(), Event.objects.count()) == (0, 0)
    assert transition_all([session.id], {Status.PENDING}, Status.STOPPING) == [session]
    assert kinds() == ["session.stopping"]


def test_one_query_more_while_nobody_listens(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2):
        record("orphan_seen", details={"provider": "vastai"})
    with django_assert_num_queries(1):
        record("address")


def test_staffs_matters_are_not_a_consumers(api: Api, time: MovableClock) -> None:
    session = make_session(Status.STOPPING)
    Consumer.objects.filter(id=session.consumer_id).update(name="my-application")
    listen(api)
    listen(api, None)
    rental = make_rental(session, Debt.DESTROYING, destroy_requested_at=clock.now(), last_error="502 from vastai")
    outages.look()
    assert WebhookMessage.objects.count() == 0
    time.advance(seconds=outages.UNPROVED_AFTER.total_seconds() + 1)
    outages.look()
    outages.look()
    assert kinds() == []
    assert kinds(None) == ["destroy.unproved"]
    event = Event.objects.get(kind="destroy_unproved")
    assert (event.rental_id, event.session_id, event.reason) == (rental.id, session.id, "502 from vastai")
    assert event.details["instance_id"] == rental.instance_id


def test_a_provider_that_fails_and_answers_again(api: Api, time: MovableClock) -> None:
    listen(api, None)
    for _ in range(breaker.FAILURES):
        outages.look()
        breaker.note("vastai", "list_instances", "unavailable")
    assert kinds(None) == []
    outages.look()
    outages.look()
    assert kinds(None) == ["provider.failing"]
    breaker.note("vastai", "list_instances", "")
    outages.look()
    outages.look()
    assert kinds(None) == ["provider.failing", "provider.recovered"]
    assert WebhookMessage.objects.get(kind="provider.failing").subject == "vastai"


def test_the_table_names_real_kinds_and_moves() -> None:
    assert set(tell.KINDS.values()) | set(tell.MOVES.values()) | tell.FOR_STAFF <= set(ALL_KINDS)
    reached = {to for moves in SESSION_MOVES.values() for to in moves}
    assert set(tell.MOVES) == reached - {Status.PENDING, Status.PROVISIONING}


def test_a_thousand_ends_need_no_more_queries_than_one(api: Api, django_assert_max_num_queries: Any) -> None:
    first = make_session()
    Consumer.objects.filter(id=first.consumer_id).update(name="my-application")
    consumer = Consumer.objects.get()
    listen(api)
    ids = [first.id]
    ids += [make_session(consumer=consumer, offer_id=f"vastai-{n}").id for n in range(100, 130)]
    with django_assert_max_num_queries(14):
        transition_all(ids, {Status.PENDING}, Status.STOPPING)
    assert kinds() == ["session.stopping"] * 31
    assert WebhookDelivery.objects.count() == 31
    assert WebhookEndpoint.objects.count() == 1
    assert Rental.objects.count() == 0
    assert all(m.at > clock.now() - timedelta(minutes=1) for m in WebhookMessage.objects.all())
