"""``python -m benchmarks.month`` (``--help``): a month of sessions with faults, budgets and webhooks, and its bills.

One process does everybody's work, and both clocks jump to whatever is due next, so that a month passes in minutes.
Consumers have budgets that refuse them, run dry under them, or only warn; machines have traffic; a receiver of webhooks
fails now and then, the provider's balance and charges are read as every day. In the end our books, the statements and
the marketplace's own bill must be equal within a thousandth, no budget crossed at any moment, and no webhook lost.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.month_run import Month
    from tests.sandbox import SandboxProcess

#: Our books, the statements and the marketplace's bill may differ by so much of the bill.
TOLERANCE = Decimal("0.001")
DAYS = 31


@dataclass(frozen=True)
class Wish:
    sessions: int = 200
    #: Share of the sessions that get trouble.
    faults: float = 0.3
    seed: int = 1
    #: Dollars that each consumer may spend in the month.
    budget: Decimal = Decimal(25)
    #: Real seconds after which it is called stuck.
    patience: float = 3600


@dataclass(frozen=True)
class Outcome:
    """What came of the month; dollars."""

    sessions: int
    refused_by_budget: int
    machines: int
    faults: int
    simulated_days: float
    seconds: float
    #: Of the same sessions: by the meter, by the statements of all consumers, by the marketplace's ledger, and by the
    #: charges that it told.
    ours: Decimal
    statements: Decimal
    theirs: Decimal
    charged: Decimal
    #: Charges are told to a thousandth of a dollar, GPU and disk apart: what may be lost by that.
    rounding: Decimal
    #: Of ours: what hosts billed by volume.
    traffic: Decimal = Decimal(0)
    #: Sessions that were ended because a hard budget was used up; of these, machines that ran and were not warned.
    ended_by_budget: int = 0
    unwarned: list[str] = field(default_factory=list)
    #: Sessions that a soft budget ended: it may only warn.
    ended_by_soft: list[str] = field(default_factory=list)
    #: Webhooks that told of a threshold, or of a budget that is used up.
    budget_warnings: int = 0
    crossings: list[str] = field(default_factory=list)
    #: Machines that cost more than was reserved, because the marketplace did not destroy them in time.
    overruns: int = 0
    webhooks: int = 0
    webhooks_lost: list[str] = field(default_factory=list)
    open: int = 0
    findings: dict[str, int] = field(default_factory=dict)

    @property
    def error(self) -> Decimal:
        """The largest share by which one of them differs from the marketplace's bill."""
        bill = max(self.theirs, Decimal("0.01"))
        charged = max(abs(self.charged - self.theirs) - self.rounding, Decimal(0))
        return max(abs(self.ours - self.theirs), abs(self.statements - self.theirs), charged) / bill

    @property
    def good(self) -> bool:
        wrong = self.crossings or self.unwarned or self.ended_by_soft or self.webhooks_lost or self.open
        return self.error <= TOLERANCE and not wrong

    def rows(self) -> list[tuple[str, str]]:
        return [
            ("sessions, machines", f"{self.sessions}, {self.machines}"),
            ("refused by a budget (402)", str(self.refused_by_budget)),
            ("ended by one, unwarned of these", f"{self.ended_by_budget}, {len(self.unwarned)}"),
            ("warnings of budgets", str(self.budget_warnings)),
            ("ended by a soft one", str(len(self.ended_by_soft))),
            ("faults that struck", str(self.faults)),
            ("by our meter", f"${self.ours:.6f}, of which traffic ${self.traffic:.6f}"),
            ("by the statements", f"${self.statements:.6f}"),
            ("by the marketplace", f"${self.theirs:.6f}"),
            ("by its charges", f"${self.charged:.6f}"),
            ("largest difference", f"{100 * self.error:.4f} %"),
            ("budgets crossed, overruns told", f"{len(self.crossings)}, {self.overruns}"),
            ("webhooks delivered, lost", f"{self.webhooks}, {len(self.webhooks_lost)}"),
            ("still open", str(self.open)),
            ("findings", ", ".join(f"{name} {count}" for name, count in sorted(self.findings.items())) or "none"),
            ("time", f"{self.seconds:.0f} s for {self.simulated_days:.1f} days"),
        ]


class Clocks:
    """The broker's and the marketplace's, moved together."""

    def __init__(self, market: SandboxProcess) -> None:
        self.market = market
        now = datetime.now(UTC)
        self.offset = timedelta(0)
        following = (now.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=30, microsecond=0)
        self.jump(following - now)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def jump(self, span: timedelta) -> None:
        self.market.advance(span.total_seconds())
        self.offset += span


def run(market: SandboxProcess, wish: Wish) -> Outcome:
    """The month itself, in a process where Django is set up on an empty database and knows the market."""
    from benchmarks.month_run import Month
    from gpubroker.common import clock

    began = time.monotonic()
    clocks = Clocks(market)
    with clock.use(clocks), _webhooks() as received:
        month = Month(market, clocks, wish, received)
        start = clocks()
        month.to_the_end()
        return _outcome(month, time.monotonic() - began, (clocks() - start) / timedelta(days=1))


def _outcome(month: Month, seconds: float, days: float) -> Outcome:
    from benchmarks import month_books as books

    return Outcome(
        seconds=seconds, simulated_days=days, crossings=month.crossings, faults=month.faults_that_struck(),
        **books.totals(month), **books.budgets(month), **books.webhooks(month),
    )  # fmt: skip


@contextmanager
def _webhooks() -> Iterator[Any]:
    from tests.billing.receiver import receiving

    with receiving() as receiver:
        yield receiver


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.month", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=Wish.sessions)
    parser.add_argument("--faults", type=float, default=Wish.faults, help="share of the sessions that get trouble")
    parser.add_argument("--seed", type=int, default=Wish.seed)
    parser.add_argument("--budget", type=Decimal, default=Wish.budget, help="dollars a consumer and month")
    parser.add_argument("--backend", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    from benchmarks import soak

    given = _arguments(words)
    wish = Wish(given.sessions, given.faults, given.seed, given.budget)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpubroker-month-")))
        if given.backend == "postgresql":
            from tests import servers

            os.environ["DATABASE_URL"] = stack.enter_context(servers.postgres())
        soak.set_up()
        from tests.sandbox import SandboxProcess

        market = stack.enter_context(SandboxProcess(folder / "market", boot_seconds=0.5, credit=1_000_000, offers=640))
        soak.introduce(market)
        outcome = run(market, wish)
        soak.close_connections()
    if given.json:
        sys.stdout.write(f"{json.dumps({'benchmark': 'month', **asdict(wish), **asdict(outcome)}, default=str)}\n")
    else:
        for name, text in outcome.rows():
            sys.stdout.write(f"  {name:<32}  {text}\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
