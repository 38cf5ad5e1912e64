"""Both sides' books after a simulated month."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db.models import F

from benchmarks.month_life import SOFT
from billing import selectors, statements
from billing.matching import ROUNDING
from billing.models import BillFinding, MeterSegment, ProviderCharge, WebhookDelivery, WebhookMessage
from billing.webhook_kinds import BUDGET_EXHAUSTED, BUDGET_THRESHOLD, wanted
from gpubroker.common import clock
from gpubroker.common.deployment import deployment_id
from providers.labels import parse_label
from sessions_app import tell
from sessions_app.models import Event, Rental, Session
from sessions_app.states import FINAL, OPEN, EndReason

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


def traffic_by_consumer() -> dict[int, Decimal]:
    """Dollars of traffic on the meter."""
    segments = MeterSegment.objects.filter(kind=MeterSegment.Kind.BANDWIDTH, ended_at__gt=F("started_at"))
    found: dict[int, Decimal] = defaultdict(Decimal)
    for consumer, dollars in segments.values_list("consumer_id", "rate_per_hour"):
        found[consumer or 0] += dollars
    return found


def budgets(month: Month) -> dict[str, Any]:
    """What budgets did: ends for them, those of machines that ran with a warning first; soft ones end nothing."""
    ended = Session.objects.filter(end_reason=EndReason.BUDGET)
    warned = Event.objects.filter(kind="ending_soon", details__because="budget")
    unwarned = ended.filter(running_at__isnull=False).exclude(id__in=warned.values("session_id"))
    told = WebhookMessage.objects.filter(kind__in=(BUDGET_THRESHOLD, BUDGET_EXHAUSTED))
    return {
        "refused_by_budget": month.life.refused,
        "ended_by_budget": ended.count(),
        "unwarned": list(unwarned.values_list("id", flat=True)),
        "ended_by_soft": list(ended.filter(consumer__name=SOFT).values_list("id", flat=True)),
        "budget_warnings": told.count(),
        "traffic": sum(traffic_by_consumer().values(), ZERO),
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
