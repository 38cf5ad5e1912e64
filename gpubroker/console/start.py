"""The start page: what runs, what it costs, what is wrong and what to press, in a bounded number of queries.

Each query reads what is open, the ledger's days or the newest few, never the history.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, ExpressionWrapper, F, FloatField, Q
from django.http import HttpRequest
from django.urls import reverse

from billing import balance, reports
from billing.balance import Standing
from billing.budget_parts import TOTAL, month_key
from billing.models import BudgetPeriod
from gpubroker.common import clock, wording
from gpubroker.common import providers as configured
from gpubroker.common.models import ProviderBreaker, Pulse
from gpubroker.common.money import from_micros
from gpubroker.console import review
from sessions_app import maintenance
from sessions_app.drive import PULSE, PULSE_FRESH
from sessions_app.models import ProviderWatch, Rental, Session
from sessions_app.session_columns import TONES
from sessions_app.states import FINAL, LIVE, Debt, Status

DAYS = 30
DAY = timedelta(days=1)
#: Of each list on the page.
MOST = 6
#: A destroy without proof, or a session past its end, for so long is an alert (rules I6, I8).
LATE = timedelta(minutes=5)
#: Failures that are older are no news.
NEWS = timedelta(days=7)
#: A complete listing that is older is an alert.
OLD_SWEEP = timedelta(minutes=10)
#: Percent of a limit: from then on the bar warns.
NEAR = 80
#: In the words of the index ``rental_open_costs``: SQLite finds no partial index for ``state IN (...)``.
_OPEN = Rental.objects.exclude(state=Debt.CLOSED)


def context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the template shows; unfold calls it. Who has no role sees how to get one, and nothing else."""
    if not request.user.has_perm("sessions_app.view_session"):
        return {**context, "title": "Start", "has_role": False}
    return {
        **context,
        "title": "Start",
        "has_role": True,
        "statuses": _statuses(),
        "money": _money(),
        "budgets": _budgets(),
        "providers": _providers(),
        "owed": _owed(),
        "failures": _failures(),
        "alerts": _alerts(),
    }


def _statuses() -> list[dict[str, Any]]:
    """Those that live, all of them; those that are over, of the sessions begun within a day."""
    live = Session.objects.filter(status__in=LIVE).values_list("status").annotate(n=Count("*"))
    over = Session.objects.filter(status__in=FINAL, created_at__gte=clock.now() - DAY).values_list("status")
    counts = dict(live.order_by("status")) | dict(over.annotate(n=Count("*")).order_by("status"))
    return [
        {
            "status": status.value,
            "count": counts.get(status, 0),
            "tone": TONES[status],
            "of": "begun within a day" if status in FINAL else "now",
        }
        for status in Status
    ]


def _money() -> dict[str, Any]:
    today = clock.now().date()
    month = today.replace(day=1)
    spend = reports.spend_by_day(min(today - (DAYS - 1) * DAY, month), today)
    return {
        "burn": wording.rate(sum(balance.burns().values(), Decimal(0))),
        "today": wording.dollars(spend[-1][1]),
        "month": wording.dollars(sum((amount for day, amount in spend if day >= month), Decimal(0))),
        "days": DAYS,
        "picture": reports.picture(spend[-DAYS:]),
        "width": reports.WIDTH - reports.LEFT,
        "last": today,
    }


def _budgets() -> list[dict[str, Any]]:
    """Those nearest their limit, of this month and of all time. What is spent and what is promised count alike."""
    share = ExpressionWrapper(
        (F("settled_micros") + F("held_micros")) * 100.0 / F("limit_micros"), output_field=FloatField()
    )
    rows = (
        BudgetPeriod.objects.filter(period__in=(month_key(clock.now()), TOTAL), limit_micros__gt=0)
        .annotate(percent=share)
        .select_related("budget__consumer")
        .order_by("-percent", "id")[:MOST]
    )
    return [
        {
            "consumer": row.budget.consumer.name,
            "budget_id": row.budget_id,
            "period": "in all" if row.period == TOTAL else row.period,
            "percent": round(row.percent),
            "tone": "over" if row.percent >= 100 else "near" if row.percent >= NEAR else "",
            "used": wording.dollars(from_micros(row.settled_micros + row.held_micros)),
            "limit": wording.dollars(from_micros(row.limit_micros)),
            "soft": not row.budget.hard,
        }
        for row in rows
    ]


