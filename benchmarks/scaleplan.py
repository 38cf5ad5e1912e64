"""``python -m benchmarks scaleplan``: what a day of sessions needs, by simulation where this machine's hardware ends.

A day of sessions comes as a Poisson process whose rate follows the hours of the day. Each takes the account whose line
for creates is shortest, holds its slot there for as long as the vendor wants creates apart, lives for some hours, and
needs a destroy (up to 64 in one call on Vast.ai) and a look that proves it. Intervals are read from the code; what a
life costs in processor time, commits and bytes is what ``python -m benchmarks scaleout`` printed, given as options.
"""

from __future__ import annotations

import argparse
import heapq
import math
import os
import random
import statistics
import sys
from dataclasses import dataclass

from providers.base import MOST_TOGETHER
from providers.tensordock.wire import LANES
from providers.vastai.paging import INSTANCES_PER_PAGE
from providers.vastai.transport import ROUTES

DAY = 86_400.0
#: The busiest hour has so much more than the mean one, the quietest as much less.
SWING = 0.8
#: ``CREATE_WAIT_SECONDS``: whoever waits longer for a slot gets ``pending`` instead of a verdict.
PATIENCE = 20.0
MEAN_HOURS = 2.0
#: Of a core, so that bursts find room.
BUSY = 0.6


@dataclass(frozen=True)
class Vendor:
    """Seconds between two calls of one account, with the gate's own slack."""

    name: str
    create: float
    destroy: float
    look: float
    together: int
    #: Seconds that a complete listing takes for each machine; 0 where one call shows all.
    listing: float


def vendors() -> tuple[Vendor, ...]:
    """At the pace of the code itself."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    import django

    django.setup()
    from gpubroker.common.gate import MOST_SLACK, SLACK_SHARE

    def spaced(interval: float) -> float:
        return interval + min(interval * SLACK_SHARE, MOST_SLACK)

    return (
        Vendor("Vast.ai", spaced(ROUTES["create"].interval), spaced(ROUTES["destroy_many"].interval),
               spaced(ROUTES["get_instance"].interval), MOST_TOGETHER,
               spaced(ROUTES["list_instances"].interval) / INSTANCES_PER_PAGE),
        Vendor("TensorDock", spaced(LANES["create"]), spaced(LANES["destroy"]), spaced(LANES["get_instance"]), 1, 0.0),
    )  # fmt: skip


@dataclass(frozen=True)
class Day:
    accounts: int
    create_wait_median: float
    create_wait_p99: float
    proof_wait_p99: float
    most_alive: int

    @property
    def good(self) -> bool:
        return self.create_wait_p99 <= PATIENCE


def arrivals(sessions: int, chance: random.Random) -> list[float]:
    """Moments of one day, in order: thinned from the busiest hour's rate."""
    most = sessions / DAY * (1 + SWING)
    found, now = [], 0.0
    while (now := now + chance.expovariate(most)) < DAY:
        if chance.random() * (1 + SWING) < 1 + SWING * math.sin(2 * math.pi * (now / DAY - 0.3)):
            found.append(now)
    return found


def simulate(vendor: Vendor, sessions: int, accounts: int) -> Day:
    chance = random.Random(1)
    free = [(0.0, number) for number in range(accounts)]
    waits: list[float] = []
    ends: list[tuple[float, int]] = []
    lives: list[tuple[float, float]] = []
    for moment in arrivals(sessions, chance):
        at, account = heapq.heappop(free)
        begun = max(at, moment)
        heapq.heappush(free, (begun + vendor.create, account))
        waits.append(begun - moment)
        over = begun + min(max(chance.lognormvariate(math.log(MEAN_HOURS) - 0.32, 0.8), 0.1), 12) * 3600
        ends.append((over, account))
        lives.append((begun, over))
    return Day(
        accounts, statistics.median(waits), quantile(waits, 0.99), quantile(proofs(vendor, ends, accounts), 0.99),
        most_at_once(lives),
    )  # fmt: skip


def proofs(vendor: Vendor, ends: list[tuple[float, int]], accounts: int) -> list[float]:
    """From each end to the look that proves it, by account: destroys together, looks one by one."""
    by_account: list[list[float]] = [[] for _ in range(accounts)]
    for moment, account in sorted(ends):
        by_account[account].append(moment)
    found = []
    for moments in by_account:
        destroy_free = look_free = 0.0
        position = 0
        while position < len(moments):
            sent = max(destroy_free, moments[position])
            batch = position
            while batch < len(moments) and moments[batch] <= sent and batch - position < vendor.together:
                batch += 1
            destroy_free = sent + vendor.destroy
            for ended in moments[position:batch]:
                look_free = max(look_free, sent) + vendor.look
                found.append(look_free - ended)
            position = batch
    return found


def most_at_once(lives: list[tuple[float, float]]) -> int:
    changes = sorted([(begun, 1) for begun, _ in lives] + [(over, -1) for _, over in lives])
    alive = most = 0
    for _, change in changes:
        alive += change
        most = max(most, alive)
    return most


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def fewest(vendor: Vendor, sessions: int) -> Day:
    """The fewest accounts with which 99 of 100 creates get their slot in time."""
    low = max(int(sessions * vendor.create / DAY), 1)
    high = low
    while not (best := simulate(vendor, sessions, high)).good:
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        day = simulate(vendor, sessions, middle)
        if day.good:
            best, high = day, middle
        else:
            low = middle + 1
    return best


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaleplan")
    parser.add_argument("--sessions", default="1000,10000,100000,1000000", help="sessions a day, with commas")
    parser.add_argument("--cpu", type=float, required=True, help="seconds of processor time of one life, broker only")
    parser.add_argument("--commits", type=float, required=True, help="commits of one life")
    parser.add_argument("--kilobytes", type=float, required=True, help="what one life leaves in the database")
    asked = parser.parse_args(arguments or [])
    for vendor in vendors():
        print(
            f"  {vendor.name}: a create every {vendor.create:g} s and account, "
            f"{DAY / vendor.create:,.0f} a day at most; a look every {vendor.look:g} s"
        )
        for sessions in map(int, asked.sessions.split(",")):
            day, peak = fewest(vendor, sessions), sessions / DAY * (1 + SWING)
            print(
                f"  {sessions:>9,} a day: {day.accounts:>4} accounts, slot after {day.create_wait_median:.1f} s "
                f"(p99 {day.create_wait_p99:.1f} s), gone {day.proof_wait_p99:.0f} s after the end (p99), "
                f"{day.most_alive:,} alive at most, {day.most_alive / day.accounts:,.0f} an account, "
                f"listed in {day.most_alive / day.accounts * vendor.listing:.0f} s; "
                f"{peak * asked.cpu / BUSY:.1f} cores, {peak * asked.commits:,.0f} commits/s at the peak, "
                f"{sessions * asked.kilobytes / 1e6:.2f} GB a day",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
