"""Webhooks in the admin: read there, sent again from there, without their secrets."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from billing import deliver, webhooks
from billing.models import WebhookDelivery, WebhookEndpoint
from tests.billing.receiver import Receiver, hook, only, tell

pytestmark = pytest.mark.django_db
ADMIN = "/admin/billing/webhookdelivery/"


def logged_in(*permissions: str, superuser: bool = False) -> Client:
    user = get_user_model().objects.create(username="ann", is_staff=True, is_superuser=superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def test_the_admin_shows_all_but_secrets_and_sends_again(receiver: Receiver) -> None:
    made, ann = hook(receiver), logged_in(superuser=True)
    tell()
    message_id = str(only().message_id)
    assert deliver.drain() == 1
    row, endpoint = WebhookDelivery.objects.get(), WebhookEndpoint.objects.get()
    pages = [ADMIN, f"{ADMIN}{row.pk}/change/", "/admin/billing/webhookendpoint/",
             f"/admin/billing/webhookendpoint/{endpoint.id}/change/"]  # fmt: skip
    for path in pages:
        page = ann.get(path)
        assert page.status_code == 200, path
        assert endpoint.id in page.content.decode()
        assert made.secret not in page.content.decode()
        assert endpoint.secret_sealed not in page.content.decode()
    assert message_id in ann.get(f"{ADMIN}?q={message_id}").content.decode()
    again = {"action": "redeliver", "_selected_action": [row.pk], "confirmed": "yes"}
    done = ann.post(ADMIN, again, follow=True)
    assert "1 on their way again." in done.content.decode()
    assert deliver.drain() == 1
    webhooks.change(endpoint, by="test", active=False)
    refused = ann.post(ADMIN, again, follow=True)
    assert "is not active" in refused.content.decode()
    assert ann.post(f"{ADMIN}{row.pk}/change/", {"state": "failed"}).status_code == 403
    assert ann.post(f"/admin/billing/webhookendpoint/{endpoint.id}/delete/", {"post": "yes"}).status_code == 403
    assert len(receiver.received) == 2


def test_who_may_only_look_sends_nothing(receiver: Receiver) -> None:
    looker = logged_in("view_webhookdelivery")
    hook(receiver)
    tell()
    assert deliver.drain() == 1
    before = WebhookDelivery.objects.values().get()
    assert looker.get(ADMIN).status_code == 200
    looker.post(ADMIN, {"action": "redeliver", "_selected_action": [only().pk], "confirmed": "yes"})
    assert WebhookDelivery.objects.values().get() == before
