"""What failed attempts say of a machine and of a GPU type. Pure: times and reasons in, factors out, no database.

* A failure halves what is thought of its machine, and is forgotten by half every :data:`HALF_LIFE`. Weak ones, which
  may be the market's or the request's doing as well as the machine's, count half.
* Three failures (by weight) of one machine within :data:`WINDOW` suppress it: its offers are neither listed nor sold
  until :data:`SUPPRESS_FOR` after the last of them.
* A GPU type of which many attempts at a provider have failed lately, on different machines, loses up to half.

A machine that its vendor does not name is known by its offer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

HALF_LIFE = timedelta(minutes=30)
WINDOW = timedelta(minutes=30)
SUPPRESS_AT = 3.0
SUPPRESS_FOR = timedelta(minutes=30)
#: Older failures weigh less than a hundredth: they are no longer looked at.
REMEMBERED = timedelta(hours=4)
TYPE_WINDOW = timedelta(hours=1)
#: On fewer machines than this a GPU type's failures are those machines' own.
TYPE_MACHINES = 3
#: A GPU type whose every attempt failed keeps this much: the next machine may well be another host's.
LEAST_OF_TYPE = 0.5
#: Factors change at these steps only, so that answers printed in between are the same bytes.
STEP_SECONDS = 10

#: By the reason that the attempt ended for. Others (credit, keys, price, an outage) say nothing of the machine.
WEIGHTS: Mapping[str, float] = {
    "boot_failed": 1.0,
    "boot_timeout": 1.0,
    "wrong_machine": 1.0,
    "provider_lost": 1.0,
    "refused": 0.5,
    "offer_gone": 0.5,
    "create_lost": 0.5,
}


def machine_key(provider: str, machine_id: str, offer_id: str) -> str:
    """One name for a machine: its vendor's id, or its offer's where the vendor names none."""
    return f"{provider}:{machine_id}" if machine_id else offer_id


@dataclass(frozen=True, slots=True)
class Failure:
    machine: str
    provider: str
    gpu_type: str
    reason: str
    at: datetime

    @property
    def weight(self) -> float:
        return WEIGHTS.get(self.reason, 0.0)


@dataclass(frozen=True, slots=True)
class Success:
    provider: str
    gpu_type: str
    at: datetime


def stepped(now: datetime) -> datetime:
    """The last step before ``now``."""
    return datetime.fromtimestamp(now.timestamp() // STEP_SECONDS * STEP_SECONDS, UTC)


def machine_factor(failures: Iterable[Failure], now: datetime) -> float:
    """1.0 without failures; halved by each fresh one. ``failures`` are one machine's."""
    burden = sum(failure.weight * 0.5 ** (_age(failure.at, now) / HALF_LIFE) for failure in failures)
    return float(0.5**burden)


def _age(at: datetime, now: datetime) -> timedelta:
    return max(now - at, timedelta(0))


def suppressed_until(failures: Iterable[Failure]) -> datetime | None:
    """Until when one machine is not sold; ``None``: it never came to that. May lie in the past.

    It is the latest end of any window that held enough failures, so one failure more never shortens it."""
    ordered = sorted(failures, key=lambda failure: failure.at)
    until, first, weight = None, 0, 0.0
    for failure in ordered:
        weight += failure.weight
        while ordered[first].at <= failure.at - WINDOW:
            weight -= ordered[first].weight
            first += 1
        if weight >= SUPPRESS_AT:
            until = failure.at + SUPPRESS_FOR
    return until


@dataclass(frozen=True, slots=True)
class Degradation:
    """How one GPU type fares at one provider within :data:`TYPE_WINDOW`."""

    failed: int
    attempts: int
    machines: int

    @property
    def factor(self) -> float:
        """1.0 unless enough different machines failed; else lower by the share of attempts that failed."""
        if self.machines < TYPE_MACHINES:
            return 1.0
        return 1.0 - (1.0 - LEAST_OF_TYPE) * self.failed / self.attempts


def degradations(
    failures: Iterable[Failure], successes: Iterable[Success], now: datetime
) -> dict[tuple[str, str], Degradation]:
    """By provider and GPU type, where anything failed."""
    failed: dict[tuple[str, str], list[str]] = defaultdict(list)
    for failure in failures:
        if failure.weight and _age(failure.at, now) < TYPE_WINDOW:
            failed[failure.provider, failure.gpu_type].append(failure.machine)
    worked: dict[tuple[str, str], int] = defaultdict(int)
    for success in successes:
        if _age(success.at, now) < TYPE_WINDOW:
            worked[success.provider, success.gpu_type] += 1
    return {
        key: Degradation(len(machines), len(machines) + worked[key], len(set(machines)))
        for key, machines in failed.items()
    }


@dataclass(frozen=True)
class View:
    """What is thought of everything at one moment."""

    machines: Mapping[str, float] = field(default_factory=dict)
    types: Mapping[tuple[str, str], float] = field(default_factory=dict)
    suppressed: frozenset[str] = frozenset()

    def factor(self, machine: str, provider: str, gpu_type: str) -> float:
        return self.machines.get(machine, 1.0) * self.types.get((provider, gpu_type), 1.0)


@dataclass(frozen=True)
class Health:
    """All that is remembered; what it means depends on when one asks."""

    failures: Sequence[Failure] = ()
    successes: Sequence[Success] = ()

    def step(self, now: datetime) -> float:
        """Equal steps, equal views."""
        return stepped(now).timestamp() if self.failures else 0.0

    def by_machine(self) -> dict[str, list[Failure]]:
        found: dict[str, list[Failure]] = defaultdict(list)
        for failure in self.failures:
            found[failure.machine].append(failure)
        return found

    def at(self, now: datetime) -> View:
        if not self.failures:
            return View()
        moment = stepped(now)
        machines = self.by_machine()
        until = {machine: suppressed_until(failures) for machine, failures in machines.items()}
        return View(
            machines={machine: machine_factor(failures, moment) for machine, failures in machines.items()},
            types={key: found.factor for key, found in degradations(self.failures, self.successes, moment).items()},
            suppressed=frozenset(machine for machine, end in until.items() if end is not None and moment < end),
        )
