"""Sessions in the console: found quickly, with their cost and time left; a page with attempts, proofs and timeline."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from billing import selectors as billing
from billing.models import Consumer, MeterSegment
from gpubroker.common import clock, wording
from gpubroker.common.admin import ReadOnlyAdmin
from sessions_app import session_columns as columns
from sessions_app.models import Event, Rental, Session
from sessions_app.session_actions import SessionActions, offered
from sessions_app.session_filters import (
    ConsumerFilter,
    EndingSoonFilter,
    GpuFilter,
    ProviderFilter,
    TroubleFilter,
    troubles,
)
from sessions_app.states import Debt

#: Of a session's timeline, the newest ones.
MOST_EVENTS = 200
_PROOF = ("call", "answer", "at")
_TIMES = (
    ("created_at", "running_at"), ("expires_at", "hard_max_at"), ("ended_at", "end_reason"), "end_message",
    "hard_max_reason",
)  # fmt: skip
_MACHINE = (
    ("provider", "offer_id"), ("gpu", "vram_mb"), ("price_per_hour", "storage_price_per_gb_month"),
    ("pricing", "bid_price"), ("disk_gb", "paused_at"), ("ssh_host", "ssh_port"), ("ssh_user", "api_endpoint"),
    "ssh_public_key",
)  # fmt: skip
_ASKED = (
    ("workload_type", "launch_mode"), ("reservation_hours", "idle_threshold_minutes"),
    ("storage_policy", "preserve_hours"), ("auto_retry", "max_retries"), ("retry_scope", "max_price"),
    ("docker_image", "template_hash_id"), "launch_options",
)  # fmt: skip
_WATCHED = (("budget_cut_at", "warned_minutes"), ("idle_since", "idle_warned_at"), ("next_probe_at", "next_check_at"))


@admin.register(Session)
class SessionAdmin(SessionActions, ReadOnlyAdmin):
    """Sealed or not, the agent's token is nobody's reading: its columns stand in no field list."""

    list_display = ("who", "status_shown", "trouble", "machine", "cost", "left", "begun")
    list_filter = (
        "status", TroubleFilter, EndingSoonFilter, ProviderFilter, GpuFilter, ConsumerFilter, "end_reason",
    )  # fmt: skip
    list_select_related = ("consumer",)
    list_fullwidth = True
    search_fields = ("id",)
    search_help_text = "Session id or its beginning, consumer, offer, machine's label or id at the provider"
    ordering = ("-created_at",)
    fieldsets = (
        ("Times and end", {"fields": _TIMES}),
        ("Machine", {"fields": _MACHINE}),
        ("As it was asked for", {"fields": _ASKED}),
        ("Watched", {"fields": _WATCHED}),
    )
    readonly_fields = ("gpu",)
    change_form_outer_before_template = "console/session_story.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Session]:
        return super().get_queryset(request).defer("agent_token_hash", "agent_token_sealed")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Session], search_term: str
    ) -> tuple[QuerySet[Session], bool]:
        """Each by an index, or over the few consumers."""
        term = search_term.strip()
        if not term:
            return queryset, False
        machines = Rental.objects.filter(Q(label=term) | Q(instance_id=term), session__isnull=False)
        wanted = (
            Q(id__startswith=term)
            | Q(offer_id=term)
            | Q(consumer__in=Consumer.objects.filter(name__icontains=term).values("id"))
            | Q(id__in=machines.values("session_id"))
        )
        return queryset.filter(wanted), False

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changes = super().get_changelist_instance(request)
        _fill(list(changes.result_list), clock.now())
        return changes

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        more = _story(request, object_id) if self.has_view_permission(request) else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **more})

    @display(description="status", ordering="status", label=columns.TONES)
    def status_shown(self, session: Session) -> str:
        return session.status

    @display(description="trouble", label={"trouble": "danger"})
    def trouble(self, session: Session) -> tuple[str, str] | None:
        found = getattr(session, "console_trouble", "")
        return ("trouble", found) if found else None

    @display(description="session", ordering="id", header=True)
    def who(self, session: Session) -> tuple[str, str]:
        return session.pk, session.consumer.name

    @display(description="machine", ordering="gpu_type", header=True)
    def machine(self, session: Session) -> tuple[str, str]:
        return self.gpu(session), f"{session.provider}, {wording.rate(session.price_per_hour)}"

    @admin.display(description="GPU")
    def gpu(self, session: Session) -> str:
        return f"{session.gpu_count} x {session.gpu_type}"

    @admin.display(description="cost until now")
    def cost(self, session: Session) -> str:
        return wording.dollars(getattr(session, "console_cost", columns.ZERO))

    @admin.display(description="time left", ordering="expires_at")
    def left(self, session: Session) -> str:
        return columns.time_left(session, clock.now()) or "-"

    @admin.display(description="begun", ordering="created_at")
    def begun(self, session: Session) -> str:
        return f"{wording.span(clock.now() - session.created_at)} ago"


def _fill(sessions: list[Session], now: datetime) -> None:
    """Cost and trouble of those on the page: a fixed number of queries, however many they are."""
    ids = [session.id for session in sessions]
    costs = columns.costs(ids, now)
    mine = Session.objects.filter(id__in=ids)
    found: dict[str, str] = {}
    for title, wanted in troubles(now).values():
        found |= dict.fromkeys(mine.filter(wanted).values_list("id", flat=True), title) if ids else {}
    for session in sessions:
        session.console_cost = costs.get(session.id, columns.ZERO)  # type: ignore[attr-defined]  # for the page only
        session.console_trouble = found.get(session.id, "")  # type: ignore[attr-defined]


def _story(request: HttpRequest, session_id: str) -> dict[str, Any]:
    """How it stands and what may be done, how to log in, what it cost, every attempt with its proof, newest events."""
    session = Session.objects.select_related("consumer").filter(pk=session_id).first()
    if session is None:
        return {}
    now = clock.now()
    _fill([session], now)
    costs = billing.of_session(session_id, now)
    events = list(Event.objects.filter(session_id=session_id).order_by("-id")[: MOST_EVENTS + 1])
    return {
        "session": session,
        "tone": columns.TONES[session.status],
        "trouble": getattr(session, "console_trouble", ""),
        "left": columns.time_left(session, now),
        "offered": offered(request, session),
        "attempts": [_attempt(rental, now) for rental in session.rentals.order_by("attempt")],
        "events": events[:MOST_EVENTS],
        "more_events": len(events) > MOST_EVENTS,
        "ssh_command": columns.ssh_command(session),
        "costs": [(kind.value, wording.dollars(costs.by_kind[kind])) for kind in MeterSegment.Kind],
        "total": wording.dollars(costs.total),
    }


def _attempt(rental: Rental, now: datetime) -> dict[str, Any]:
    return {
        "rental": rental,
        "tone": columns.DEBT_TONES[rental.state],
        "state": Debt(rental.state).label,
        "lasted": wording.span((rental.closed_at or now) - rental.created_at),
        "proof": _evidence(rental.proof or {}),
        "owed": wording.span(now - rental.destroy_requested_at)
        if rental.state == Debt.DESTROYING and rental.destroy_requested_at
        else "",
    }


def _evidence(proof: dict[str, Any]) -> list[tuple[str, str]]:
    """The call, the answer and the time first: a database may have put them in another order."""
    names = [*_PROOF, *sorted(proof.keys() - set(_PROOF))]
    return [(name.replace("_", " "), str(proof[name])) for name in names if proof.get(name) not in (None, "")]
