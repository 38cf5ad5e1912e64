"""The ledger as a file, a statement, and a webhook that is told again."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

from billing import deliver, webhooks
from billing.models import Consumer, WebhookDelivery
from tests.billing.receiver import receiving
from tests.browser.story import Story
from tests.browser.tab import Tab


def test_the_ledger_as_a_file(story: Story, ann: Tab) -> None:
    [session] = story.running("vision-lab", hours=8)
    story.advance(hours=3)
    story.work()
    ann.open("/admin/billing/ledgerrow/")
    ann.sees(session)
    rows = list(csv.DictReader(io.StringIO(ann.download("CSV"))))
    assert {row["session_id"] for row in rows} == {session}
    assert {row["kind"] for row in rows} == {"gpu", "disk"}
    total = sum(Decimal(row["dollars"]) for row in rows)
    ann.sees(f"${total:.2f}")


def test_a_statement_from_the_consumers_page(story: Story, ann: Tab) -> None:
    [session] = story.running("vision-lab", hours=8)
    story.advance(hours=3)
    story.work()
    ann.open(f"/admin/billing/consumer/{Consumer.objects.get(name='vision-lab').pk}/change/")
    ann.follow("Statement of this month")
    ann.sees("Statement of vision-lab")
    ann.sees(session)


def test_a_webhook_told_again(story: Story, ann: Tab) -> None:
    with receiving() as receiver:
        receiver.usual = 500
        made = webhooks.make(None, receiver.url, by="test")
        [session] = story.running("vision-lab")
        story.until(lambda: WebhookDelivery.objects.filter(last_status=500).exists())
        receiver.usual = 200
        first = WebhookDelivery.objects.earliest("id")
        before = len(receiver.received)
        ann.open("/admin/billing/webhookdelivery/")
        ann.act("Send again, now", first.pk)
        ann.sees("again")
        ann.click("Send again")
        ann.sees("on their way again")
        while deliver.drain():
            pass
        receiver.wait_for(before + 1)
        assert WebhookDelivery.objects.get(pk=first.pk).state == "delivered"
        assert made.secret not in ann.text()
        assert session in receiver.received[-1].body.decode()
