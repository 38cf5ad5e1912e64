"""Webhooks in the console: how each stands, what it was told, a test, sending again, on and off; and who may not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import webhook_delivery_admin, webhooks
from billing.models import WebhookDelivery, WebhookEndpoint, WebhookMessage
from gpubroker.common import clock
from tests import invariants
from tests.billing.receiver import only, tell
from tests.console.people import person, text

pytestmark = pytest.mark.django_db
HOOKS, MESSAGES, SENT = (f"/admin/billing/webhook{name}/" for name in ("endpoint", "message", "delivery"))
YES = {"confirmed": "yes"}


@pytest.fixture
def hook() -> WebhookEndpoint:
    return webhooks.make("lab", "https://hooks.example.com/gpu", by="test").endpoint


def notes() -> list[str]:
    return list(LogEntry.objects.order_by("pk").values_list("change_message", flat=True))


def closed(state: str = "failed") -> WebhookDelivery:
    """The only delivery, as it is when its sending is over."""
    WebhookDelivery.objects.update(state=state, next_attempt_at=None, tries=9, attempts=9, last_status=500)
    return only()


def test_an_endpoint_says_how_it_stands(hook: WebhookEndpoint) -> None:
    ann = person("viewer")
    tell()
    assert f"{hook.id} lab https://hooks.example.com/gpu everything active 1" in text(ann.get(HOOKS))
    WebhookEndpoint.objects.update(failing_since=clock.now())
    assert "everything failing 1" in text(ann.get(f"{HOOKS}?state=failing"))
    webhooks.change(hook, by="test", active=False)
    assert "everything off 0" in text(ann.get(f"{HOOKS}?state=off"))
    assert hook.id not in text(ann.get(f"{HOOKS}?state=active"))
    webhooks.delete(hook, by="test")
    assert hook.id not in text(ann.get(HOOKS))
    assert "everything deleted 0" in text(ann.get(f"{HOOKS}?state=deleted"))


def test_its_page_shows_what_it_was_told(hook: WebhookEndpoint) -> None:
    tell(subject="sess-9")
    closed()
    ann = person("viewer")
    page = text(ann.get(f"{HOOKS}{hook.id}/change/"))
    assert "session.running sess-9 failed 9 500" in page
    message = WebhookMessage.objects.get()
    assert "session.running sess-9 lab 1 failed" in text(ann.get(MESSAGES))
    told = text(ann.get(f"{MESSAGES}{message.pk}/change/"))
    assert hook.id in told
    assert "sess-9" in text(ann.get(f"{MESSAGES}?kind=session.running"))
    assert "sess-9" not in text(ann.get(f"{MESSAGES}?kind=session.stopped"))
    assert "sess-9" in text(ann.get(f"{SENT}?kind=session.running&state__exact=failed"))
    assert ann.get(f"{HOOKS}nothing/change/").status_code == 302


def test_a_test_is_sent(hook: WebhookEndpoint) -> None:
    ann = person("operator")
    assert "To https://hooks.example.com/gpu" in text(ann.get(f"{HOOKS}{hook.id}/ping/"))
    assert not WebhookMessage.objects.exists()
    done = ann.post(f"{HOOKS}{hook.id}/ping/", YES, follow=True)
    assert "A ping is on its way." in text(done)
    assert (only().message.kind, only().message.data["asked_by"]) == ("ping", "staff:ann")
    assert notes() == ["sent a ping"]
    webhooks.change(hook, by="test", active=False)
    assert "is not active" in text(ann.post(f"{HOOKS}{hook.id}/ping/", YES, follow=True))
    assert notes() == ["sent a ping"]
    assert ann.post(f"{HOOKS}nothing/ping/", YES).status_code == 404


def test_one_is_sent_again_from_its_page(hook: WebhookEndpoint) -> None:
    tell()
    delivery, ann = closed(), person("operator")
    path = f"{SENT}{delivery.pk}/redeliver/"
    assert str(delivery.message_id) in text(ann.get(path))
    assert only().state == "failed"
    done = ann.post(path, YES, follow=True)
    assert done.redirect_chain == [(f"{SENT}{delivery.pk}/change/", 302)]
    assert (only().state, only().tries, only().attempts) == ("pending", 0, 9)
    assert notes() == ["sent it again"]
    assert ann.post(f"{SENT}999/redeliver/", YES).status_code == 404
    assert ann.post(f"{SENT}x/redeliver/", YES).status_code == 404


def test_many_are_sent_again_but_not_too_many(hook: WebhookEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        tell(subject=f"sess-{number}")
    WebhookDelivery.objects.update(state="failed", next_attempt_at=None)
    ann, ids = person("operator"), list(WebhookDelivery.objects.values_list("pk", flat=True))
    ask = {"action": "redeliver", "_selected_action": ids}
    assert "Send 3 deliveries again" in text(ann.post(SENT, ask))
    assert WebhookDelivery.objects.filter(state="failed").count() == 3
    monkeypatch.setattr(webhook_delivery_admin, "MOST_AGAIN", 2)
    assert "At most 2 at once" in text(ann.post(SENT, {**ask, **YES}, follow=True))
    assert WebhookDelivery.objects.filter(state="failed").count() == 3
    monkeypatch.setattr(webhook_delivery_admin, "MOST_AGAIN", 3)
    assert "3 on their way again." in text(ann.post(SENT, {**ask, **YES}, follow=True))
    assert WebhookDelivery.objects.filter(state="pending").count() == 3
    assert notes() == ["sent it again"] * 3


def test_a_replay(hook: WebhookEndpoint) -> None:
    tell()
    closed("delivered")
    WebhookMessage.objects.update(at=clock.now() - timedelta(hours=3))
    ann, path = person("operator"), f"{HOOKS}{hook.id}/replay/"
    assert "greater than or equal to 1" in text(ann.post(path, {**YES, "hours": "0"}))
    ann.post(path, {**YES, "hours": "2"})
    assert only().state == "delivered"
    ann.post(path, {**YES, "hours": "4"})
    assert only().state == "pending"
    assert notes() == ["replayed 2 hours", "replayed 4 hours"]


def test_off_and_on(hook: WebhookEndpoint) -> None:
    tell()
    ann, path = person("admin"), f"{HOOKS}{hook.id}/switch/"
    assert "What waits is called off" in text(ann.get(path))
    ann.post(path, YES)
    hook.refresh_from_db()
    assert (hook.active, only().state) == (False, "cancelled")
    ann.post(path, YES)
    hook.refresh_from_db()
    assert hook.active is True
    assert notes() == ["switched off", "switched on"]


@pytest.mark.parametrize(
    ("role", "refused"),
    [("viewer", ("ping", "replay", "switch")), ("finance", ("ping", "replay", "switch")), ("operator", ("switch",))],
)
def test_who_may_not(hook: WebhookEndpoint, role: str, refused: tuple[str, ...]) -> None:
    tell()
    closed()
    ann, before = person(role), invariants.digest()
    page = ann.get(f"{HOOKS}{hook.id}/change/").content.decode()
    for name in refused:
        assert f"{hook.id}/{name}/" not in page
        assert ann.post(f"{HOOKS}{hook.id}/{name}/", {**YES, "hours": "4"}).status_code == 403
    assert invariants.digest() == before
    assert notes() == []


@pytest.mark.parametrize("role", ["viewer", "finance"])
def test_who_may_not_send_again(hook: WebhookEndpoint, role: str) -> None:
    tell()
    delivery, ann = closed(), person(role)
    before = WebhookDelivery.objects.values().get()
    ask: dict[str, Any] = {"action": "redeliver", "_selected_action": [delivery.pk], **YES}
    ann.post(SENT, ask)
    assert ann.post(f"{SENT}{delivery.pk}/redeliver/", YES).status_code == 403
    assert WebhookDelivery.objects.values().get() == before


def test_no_row_costs_a_query() -> None:
    ann = person("viewer")

    def queries() -> list[int]:
        counted = []
        for path in (HOOKS, MESSAGES, SENT):
            with CaptureQueriesContext(connection) as captured:
                assert ann.get(path).status_code == 200
            counted.append(len(captured))
        return counted

    def fill(first: int, last: int) -> None:
        for number in range(first, last):
            webhooks.make("lab", f"https://hooks.example.com/{number}", by="test")
            tell(subject=f"sess-{number}")

    fill(0, 2)
    few = queries()
    fill(2, 9)
    assert queries() == few
    assert max(few) <= 8
