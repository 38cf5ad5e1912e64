"""A month in short: faults on, budgets tight, a receiver that fails: all bills agree, and the verdict can be bad."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from benchmarks import month
from tests.sandbox import SandboxProcess


@pytest.fixture(scope="module")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("month"), boot_seconds=0.3, credit=10_000, offers=90) as process:
        yield process


@pytest.mark.timeout(600)
def test_a_short_month(market_with_threads: SandboxProcess, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = True
    wish = month.Wish(sessions=6, faults=0.5, seed=3, budget=Decimal("1.5"), patience=500)
    outcome = month.run(market_with_threads, wish)
    told = json.dumps([*outcome.rows(), *outcome.crossings, *outcome.webhooks_lost], indent=1)
    assert outcome.good, told
    # One of each kind of consumer, and the second session that the tight one asks for.
    assert outcome.sessions + outcome.refused_by_budget >= 7, told
    assert (outcome.refused_by_budget, outcome.ended_by_budget) >= (1, 1), told
    assert outcome.budget_warnings >= 4, told
    assert outcome.traffic > 0, told
    assert outcome.machines >= 3, told
    assert outcome.theirs > 0, told
    assert outcome.webhooks >= 10, told
    assert outcome.simulated_days > 31, told


GOOD = month.Outcome(
    sessions=1, refused_by_budget=0, machines=1, faults=1, simulated_days=32.0, seconds=1.0, ours=Decimal(1),
    statements=Decimal(1), theirs=Decimal(1), charged=Decimal("1.002"), rounding=Decimal("0.001"), webhooks=9,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"ours": Decimal("1.0011")}, False),
        ({"statements": Decimal("0.9989")}, False),
        ({"charged": Decimal("1.0021")}, False),
        ({"crossings": ["by a cent"]}, False),
        ({"unwarned": ["sess-1"]}, False),
        ({"ended_by_soft": ["sess-1"]}, False),
        ({"webhooks_lost": ["one"]}, False),
        ({"open": 1}, False),
    ],
)
def test_the_verdict(changes: dict[str, Any], good: bool) -> None:
    assert replace(GOOD, **changes).good is good
