"""What a soak has shown: the marketplace's ledger held against our books, machine by machine.

Times are epoch seconds of the soak's clock, which broker and marketplace share; money is dollars.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings

from billing import selectors as billing
from gpubroker.common import clock
from gpubroker.common.deployment import deployment_id
from providers.labels import is_ours, parse_label
from sessions_app.models import Event, Rental, Session
from sessions_app.states import FINAL, OPEN, EndReason, Status

#: A destroy later than this after the end is a missed deadline (I8).
LATENESS = 3.0
#: What the leases of a dead worker, the look-ups of a lost create and one pause may take together. What a machine costs
#: beyond that, after its end, is money that leaked.
PATIENCE = 300.0
#: Two clocks that are moved together are never quite one.
CLOCKS = 1.0
#: Failures that a machine must have given cause for.
OF_MACHINES = frozenset(
    {
        EndReason.PROVIDER_LOST,
        EndReason.BOOT_FAILED,
        EndReason.BOOT_TIMEOUT,
        EndReason.WRONG_MACHINE,
        EndReason.PRICE,
        EndReason.REFUSED,
    }
)


@dataclass(frozen=True)
class Life:
    """One machine of ours as both sides tell of it."""

    machine: str
    created_at: float
    #: ``None``: it lives.
    destroyed_at: float | None
    #: What it cost in each hour of its life, on average.
    dollars_per_hour: float
    #: From when on nobody wanted it; ``None``: somebody still does.
    unwanted_at: float | None
    #: One of our rentals is, or was, about it.
    owned: bool = True
    #: The marketplace refused its destroy, or only said that it would: the time since its end is not our doing.
    refused: bool = False
    #: Given up by the broker itself, for no cause that was given.
    unprovoked: bool = False

    def dollars(self, since: float, now: float) -> float:
        """What it cost from ``since`` on."""
        end = now if self.destroyed_at is None else self.destroyed_at
        return max(end - max(since, self.created_at), 0.0) / 3600 * self.dollars_per_hour

    @property
    def lateness(self) -> float | None:
        """Seconds from its end to its destroy; ``None`` where there is no such thing, or not through us."""
        if self.destroyed_at is None or self.unwanted_at is None or self.refused:
            return None
        return max(self.destroyed_at - max(self.unwanted_at, self.created_at), 0.0)


def leaked(lives: Iterable[Life], now: float) -> float:
    """Dollars for machines beyond what was owed: all that nobody's machine costs, and what the others cost after their
    end and our patience. One whose destroy was refused counts if it lives now."""
    total = 0.0
    for life in lives:
        if not life.owned:
            total += life.dollars(life.created_at + PATIENCE, now)
        elif life.unwanted_at is not None and not (life.refused and life.destroyed_at is not None):
            total += life.dollars(max(life.unwanted_at, life.created_at) + PATIENCE, now)
    return total


def refused_dollars(lives: Iterable[Life], now: float) -> float:
    """What machines cost after their end while the marketplace refused to destroy them."""
    return sum(life.dollars(life.unwanted_at, now) for life in lives if life.refused and life.unwanted_at is not None)


def false_kills(lives: Iterable[Life]) -> list[str]:
    """Machines that were destroyed while they were wanted, or given up for no cause."""
    found = []
    for life in lives:
        early = life.destroyed_at is not None and (
            life.unwanted_at is None or life.destroyed_at < life.unwanted_at - CLOCKS
        )
        if life.owned and (early or (life.unprovoked and life.destroyed_at is not None)):
            found.append(life.machine)
    return found


def missed(lives: Iterable[Life]) -> list[float]:
    """The lateness of each destroy that missed its deadline."""
    return [life.lateness for life in lives if life.lateness is not None and life.lateness > LATENESS]


@dataclass
class Caused:
    """What the soak itself did: the only causes there are."""

    #: Machines that died, and when.
    died: dict[str, float] = field(default_factory=dict)
    #: Machines with our label that no broker made, and when.
    orphans: dict[str, float] = field(default_factory=dict)
    #: Machines of others.
    foreign: set[str] = field(default_factory=set)
    #: Sessions that were given a fault of their own; labels whose destroy is refused.
    troubled: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    #: What consumers asked for: session -> reasons that an end may have.
    asked: dict[str, set[str]] = field(default_factory=dict)
    kills: int = 0


def lives(contracts: Sequence[Mapping[str, Any]], caused: Caused, now: float) -> list[Life]:
    """Every machine with our label."""
    rentals = {rental.instance_id: rental for rental in Rental.objects.select_related("session")}
    by_label = {rental.label: rental for rental in rentals.values() if rental.origin == "session"}
    stops = _stops()
    found = []
    for contract in contracts:
        if not is_ours(contract["label"], deployment_id()) or str(contract["id"]) in caused.foreign:
            continue
        rental = rentals.get(str(contract["id"])) or by_label.get(contract["label"])
        end = now if contract["destroyed_at"] is None else contract["destroyed_at"]
        hours = max(end - contract["created_at"], 1.0) / 3600
        found.append(
            Life(
                str(contract["id"]),
                contract["created_at"],
                contract["destroyed_at"],
                contract["total_dollars"] / hours,
                _unwanted_at(rental, stops, caused),
                owned=rental is not None,
                refused=contract["label"] in caused.refusing,
                unprovoked=rental is not None and _unprovoked(rental, contract, caused),
            )
        )
    return found


def _stops() -> dict[str, float]:
    """Session -> when its end began."""
    moves = Event.objects.filter(kind="session", to_state__in=[Status.STOPPING, *FINAL]).order_by("-id")
    return {str(session_id): at.timestamp() for session_id, at in moves.values_list("session_id", "at")}


def _unwanted_at(rental: Rental | None, stops: Mapping[str, float], caused: Caused) -> float | None:
    if rental is None:
        return None
    if rental.session is None:
        made = caused.orphans.get(rental.instance_id, rental.created_at.timestamp())
        return made + settings.ORPHAN_GRACE_SECONDS
    session = rental.session
    moments = [rental.failed_at.timestamp()] if rental.failed_at is not None else []
    if session.end_reason == EndReason.EXPIRED:
        moments.append(session.expires_at.timestamp())
    elif session.id in stops:
        moments.append(stops[session.id])
    end = min(moments, default=None)
    if end is not None and rental.preserved_at is not None and rental.preserve_until is not None:
        # Its disk is wanted for longer, unless somebody gave it up.
        given_up = rental.destroy_requested_at or rental.preserve_until
        return min(rental.preserve_until, given_up).timestamp()
    return end


def _unprovoked(rental: Rental, contract: Mapping[str, Any], caused: Caused) -> bool:
    if rental.session is None:
        return False
    provoked = bool(contract["quirks"]) or rental.instance_id in caused.died or rental.session.id in caused.troubled
    if rental.failure in OF_MACHINES:
        return not provoked
    reason = rental.session.end_reason
    ours = reason and reason not in OF_MACHINES and not rental.failure
    return bool(ours) and reason not in caused.asked.get(rental.session.id, set()) and not provoked


@dataclass
class Verdict:
    """What is printed."""

    sessions: int
    by_reason: dict[str, int]
    machines: int
    orphans: int
    faults: dict[str, int]
    worker_kills: int
    leaked_dollars: float
    refused_dollars: float
    false_kills: list[str]
    foreign_killed: int
    stuck: int
    destroys: int
    missed_deadlines: int
    worst_lateness: float
    worst_death_to_end: float
    worst_orphan_to_destroy: float
    cost_error: float
    worst_session_error: float
    dollars: float
    seconds: float
    simulated_hours: float

    @property
    def good(self) -> bool:
        return self.leaked_dollars <= 0 and not self.false_kills and not self.foreign_killed and not self.stuck

    def rows(self) -> list[tuple[str, str]]:
        reasons = ", ".join(f"{name} {count}" for name, count in sorted(self.by_reason.items()))
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return [
            ("sessions", f"{self.sessions} ({self.sessions / max(self.seconds, 0.001):.2f}/s)"),
            ("by end reason", reasons),
            ("machines", f"{self.machines}, and {self.orphans} orphans"),
            ("faults that struck", f"{sum(self.faults.values())}: {faults}"),
            ("workers killed", str(self.worker_kills)),
            ("leaked dollars", f"{self.leaked_dollars:.4f} of {self.dollars:.2f}"),
            ("dollars while a destroy was refused", f"{self.refused_dollars:.4f}"),
            ("false kills", f"{len(self.false_kills)} {' '.join(self.false_kills)}".strip()),
            ("machines of others destroyed", str(self.foreign_killed)),
            ("sessions and debts left open", str(self.stuck)),
            ("missed deadlines", f"{self.missed_deadlines} of {self.destroys}, the worst {self.worst_lateness:.1f} s"),
            ("machine's death to session's end", f"at most {self.worst_death_to_end:.1f} s"),
            ("orphan to destroy", f"at most {self.worst_orphan_to_destroy:.1f} s"),
            ("cost error", f"{self.cost_error:.3%} in all, the worst session {self.worst_session_error:.4f} dollars"),
            ("time", f"{self.seconds:.0f} s for {self.simulated_hours:.1f} h"),
        ]


def judge(
    contracts: Sequence[Mapping[str, Any]],
    caused: Caused,
    faults: Collection[Mapping[str, Any]],
    seconds: float,
    began: datetime,
) -> Verdict:
    """Both sides' books after the soak; ``faults`` as the marketplace lists them, with their hits."""
    now = clock.now()
    all_lives = lives(contracts, caused, now.timestamp())
    late = [life.lateness for life in all_lives if life.lateness is not None]
    struck: Counter[str] = Counter()
    for fault in faults:
        struck[str(fault["kind"])] += int(fault["hits"])
    mistaken, worst = _cost_errors(contracts, now)
    dollars = sum(contract["total_dollars"] for contract in contracts if str(contract["id"]) not in caused.foreign)
    return Verdict(
        sessions=Session.objects.count(),
        by_reason=dict(Counter(Session.objects.values_list("end_reason", flat=True))),
        machines=len(all_lives) - len(caused.orphans),
        orphans=len(caused.orphans),
        faults={kind: count for kind, count in struck.items() if count},
        worker_kills=caused.kills,
        leaked_dollars=leaked(all_lives, now.timestamp()),
        refused_dollars=refused_dollars(all_lives, now.timestamp()),
        false_kills=false_kills(all_lives),
        foreign_killed=sum(str(c["id"]) in caused.foreign and not c["alive"] for c in contracts),
        stuck=Session.objects.exclude(status__in=FINAL).count() + Rental.objects.filter(state__in=OPEN).count(),
        destroys=len(late),
        missed_deadlines=len(missed(all_lives)),
        worst_lateness=max(late, default=0.0),
        worst_death_to_end=_worst_death(caused),
        worst_orphan_to_destroy=_worst_orphan(all_lives, caused),
        cost_error=mistaken,
        worst_session_error=worst,
        dollars=dollars,
        seconds=seconds,
        simulated_hours=(now - began).total_seconds() / 3600,
    )


