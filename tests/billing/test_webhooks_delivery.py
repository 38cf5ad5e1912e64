"""From the outbox to the receiver: sent once when it goes well, again when it does not, and never lost."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from billing import deliver, services, webhooks
from billing.models import WebhookDelivery, WebhookEndpoint
from billing.outbox import emit
from billing.slots import MOST_PER_ENDPOINT, MOST_TROUBLED, Slots
from billing.tasks import deliver as deliver_task
from gpubroker.common import clock
from tests.billing.receiver import Genuine, Receiver, counted, hook, only, receiving, tell
from tests.harness import MovableClock
from tests.interleave import Elsewhere


@pytest.mark.django_db
def test_a_message_arrives_signed_and_named(receiver: Receiver, genuine: Genuine) -> None:
    made = hook(receiver)
    with transaction.atomic():
        tell(price=Decimal("0.50"), at=clock.iso(clock.now()))
        assert (only().state, receiver.received) == ("pending", [])
    deliver_task()
    (request,) = receiver.received
    delivery = only()
    told = request.message
    assert told == {
        "id": str(delivery.message_id), "kind": "session.running", "at": clock.iso(delivery.message.at),
        "consumer_id": "lab", "subject": "sess-1", "sequence": 1, "attempt": 1,
        "data": {"price": 0.5, "at": delivery.message.data["at"]},
    }  # fmt: skip
    assert request.path == "/hook?for=gpu"
    headers = {name: request.headers[name] for name in ("Content-Type", "GPUBroker-Event", "GPUBroker-Delivery")}
    assert headers == {
        "Content-Type": "application/json", "GPUBroker-Event": "session.running", "GPUBroker-Delivery": told["id"],
    }  # fmt: skip
    assert genuine(made.secret, request.headers["GPUBroker-Signature"], request.body)
    assert not genuine("whsec_other", request.headers["GPUBroker-Signature"], request.body)
    assert (delivery.state, delivery.attempts, delivery.next_attempt_at) == ("delivered", 1, None)
    assert (delivery.last_status, delivery.last_error, delivery.last_response) == (200, "", "thanks")
    assert deliver.drain() == 0
    assert counted("delivered") == 1


@pytest.mark.django_db
def test_a_failure_is_tried_again_until_it_succeeds(receiver: Receiver, time: MovableClock) -> None:
    made = hook(receiver)
    receiver.plan = [503, "close"]
    tell()
    assert deliver.drain() == 1
    delivery = only()
    assert (delivery.state, delivery.last_status, delivery.last_error) == ("pending", 503, "answered 503")
    assert delivery.next_attempt_at is not None
    assert abs((delivery.next_attempt_at - clock.now()).total_seconds() - 5) < 2.5
    assert WebhookEndpoint.objects.get().failing_since is not None
    assert deliver.drain() == 0
    time.advance(seconds=6)
    assert deliver.drain() == 1
    delivery = only()
    assert (delivery.last_status, delivery.last_error) == (None, "the connection broke before an answer came")
    time.advance(seconds=34)
    assert deliver.drain() == 1
    delivery = only()
    assert (delivery.state, delivery.attempts, delivery.sequence, delivery.last_error) == ("delivered", 3, 1, "")
    assert WebhookEndpoint.objects.get(id=made.endpoint.id).failing_since is None
    assert [(each.message["id"], each.message["attempt"]) for each in receiver.received] == [
        (str(delivery.message_id), attempt) for attempt in (1, 2, 3)
    ]
    assert (counted("retried"), counted("delivered")) == (2, 1)


@pytest.mark.django_db
def test_it_is_given_up_after_about_a_day(receiver: Receiver, time: MovableClock, caplog: Any) -> None:
    made = hook(receiver)
    receiver.usual = 500
    tell()
    began, pauses = clock.now(), []
    for pause in (*deliver.PAUSES, timedelta(0)):
        assert deliver.drain() == 1
        pauses.append(only().next_attempt_at)
        time.advance(seconds=pause.total_seconds() * 1.1 + 1)
    assert [at is None for at in pauses] == [False] * 8 + [True]
    last = only()
    assert (last.state, last.attempts, last.last_error) == ("failed", 9, "answered 500")
    assert last.last_attempt_at is not None
    assert timedelta(hours=24) < last.last_attempt_at - began < timedelta(hours=28)
    assert deliver.drain() == 0
    assert len(receiver.received) == 9
    assert f"webhook {made.endpoint.id}: {last.message_id} given up: answered 500" in caplog.text
    assert receiver.url not in caplog.text


def test_pauses_are_spread_by_a_tenth() -> None:
    found = [deliver.pause_after(WebhookDelivery(pk=pk, attempts=4, tries=4)) for pk in range(200)]
    minutes = [pause.total_seconds() / 60 for pause in found if pause is not None]
    assert len(set(minutes)) > 50
    assert (9 <= min(minutes) < 9.5, 10.5 < max(minutes) <= 11) == (True, True)
    assert sum(deliver.PAUSES, timedelta(0)) == timedelta(hours=24, minutes=12, seconds=35)


@pytest.mark.django_db
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failure_and_is_not_followed(receiver: Receiver, status: int) -> None:
    hook(receiver)
    receiver.plan = [status]
    tell()
    deliver.drain()
    delivery = only()
    assert (delivery.state, delivery.last_status) == ("pending", status)
    assert delivery.last_error == f"answered {status}, a redirect, which is not followed"
    assert len(receiver.received) == 1


@pytest.mark.django_db
def test_gone_switches_the_webhook_off(receiver: Receiver, time: MovableClock) -> None:
    made, other = hook(receiver), hook(receiver, None)
    receiver.usual = 410
    tell(subject="a")
    WebhookDelivery.objects.filter(endpoint=other.endpoint).delete()
    tell(subject="b")
    WebhookDelivery.objects.filter(endpoint=other.endpoint).delete()
    assert deliver.drain() == 1
    states = WebhookDelivery.objects.order_by("id").values_list("state", "last_error", "next_attempt_at")
    assert list(states) == [("failed", "answered 410 Gone", None), ("cancelled", "answered 410 Gone", None)]
    endpoint = WebhookEndpoint.objects.get(id=made.endpoint.id)
    assert (endpoint.active, endpoint.disabled_reason) == (False, "answered 410 Gone")
    assert WebhookEndpoint.objects.get(id=other.endpoint.id).active
    assert (counted("failed"), counted("cancelled")) == (1, 1)


@pytest.mark.django_db
def test_private_addresses_are_not_called_unless_allowed(receiver: Receiver, settings: Any) -> None:
    hook(receiver)
    settings.WEBHOOK_ALLOW_PRIVATE = False
    tell()
    assert deliver.drain() == 1
    assert only().last_error == "its URL may not be called: its address is not public"
    assert (only().state, receiver.received) == ("pending", [])


@pytest.mark.django_db
def test_a_crash_between_sending_and_noting_sends_it_again_under_the_same_id(
    receiver: Receiver, time: MovableClock
) -> None:
    hook(receiver)
    tell()
    claimed = deliver.claim(WebhookDelivery.objects.all())
    assert claimed is not None
    deliver.send(claimed)  # and now the worker dies
    assert (only().state, len(receiver.received)) == ("sending", 1)
    assert deliver.drain() == 0  # its lease is respected
    time.advance(seconds=deliver.LEASE.total_seconds() + 1)
    assert deliver.drain() == 1
    first, second = receiver.received
    assert (first.message["id"], first.message["sequence"]) == (second.message["id"], second.message["sequence"])
    assert (only().state, only().attempts) == ("delivered", 2)


@pytest.mark.django_db
def test_a_message_that_kills_its_workers_is_given_up(receiver: Receiver, time: MovableClock) -> None:
    hook(receiver)
    tell()
    for _ in range(deliver.MOST_TRIES):
        assert deliver.claim(WebhookDelivery.objects.all()) is not None
        time.advance(seconds=deliver.LEASE.total_seconds() + 1)
    assert deliver.drain() == 0
    assert (only().state, only().last_error) == ("failed", "given up: its last sender did not come back")


@pytest.mark.django_db(transaction=True)
def test_two_workers_send_it_once_and_the_late_one_notes_nothing(receiver: Receiver, time: MovableClock) -> None:
    hook(receiver)
    receiver.plan = ["hang"]
    tell()
    slow = Elsewhere(lambda: deliver.drain(0.001))
    slow.thread.start()
    receiver.wait_for(1)
    assert deliver.drain() == 0  # the other one has it
    assert len(receiver.received) == 1
    time.advance(seconds=deliver.LEASE.total_seconds() + 1)
    receiver.plan = [204]
    assert deliver.drain() == 1
    noted = only()
    assert (noted.state, noted.last_status, noted.attempts) == ("delivered", 204, 2)
    receiver.release.set()
    slow.finish()
    assert [each.message["attempt"] for each in receiver.received] == [1, 2]
    assert WebhookDelivery.objects.values().get() == {
        name: getattr(noted, name) for name in WebhookDelivery.objects.values().get()
    }


@pytest.mark.django_db
def test_the_claim_locks_one_row_and_passes_over_locked_ones(receiver: Receiver) -> None:
    hook(receiver)
    tell()
    with CaptureQueriesContext(connection) as captured:
        deliver.claim(WebhookDelivery.objects.all())
    locking = [query["sql"] for query in captured if "FOR NO KEY UPDATE OF" in query["sql"]]
    skipping = [sql for sql in locking if sql.endswith("SKIP LOCKED")]
    expected = int(connection.features.has_select_for_update_skip_locked)
    assert (len(locking), len(skipping)) == (expected, expected)


def test_places_are_shared() -> None:
    slots = Slots()
    for _ in range(MOST_PER_ENDPOINT):
        slots.enter("a", troubled=True)
    assert slots.full_endpoints() == ["a"]
    assert not slots.full_for_troubled()
    slots.enter("b", troubled=True)
    assert slots.full_for_troubled()
    assert MOST_TROUBLED == 3
    for name in "cde":
        assert not slots.full()
        slots.enter(name, troubled=False)
    assert slots.full()
    slots.leave("a", troubled=True)
    assert (slots.full(), slots.full_for_troubled(), slots.full_endpoints()) == (False, False, [])


@pytest.mark.django_db(transaction=True)
def test_slow_receivers_do_not_hold_up_the_others(receiver: Receiver) -> None:
    """Three that hang have all the places for troubled ones; a fourth waits, and a healthy one is told at once."""
    with receiving() as stuck:
        stuck.usual = "hang"
        for consumer in ("a", "b", "c", "d"):
            slow = webhooks.make(consumer, stuck.url, by="test")
            WebhookEndpoint.objects.filter(id=slow.endpoint.id).update(slow=True)
            emit("session.running", services.ensure_consumer(consumer).pk, {}, subject=consumer)
        workers = [Elsewhere(lambda: deliver.drain(0.001)) for _ in range(3)]
        for worker in workers:
            worker.thread.start()
        stuck.wait_for(3)
        hook(receiver)
        tell()
        assert deliver.drain() == 1
        assert len(receiver.received) == 1
        assert WebhookDelivery.objects.filter(state="pending").count() == 1
        stuck.release.set()
        for worker in workers:
            worker.finish()
    assert len(stuck.received) == 3
