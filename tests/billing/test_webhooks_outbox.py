"""The outbox: what is told to whom, in whose transaction, what is kept, and what can be sent again."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import deliver, outbox, redelivery, services, webhooks
from billing.models import WebhookDelivery, WebhookEndpoint, WebhookMessage
from billing.outbox import Notice, emit, emit_all
from billing.tasks import deliver as deliver_task
from billing.tasks import purge_webhooks
from billing.webhook_kinds import GROUPS, KINDS, wanted
from gpubroker.celery import app
from gpubroker.common import clock
from tests.billing.receiver import DOCS, Receiver, hook, lab, tell
from tests.harness import MovableClock


@pytest.mark.django_db
def test_what_is_rolled_back_is_not_told(receiver: Receiver) -> None:
    hook(receiver)
    lab()
    with transaction.atomic():
        tell()
        transaction.set_rollback(True)
    assert not WebhookMessage.objects.exists()
    assert deliver.drain() == 0
    assert receiver.received == []


@pytest.mark.django_db
def test_who_is_told_what(receiver: Receiver) -> None:
    everything, staffs = hook(receiver), hook(receiver, None)
    sessions, budgets = hook(receiver, kinds=["session.*"]), hook(receiver, kinds=["budget.exhausted"])
    off = hook(receiver)
    webhooks.change(off.endpoint, by="test", active=False)
    hook(receiver, "atelier")
    gone = hook(receiver)
    webhooks.delete(gone.endpoint, by="test")
    tell("session.created", "a")
    tell("budget.exhausted", "b")
    emit("orphan.seen", None, {}, subject="c")
    found: dict[str, set[str]] = {}
    for delivery in WebhookDelivery.objects.select_related("message"):
        found.setdefault(delivery.endpoint_id, set()).add(delivery.message.subject)
    assert found == {
        everything.endpoint.id: {"a", "b"}, staffs.endpoint.id: {"a", "b", "c"}, sessions.endpoint.id: {"a"},
        budgets.endpoint.id: {"b"},
    }  # fmt: skip


@pytest.mark.django_db
def test_how_many_queries_an_emit_takes(receiver: Receiver) -> None:
    consumer = lab()
    notices = [Notice("session.stopping", consumer, f"sess-{number}", {"reason": "expired"}) for number in range(20)]

    def queries(act: Callable[[], None]) -> int:
        with transaction.atomic(), CaptureQueriesContext(connection) as captured:
            act()
        return len([query for query in captured if "SAVEPOINT" not in query["sql"]])

    assert queries(lambda: emit("session.running", consumer, {}, subject="x")) == 1
    assert queries(lambda: emit_all(notices)) == 1
    assert queries(lambda: emit_all([])) == 0
    assert not WebhookMessage.objects.exists()
    hook(receiver)
    hook(receiver, None)
    assert queries(lambda: emit("session.running", consumer, {}, subject="x")) == 3
    assert queries(lambda: emit_all(notices)) == 3
    assert WebhookDelivery.objects.count() == 2 * 21


@pytest.mark.django_db
def test_nudges_come_after_the_commit(receiver: Receiver, django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks() as nobody_listens:
        tell()
    hook(receiver)
    with django_capture_on_commit_callbacks() as nudges:
        tell()
    assert (len(nobody_listens), len(nudges)) == (0, 1)


@pytest.mark.django_db
def test_an_unknown_kind_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match=r"session\.exploded"):
        tell("session.exploded")


@pytest.mark.django_db
def test_what_looks_like_a_credential_leaves_in_no_text(receiver: Receiver) -> None:
    hook(receiver)
    key = "gpb_k3vq7rma_" + "a" * 40
    tell(error=f"refused: {key}", deep=[{"text": "Bearer abcdefgh"}])
    assert WebhookMessage.objects.get().data == {
        "error": "refused: gpb_k3vq7rma_[redacted]", "deep": [{"text": "Bearer [redacted]"}],
    }  # fmt: skip


@pytest.mark.django_db
def test_what_happened_while_it_was_off_can_be_replayed(receiver: Receiver, time: MovableClock) -> None:
    made = hook(receiver)
    began = clock.now()
    webhooks.change(made.endpoint, by="test", active=False)
    tell(subject="missed")
    assert (WebhookMessage.objects.count(), WebhookDelivery.objects.count()) == (1, 0)
    endpoint = webhooks.change(made.endpoint, by="test", active=True)
    time.advance(seconds=1)
    assert redelivery.replay(endpoint, began).messages == 1
    assert deliver.drain() == 1
    assert receiver.received[0].message["subject"] == "missed"


@pytest.mark.django_db
def test_the_purge_keeps_what_is_young_or_still_on_its_way(receiver: Receiver, time: MovableClock) -> None:
    made, other = hook(receiver), hook(receiver, "atelier")
    tell(subject="delivered")
    assert deliver.drain() == 1
    tell(subject="on its way")
    webhooks.delete(other.endpoint, by="test")
    time.advance(days=31)
    tell(subject="young")
    purge_webhooks()
    assert set(WebhookMessage.objects.values_list("subject", flat=True)) == {"on its way", "young"}
    assert list(WebhookEndpoint.objects.values_list("id", flat=True)) == [made.endpoint.id]
    assert deliver.drain() == 2


@pytest.mark.django_db
def test_the_backlog_is_a_metric(receiver: Receiver) -> None:
    hook(receiver)
    tell()
    tell()
    assert deliver.claim(WebhookDelivery.objects.all()) is not None
    text = Client().get("/metrics").content.decode()
    assert 'gpu_webhook_backlog{state="pending"} 1.0' in text
    assert 'gpu_webhook_backlog{state="sending"} 1.0' in text


@pytest.mark.django_db
def test_redeliver_and_replay(receiver: Receiver, time: MovableClock) -> None:
    made = hook(receiver, kinds=["session.*"])
    hook(receiver, "atelier")
    began = clock.now()
    tell(subject="early")
    time.advance(hours=1)
    later = clock.now()
    receiver.plan = [200, 500]
    tell(subject="late")
    tell("budget.exhausted", "not mine")
    emit("session.running", services.ensure_consumer("atelier").pk, {}, subject="another's")
    webhooks.change(WebhookEndpoint.objects.get(consumer__name="atelier"), by="test", active=False)
    assert deliver.drain() == 2
    first = WebhookDelivery.objects.select_related("endpoint").get(message__subject="early")
    second = WebhookDelivery.objects.select_related("endpoint").get(message__subject="late")
    assert (first.state, second.state) == ("delivered", "pending")

    redelivery.redeliver(second)  # does not wait for its pause any longer
    redelivery.redeliver(first)
    assert deliver.drain() == 2
    assert [each.message["subject"] for each in receiver.received] == ["early", "late", "late", "early"]
    time.advance(minutes=1)

    receiver.received.clear()
    assert redelivery.replay(made.endpoint, later).messages == 1
    assert deliver.drain() == 1
    assert redelivery.replay(made.endpoint, began, later).messages == 1
    assert deliver.drain() == 1
    assert redelivery.replay(made.endpoint, began).messages == 2
    assert deliver.drain() == 2
    assert [each.message["subject"] for each in receiver.received] == ["late", "early", "early", "late"]
    assert WebhookDelivery.objects.get(pk=first.pk).attempts == 4
    webhooks.change(made.endpoint, by="test", kinds=["budget.exhausted"])
    made.endpoint.refresh_from_db()
    assert redelivery.replay(made.endpoint, began).messages == 0


@pytest.mark.django_db
def test_messages_have_ids_of_their_own_and_utc_times(receiver: Receiver) -> None:
    hook(receiver)
    with clock.use(lambda: datetime(2026, 1, 29, 12, 3, 10, tzinfo=UTC)):
        tell()
        tell()
        assert deliver.drain() == 2
    ids = {uuid.UUID(each.message["id"]) for each in receiver.received}
    assert len(ids) == 2
    assert {each.message["at"] for each in receiver.received} == {"2026-01-29T12:03:10Z"}
    assert [each.message["sequence"] for each in receiver.received] == [1, 2]
    assert deliver_task.name == outbox.TASK


def test_the_table_of_kinds_in_the_documentation_is_the_table() -> None:
    listed = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", DOCS.read_text(), re.MULTILINE))
    assert listed == KINDS
    assert GROUPS == ("session.*", "budget.*", "orphan.*", "destroy.*", "sweep.*", "provider.*")
    assert [wanted(["session.*"], kind) for kind in ("session.running", "sessions", "budget.exhausted")] == [
        True, False, False,
    ]  # fmt: skip


def test_the_scheduler_asks_for_tasks_that_workers_know(settings: Any) -> None:
    app.loader.import_default_modules()
    asked = {entry["task"] for name, entry in settings.CELERY_BEAT_SCHEDULE.items() if name.startswith("webhooks")}
    assert asked == {deliver_task.name, purge_webhooks.name}
    assert asked <= app.tasks.keys()
