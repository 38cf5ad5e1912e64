"""Both sides' books after a simulated month."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing import selectors, statements
from billing.matching import ROUNDING
from billing.models import BillFinding, ProviderCharge, WebhookDelivery, WebhookMessage
from billing.webhook_kinds import wanted
from gpubroker.common import clock
from gpubroker.common.deployment import deployment_id
from providers.labels import parse_label
from sessions_app import tell
from sessions_app.models import Event, Rental, Session
from sessions_app.states import FINAL, OPEN

if TYPE_CHECKING:
    from benchmarks.month_run import Month

ZERO = Decimal(0)


def _session_of(label: str | None) -> str:
    read = parse_label(label)
    return read.session_id if read is not None and read.deployment == deployment_id() else ""


def totals(month: Month) -> dict[str, Any]:
    """Of all sessions: by the meter, by the statements, by the marketplace's ledger and by its charges."""
    now = clock.now()
    sessions = set(Session.objects.values_list("id", flat=True))
    contracts = [row for row in month.market.ledger() if _session_of(row["label"]) in sessions]
    mine = [row for row in ProviderCharge.objects.all() if _session_of(row.label) in sessions]
    months = {session.created_at.date().replace(day=1) for session in Session.objects.all()}
    months |= {segment.date().replace(day=1) for segment in (month.ends_at, now)}
    found = [statements.statement(consumer, each) for consumer in month.consumers for each in sorted(months)]
    findings = BillFinding.objects.values_list("kind", "state")
    return {
        "sessions": len(sessions),
        "machines": len(contracts),
        "ours": sum((selectors.of_session(each, now).total for each in sorted(sessions)), ZERO),
        "statements": sum((each.total for each in found), ZERO),
        "theirs": sum((Decimal(str(row["total_dollars"])) for row in contracts), ZERO),
        "charged": sum((row.amount for row in mine), ZERO),
        "rounding": ROUNDING / 2 * len(mine),
        "overruns": Event.objects.filter(kind="budget_overrun").count(),
        "findings": dict(Counter(f"{kind} {state}" for kind, state in findings)),
        "open": Rental.objects.filter(state__in=OPEN).count() + Session.objects.exclude(status__in=FINAL).count(),
    }


def webhooks(month: Month) -> dict[str, Any]:
    """What happened must have been told, and what was told must have come."""
    lost = []
    told = Counter(kind for event in Event.objects.order_by("id") if (kind := tell.kind_of(event)) is not None)
    written = Counter(WebhookMessage.objects.values_list("kind", flat=True))
    for kind, count in told.items():
        if wanted(month.hook.kinds, kind) and written[kind] < count:
            lost.append(f"{count - written[kind]} of {kind} were never written")
    came = {received.message["id"] for received in month.receiver.received}
    messages = map(str, WebhookMessage.objects.values_list("id", flat=True))
    lost += [f"{each} never came" for each in messages if each not in came]
    undelivered = WebhookDelivery.objects.exclude(state=WebhookDelivery.State.DELIVERED)
    lost += [f"{each} is not delivered" for each in undelivered.values_list("message_id", flat=True)]
    return {"webhooks": len(came), "webhooks_lost": lost}