def _providers() -> list[dict[str, Any]]:
    """Every configured account, and those that are still watched."""
    now, configured_ones = clock.now(), configured.configured()
    watched = {row.provider: row for row in ProviderWatch.objects.all()}
    breakers = {row.provider: row for row in ProviderBreaker.objects.all()}
    accounts = {account.provider: account for account in balance.standings()}
    resting = maintenance.all_of_them()
    return [
        {
            **_provider(name, watched.get(name), breakers.get(name), accounts.get(name), now),
            "maintenance": resting[name].reason if name in resting else "",
            "resting": name in resting,
            "has_page": name in configured_ones,
        }
        for name in sorted({*configured_ones, *watched})
    ]


def _provider(
    name: str, watch: ProviderWatch | None, breaker: ProviderBreaker | None, account: Standing | None, now: datetime
) -> dict[str, Any]:
    swept = watch.last_sweep_at if watch else None
    is_open = breaker is not None and breaker.open_until is not None
    runway = account.runway_hours if account else None
    return {
        "name": name,
        "swept": f"{wording.span(now - swept)} ago" if swept else "never",
        "stale": swept is None or now - swept > OLD_SWEEP,
        "machines": watch.machines if watch else 0,
        "ours": watch.ours if watch else 0,
        "held": watch.held_reason if watch else "",
        "breaker": "open: calls are held" if is_open else "closed",
        "open": is_open,
        "error": (breaker.last_error if breaker and breaker.failures else "") or (watch.last_error if watch else ""),
        "balance": wording.dollars(account.left) if account and account.left is not None else "not told",
        "runway": "" if runway is None else f"lasts {wording.span(timedelta(hours=min(float(runway), 99_999.0)))}",
        "low": account is not None and account.low,
        "balance_error": account.error if account else "",
    }


def _owed() -> dict[str, Any]:
    """Machines whose destroy is not proved yet, the oldest first."""
    now = clock.now()
    owed = _OPEN.filter(state=Debt.DESTROYING)
    counted = owed.aggregate(
        count=Count("*"), late=Count("pk", filter=Q(destroy_requested_at__lte=now - LATE)),
    )  # fmt: skip
    rows = owed.order_by("destroy_requested_at", "id")[:MOST]
    return {
        **counted,
        "rows": [
            {
                "id": str(rental.id),
                "label": rental.label,
                "provider": rental.provider,
                "age": wording.span(now - (rental.destroy_requested_at or now)),
                "late": now - (rental.destroy_requested_at or now) >= LATE,
                "error": rental.last_error,
            }
            for rental in rows
        ],
    }


def _failures() -> list[dict[str, Any]]:
    now = clock.now()
    newest = Session.objects.filter(status=Status.FAILED, created_at__gte=now - NEWS).select_related("consumer")
    shown = newest.only("id", "provider", "gpu_type", "end_reason", "end_message", "ended_at", "consumer__name")
    return [
        {
            "id": session.id,
            "consumer": session.consumer.name,
            "what": f"{session.gpu_type} at {session.provider}",
            "reason": session.end_message or session.get_end_reason_display() or "not told",
            "age": wording.span(now - (session.ended_at or now)),
        }
        for session in shown.order_by("-created_at", "-id")[:MOST]
    ]


def _alerts() -> list[dict[str, str]]:
    """What needs a person: a sentence, and the page where it is settled."""
    now = clock.now()
    alerts = []
    pulse = Pulse.objects.filter(name=PULSE).first()
    if pulse is None or now - pulse.at > PULSE_FRESH:
        since = f"for {wording.span(now - pulse.at)}" if pulse else "yet"
        text = f"The scheduler has not ticked {since}: nothing ends by itself. Start beat and a worker."
        alerts.append({"text": text, "link": reverse("admin:runbook")})
    past = Session.objects.filter(status__in=LIVE, expires_at__lte=now - LATE).count()
    if past:
        text = f"{wording.count(past, 'session')} more than 5 minutes past the end."
        alerts.append({"text": text, "link": f"{reverse('admin:sessions_app_session_changelist')}?trouble=past_end"})
    undecided = review.open_count()
    if undecided:
        text = f"{wording.count(undecided, 'thing')} in the review queue for a person to decide."
        alerts.append({"text": text, "link": reverse("admin:review")})
    return alerts