def _worst_death(caused: Caused) -> float:
    noticed = Rental.objects.filter(instance_id__in=caused.died, failed_at__isnull=False)
    return max(
        (at.timestamp() - caused.died[name] for name, at in noticed.values_list("instance_id", "failed_at") if at),
        default=0.0,
    )


def _worst_orphan(all_lives: Iterable[Life], caused: Caused) -> float:
    mine = [life for life in all_lives if life.machine in caused.orphans]
    return max((life.destroyed_at - life.created_at for life in mine if life.destroyed_at is not None), default=0.0)


def _cost_errors(contracts: Iterable[Mapping[str, Any]], now: datetime) -> tuple[float, float]:
    """Share of the whole bill by which our books differ, and the worst session's difference in dollars."""
    bills: Counter[str] = Counter()
    for contract in contracts:
        label = parse_label(contract["label"])
        if label is not None and label.deployment == deployment_id():
            bills[label.session_id] += Decimal(str(contract["total_dollars"]))  # type: ignore[assignment]
    ours = {item: billing.of_session(item, now).total for item in Session.objects.values_list("id", flat=True)}
    differences = [abs(ours[item] - Decimal(bills[item])) for item in ours]
    bill = sum((Decimal(bills[item]) for item in ours), Decimal(0))
    total = abs(sum(ours.values(), Decimal(0)) - bill) / max(bill, Decimal("0.01"))
    return float(total), float(max(differences, default=Decimal(0)))
