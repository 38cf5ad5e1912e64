"""When a running session counts as idle, and what follows from that: decisions over samples, pure.

Idle is only what was *seen* to be idle. A sample that leaves something unknown counts as activity, and so does a time
without samples. A heartbeat is evidence like our own look over SSH, but where a look has seen activity, a heartbeat
that says otherwise is not believed until the next look.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

#: A GPU at or above this is at work; below it, a desktop or a driver's own doings.
BUSY_PERCENT = 5.0
#: Two samples further apart than this leave unknown what happened between them.
LONGEST_GAP = timedelta(minutes=5)
#: From the warning to the end; less where the threshold itself is shorter.
GRACE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Seen:
    """One sample: per cent of the busiest GPU, and logins other than ours; ``None``: unknown."""

    at: datetime
    gpu_utilization: float | None
    ssh_connections: int | None
    #: Our own look, not a heartbeat.
    by_probe: bool = False

    @property
    def idle(self) -> bool:
        quiet = self.gpu_utilization is not None and self.gpu_utilization < BUSY_PERCENT
        return quiet and self.ssh_connections == 0

    @property
    def busy(self) -> bool:
        """Activity was seen; a sample that is neither idle nor busy leaves something unknown."""
        return (self.gpu_utilization or 0) >= BUSY_PERCENT or (self.ssh_connections or 0) > 0


@dataclass(frozen=True, slots=True)
class Known:
    """What the samples so far amount to."""

    #: The first idle sample after the last one that was not; ``None``: not idle.
    since: datetime | None = None
    last_at: datetime | None = None
    #: When our last look was, if it saw activity.
    busy_look_at: datetime | None = None


def after(known: Known, seen: Seen) -> Known:
    """What is known with one more sample."""
    busy_look_at = (seen.at if seen.busy else None) if seen.by_probe else known.busy_look_at
    if not seen.idle or _near(busy_look_at, seen.at):
        since = None
    else:
        since = known.since if _near(known.last_at, seen.at) else None
        since = since or seen.at
    return Known(since, seen.at, busy_look_at)


def after_all(samples: Iterable[Seen]) -> Known:
    known = Known()
    for seen in samples:
        known = after(known, seen)
    return known


def _near(before: datetime | None, at: datetime) -> bool:
    """Close enough together; a clock that was set back proves nothing either."""
    return before is not None and timedelta(0) <= at - before <= LONGEST_GAP


class Verdict(enum.Enum):
    #: Nothing follows now.
    WAIT = "wait"
    WARN = "warn"
    END = "end"


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen when, if nothing but idleness is seen from now on."""

    warns_at: datetime
    ends_at: datetime


def plan(since: datetime | None, warned_at: datetime | None, threshold_minutes: int) -> Plan | None:
    """``None``: not idle, or a threshold of 0, which means never."""
    if since is None or threshold_minutes <= 0:
        return None
    threshold = timedelta(minutes=threshold_minutes)
    warns_at = warned_at or since + threshold
    return Plan(warns_at, warns_at + min(GRACE, threshold))


def verdict(since: datetime | None, warned_at: datetime | None, threshold_minutes: int, now: datetime) -> Verdict:
    """What is due by a sample of this moment. Never an end without a warning that is its grace old."""
    ahead = plan(since, warned_at, threshold_minutes)
    if ahead is None:
        return Verdict.WAIT
    if warned_at is None:
        return Verdict.WARN if now >= ahead.warns_at else Verdict.WAIT
    return Verdict.END if now >= ahead.ends_at else Verdict.WAIT
