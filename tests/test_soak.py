"""The soak in short: no money leaks and nobody is killed by mistake, while faults strike and workers die; and its
numbers can be other than zero."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks import soak, soak_books
from benchmarks.soak_books import LATENESS, PATIENCE, Life
from tests.sandbox import SandboxProcess

HOUR = 3600.0


@pytest.fixture(scope="module")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    folder = tmp_path_factory.mktemp("soak")
    with SandboxProcess(folder, boot_seconds=0.3, credit=10_000, offers=320) as process:
        yield process


@pytest.mark.timeout(170)
def test_a_short_soak(market_with_threads: SandboxProcess) -> None:
    wish = soak.Wish(sessions=40, faults=0.4, seed=7, together=40, kill_every=4.0, minutes=5.0)
    verdict = soak.run(market_with_threads, wish)
    told = json.dumps(verdict.rows(), indent=1)
    assert verdict.sessions == 40, told
    assert (verdict.leaked_dollars, verdict.false_kills, verdict.foreign_killed, verdict.stuck) == (0.0, [], 0, 0), told
    assert verdict.good, told
    assert sum(verdict.by_reason.values()) == 40, told
    assert len(verdict.faults) >= 4, told
    assert verdict.worker_kills >= 1, told
    assert verdict.machines >= 30, told
    assert verdict.cost_error < 0.01, told


# -- the numbers can be other than zero ------------------------------------------------------------------

NOW = 100 * HOUR
#: Lived for an hour at 60 cents, and was destroyed a second after its end.
GOOD = Life("1", 10 * HOUR, 11 * HOUR + 1, 0.6, 11 * HOUR)


def test_a_good_life_costs_nothing() -> None:
    assert soak_books.leaked([GOOD], NOW) == 0.0
    assert soak_books.false_kills([GOOD]) == []
    assert soak_books.missed([GOOD]) == []
    assert soak_books.refused_dollars([GOOD], NOW) == 0.0


def test_a_machine_that_outlives_its_end_leaks() -> None:
    forgotten = replace(GOOD, destroyed_at=None)
    assert soak_books.leaked([forgotten], NOW) == pytest.approx((89 * HOUR - PATIENCE) / HOUR * 0.6)
    late = replace(GOOD, destroyed_at=12 * HOUR)
    assert soak_books.leaked([GOOD, late], NOW) == pytest.approx((HOUR - PATIENCE) / HOUR * 0.6)
    assert soak_books.missed([GOOD, late]) == [HOUR]


def test_a_machine_that_nobody_owns_leaks_from_its_beginning() -> None:
    stray = replace(GOOD, destroyed_at=None, unwanted_at=None, owned=False)
    assert soak_books.leaked([stray], NOW) == pytest.approx((90 * HOUR - PATIENCE) / HOUR * 0.6)
    assert soak_books.false_kills([stray]) == []


def test_a_machine_made_after_its_end_is_late_from_when_it_was_made() -> None:
    made_late = replace(GOOD, created_at=20 * HOUR, destroyed_at=20 * HOUR + 2)
    assert made_late.lateness == 2.0
    assert soak_books.leaked([made_late], NOW) == 0.0


def test_a_refused_destroy_is_told_apart_and_leaks_if_it_never_comes_true() -> None:
    refused = replace(GOOD, destroyed_at=12 * HOUR, refused=True)
    assert soak_books.leaked([refused], NOW) == 0.0
    assert soak_books.refused_dollars([refused], NOW) == pytest.approx(0.6)
    assert soak_books.missed([refused]) == []
    assert soak_books.leaked([replace(refused, destroyed_at=None)], NOW) > 0.0


def test_whoever_is_destroyed_while_wanted_is_a_false_kill() -> None:
    wanted = replace(GOOD, machine="2", unwanted_at=None)
    early = replace(GOOD, machine="3", unwanted_at=11 * HOUR + 60)
    unprovoked = replace(GOOD, machine="4", unprovoked=True)
    lives = [GOOD, wanted, early, unprovoked, replace(GOOD, destroyed_at=None, unwanted_at=None)]
    assert soak_books.false_kills(lives) == ["2", "3", "4"]


def test_a_deadline_is_missed_beyond_the_lateness() -> None:
    just = replace(GOOD, destroyed_at=11 * HOUR + LATENESS)
    assert soak_books.missed([just]) == []
    assert soak_books.missed([replace(just, destroyed_at=11 * HOUR + LATENESS + 0.5)]) == [LATENESS + 0.5]


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"leaked_dollars": 0.01}, False),
        ({"false_kills": ["1"]}, False),
        ({"foreign_killed": 1}, False),
        ({"stuck": 1}, False),
        ({"missed_deadlines": 3, "worst_lateness": 40.0}, True),
    ],
)
def test_the_verdict(changes: dict[str, object], good: bool) -> None:
    verdict = soak_books.Verdict(
        sessions=1, by_reason={"done": 1}, machines=1, orphans=0, faults={"slow": 1}, worker_kills=0,
        leaked_dollars=0.0, refused_dollars=0.0, false_kills=[], foreign_killed=0, stuck=0, destroys=1,
        missed_deadlines=0, worst_lateness=1.0, worst_death_to_end=0.0, worst_orphan_to_destroy=0.0, cost_error=0.0,
        worst_session_error=0.0, dollars=1.0, seconds=1.0, simulated_hours=1.0,
    )  # fmt: skip
    assert replace(verdict, **changes).good is good  # type: ignore[arg-type]
