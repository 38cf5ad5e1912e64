"""What the console tells of a session at a glance: colours, time left, cost until now, the command that logs in."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from billing.models import MeterSegment
from gpubroker.common import wording
from gpubroker.common.money import exact_cost
from sessions_app.launch_modes import ENTRYPOINT
from sessions_app.models import Session
from sessions_app.states import ENDABLE, Debt, Status
from sessions_app.warning import end_of

ZERO = Decimal(0)
#: The theme's colours.
TONES: dict[str, str] = {
    Status.PENDING: "info",
    Status.PROVISIONING: "info",
    Status.RUNNING: "success",
    Status.STOPPING: "warning",
    Status.STOPPED: "primary",
    Status.FAILED: "danger",
}
DEBT_TONES: dict[str, str] = {
    Debt.INTENDED: "info",
    Debt.CREATING: "info",
    Debt.UNKNOWN: "warning",
    Debt.LIVE: "success",
    Debt.PARKING: "warning",
    Debt.PRESERVED: "info",
    Debt.DESTROYING: "warning",
    Debt.CLOSED: "primary",
}


def time_left(session: Session, now: datetime) -> str:
    """Until the end that is enforced; empty once nobody can end it any more."""
    if session.status not in ENDABLE:
        return ""
    left = end_of(session) - now
    return wording.span(left) if left.total_seconds() > 0 else f"over for {wording.span(-left)}"


def costs(session_ids: Iterable[str], now: datetime) -> dict[str, Decimal]:
    """Dollars until now, not rounded, of each session that the meter knows. One query."""
    found: dict[str, Decimal] = {}
    segments = MeterSegment.objects.filter(session_id__in=list(session_ids))
    columns = ("session_id", "rate_per_hour", "started_at", "ended_at")
    for session_id, rate, started_at, ended_at in segments.values_list(*columns):
        spent = exact_cost(rate, (ended_at or now) - started_at)
        found[session_id] = found.get(session_id, Decimal(0)) + spent
    return found


def ssh_command(session: Session) -> str:
    """What the consumer types, the key's own place apart; empty where nothing answers on SSH."""
    if session.status != Status.RUNNING or not session.ssh_host or session.launch_mode == ENTRYPOINT:
        return ""
    # The address is the vendor's word: in a shell it must stay one word.
    where = shlex.quote(f"{session.ssh_user or 'root'}@{session.ssh_host}")
    return f"ssh -p {session.ssh_port or 22} {where}"
