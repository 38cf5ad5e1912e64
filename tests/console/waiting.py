"""Things that wait for a person, put into the books, and the review queue as somebody uses it."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from html import unescape
from typing import Any

from django.contrib.admin.models import LogEntry
from django.test import Client

from billing.models import BillFinding, ProviderCharge
from gpubroker.common import clock
from sessions_app.models import ProviderWatch, Rental, SeenOrphan, UnknownMachine
from tests import invariants
from tests.console.people import text
from tests.sessions_app import many

PAGE = "/admin/review/"
LABEL = "gpb-testdep-aaaaaaaaaaaaaaaa-1"


def books() -> Any:
    models = (ProviderWatch, SeenOrphan, UnknownMachine, BillFinding, ProviderCharge, LogEntry)
    return invariants.digest(), [list(model._default_manager.order_by("pk").values_list()) for model in models]


def buttons(client: Client) -> set[str]:
    return set(re.findall(r'name="action" value="([\w-]+)"', unescape(client.get(PAGE).content.decode())))


def press(client: Client, action: str, item: object, **said: str) -> str:
    """The question first, which changes nothing, then its answer: the page afterwards."""
    before = books()
    question = client.post(PAGE, {"action": action, "item": str(item)})
    assert (question.status_code, "No, go back" in text(question)) == (200, True)
    assert books() == before
    answer = client.post(PAGE, {"action": action, "item": str(item), "confirmed": "yes", **said}, follow=True)
    assert answer.status_code == 200
    return text(answer)


def hold() -> ProviderWatch:
    now = clock.now()
    details = {"ends": [f"gpb-testdep-aaaaaaaaaaaaaaaa-{n}" for n in range(1, 8)], "orphans": ["501"]}
    return ProviderWatch.objects.create(
        provider="vastai", next_sweep_at=now + timedelta(hours=1), held_at=now - timedelta(minutes=20),
        held_reason="7 of 9 machines are lost by the listing", held_details=details,
    )  # fmt: skip


def lost_destroy(**changes: Any) -> Rental:
    asked = clock.now() - timedelta(minutes=7)
    row = {"destroy_requested_at": asked, "destroy_attempts": 4, "last_error": "vastai: 500 from the provider"}
    return many.debt(**{**row, **changes})


def dear(**changes: Any) -> Rental:
    row = {"price_asked": Decimal("0.5"), "price_actual": Decimal("0.75"), "drifted_at": clock.now()}
    return many.rental(many.session(), **{**row, **changes})


def finding(kind: BillFinding.Kind = BillFinding.Kind.UNOWNED, **changes: Any) -> BillFinding:
    row = {
        "provider": "vastai", "kind": kind, "subject": "instance-77", "instance_id": "77", "ours": Decimal(0),
        "theirs": Decimal("1.25"), "why": "no label of ours", "first_seen_at": clock.now(), "last_seen_at": clock.now(),
    }  # fmt: skip
    return BillFinding.objects.create(**{**row, **changes})


def one_of_each() -> dict[str, int]:
    hold()
    now = clock.now()
    lost_destroy()
    SeenOrphan.objects.create(provider="vastai", instance_id="501", label=LABEL, first_seen_at=now)
    UnknownMachine.objects.create(provider="vastai", instance_id="601", label="a notebook", first_seen_at=now)
    many.rental(many.session(), missing_listings=2, last_seen_at=now - timedelta(minutes=2))
    dear()
    finding()
    return dict.fromkeys(("held", "unproved", "orphan", "unknown", "ghost", "drift", "charge"), 1)


def gauge() -> dict[str, float]:
    lines = Client().get("/metrics").content.decode().splitlines()
    found = [re.fullmatch(r'gpu_review_open\{kind="(\w+)"\} ([\d.]+)', line) for line in lines]
    return {match[1]: float(match[2]) for match in found if match is not None}
