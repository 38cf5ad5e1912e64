"""Samples of a machine's use: kept, bounded, and turned into a warning or an end where the session is idle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from gpubroker.common import clock
from sessions_app import idle, usage
from sessions_app.ending import end_session
from sessions_app.models import ActivitySample, Session
from sessions_app.states import EndReason, Status
from sessions_app.transitions import record
from sessions_app.warning import warn

Source = ActivitySample.Source
#: The newest samples of a session that are kept: an hour at one every 10 seconds.
MOST_SAMPLES = 360
#: Older ones are deleted this many at a time, not one by one.
SLACK = 40


@dataclass(frozen=True, slots=True)
class Reading:
    """What was seen of a machine at one moment; ``None``: unknown, and ``note`` says why."""

    gpu_utilization: float | None = None
    memory_used_mb: int | None = None
    #: Logins other than ours.
    ssh_connections: int | None = None
    note: str = ""


def take(session_id: str, source: ActivitySample.Source, reading: Reading) -> None:
    """Keep one sample, and act on it where the session asked for that: warn, or end it."""
    with transaction.atomic():
        # The session's row first, as everybody does; two samples of one session come one after the other.
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        up = session.status == Status.RUNNING and session.paused_at is None
        watched = up and session.idle_threshold_minutes > 0
        known = _known(session) if watched else idle.Known()
        before = ActivitySample.objects.filter(session=session).order_by("-id").first()
        row = ActivitySample.objects.create(
            session=session, at=clock.now(), source=source, gpu_utilization=reading.gpu_utilization,
            memory_used_mb=reading.memory_used_mb, ssh_connections=reading.ssh_connections, note=reading.note[:200],
        )  # fmt: skip
        _forget_old(session_id, row.id)
        usage.note(before, row)
        if watched:
            _judge(session, idle.after(known, seen(row)), row)


def seen(row: ActivitySample) -> idle.Seen:
    return idle.Seen(row.at, row.gpu_utilization, row.ssh_connections, row.source == Source.PROBE)


def _known(session: Session) -> idle.Known:
    """What the samples before this one amount to: the session's own column, the last sample, our last look."""
    rows = ActivitySample.objects.filter(session=session).order_by("-id")
    last = rows.first()
    near = clock.now() - idle.LONGEST_GAP
    look = rows.filter(source=Source.PROBE, at__gte=near).first()
    busy_look_at = look.at if look is not None and seen(look).busy else None
    return idle.Known(session.idle_since, last.at if last else None, busy_look_at)


def _judge(session: Session, known: idle.Known, row: ActivitySample) -> None:
    changes: dict[str, Any] = {}
    if known.since != session.idle_since:
        if session.idle_warned_at is not None:
            record("idle_over", session_id=session.id, reason=_activity(row), details={"source": row.source})
        session.idle_since, session.idle_warned_at = known.since, None
        changes = {"idle_since": known.since, "idle_warned_at": None}
    what = idle.verdict(session.idle_since, session.idle_warned_at, session.idle_threshold_minutes, row.at)
    if what is idle.Verdict.WARN:
        session.idle_warned_at = changes["idle_warned_at"] = row.at
        _idle_warning(session)
    if changes:
        Session.objects.filter(id=session.id).update(**changes)
    if what is idle.Verdict.END:
        minutes = session.idle_threshold_minutes
        message = f"idle since {clock.iso(session.idle_since)}, for longer than the {minutes} min allowed"
        end_session(session.id, EndReason.IDLE, message=message)


def _activity(row: ActivitySample) -> str:
    if row.note:
        return f"unknown counts as activity: {row.note}"
    if not seen(row).idle:
        return f"GPU at {row.gpu_utilization} %, {row.ssh_connections} logins"
    return "samples were missing, or contradicted each other"


def _idle_warning(session: Session) -> None:
    ahead = idle.plan(session.idle_since, session.idle_warned_at, session.idle_threshold_minutes)
    assert ahead is not None
    details = {
        "idle_since": clock.iso(session.idle_since), "ends_at": clock.iso(ahead.ends_at),
        "threshold_minutes": session.idle_threshold_minutes,
    }  # fmt: skip
    warn(session, "idle_warning", f"idle since {details['idle_since']}; ends at {details['ends_at']}", details)


def _forget_old(session_id: str, newest_id: int) -> None:
    """At most ``MOST_SAMPLES + SLACK`` rows of a session, and after a clean-up the newest ``MOST_SAMPLES``."""
    rows = ActivitySample.objects.filter(session_id=session_id, id__lte=newest_id).order_by("-id")
    too_many = rows.values_list("id", flat=True)[MOST_SAMPLES + SLACK - 1 : MOST_SAMPLES + SLACK].first()
    if too_many is not None:
        last_kept = rows.values_list("id", flat=True)[MOST_SAMPLES - 1 : MOST_SAMPLES].first()
        ActivitySample.objects.filter(session_id=session_id, id__lt=last_kept).delete()


def of(session_id: str) -> QuerySet[ActivitySample]:
    """Oldest first."""
    return ActivitySample.objects.filter(session_id=session_id).order_by("id")


def shown(row: ActivitySample) -> dict[str, Any]:
    return {
        "at": clock.iso(row.at),
        "source": row.source,
        "gpu_utilization": row.gpu_utilization,
        "memory_used_mb": row.memory_used_mb,
        "ssh_connections": row.ssh_connections,
        "idle": seen(row).idle,
        "note": row.note,
    }


def outlook(session: Session) -> dict[str, Any]:
    """Since when the session is idle, and what follows when, if it stays so. Times are null where nothing follows."""
    ahead = None
    if session.status == Status.RUNNING:
        ahead = idle.plan(session.idle_since, session.idle_warned_at, session.idle_threshold_minutes)
    return {
        "idle_threshold_minutes": session.idle_threshold_minutes,
        "idle_since": clock.iso(session.idle_since) if ahead else None,
        "warned_at": clock.iso(session.idle_warned_at) if ahead else None,
        "warns_at": clock.iso(ahead.warns_at) if ahead else None,
        "ends_at": clock.iso(ahead.ends_at) if ahead else None,
    }
