"""``make soak`` (``python -m benchmarks.soak --help``): sessions by the thousand, faults among them, workers killed.

Against a real sandbox marketplace in its own process: consumers create, extend, end and forget sessions through the
API; worker processes run the product's own tick and tasks, and are killed now and then; a share of the sessions gets
trouble of every kind that the marketplace knows. Seconds pass as they do, so that what has to be quick is measured in
real seconds; when nothing is left to do, both clocks jump to just before the next moment of interest.

In the end the marketplace's ledger is held against our books. The exit code is not zero when money leaked, a machine
was destroyed while it was wanted, or something is still open.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.soak_books import Verdict
    from tests.sandbox import SandboxProcess

OFFERS = 640


@dataclass(frozen=True)
class Wish:
    """How much of everything."""

    sessions: int = 1000
    faults: float = 0.1
    seed: int = 1
    #: Alive at once.
    together: int = 60
    workers: int = 2
    #: A worker is killed after so many real seconds, again and again.
    kill_every: float = 15.0
    #: The longest that a consumer keeps a session, unless it lets it expire.
    minutes: float = 50.0
    #: Say now and then, on stderr, how far it is.
    progress: bool = False


def run(market: SandboxProcess, wish: Wish) -> Verdict:
    """The soak itself, in a process where Django is set up on an empty database and knows the market."""
    from benchmarks.soak_books import judge
    from benchmarks.soak_life import Life
    from benchmarks.soak_run import Run
    from benchmarks.soak_workers import SharedTime, Workers
    from gpubroker.common import clock

    shared = SharedTime()
    began_at, began = time.monotonic(), shared()
    with clock.use(shared):
        life = Life(market, wish.sessions, wish.faults, wish.seed, wish.minutes)
        life.prepare()
        workers = Workers(wish.workers, shared)
        try:
            Run(market, life, workers, shared, wish).to_the_end()
        finally:
            workers.stop()
        life.clear_faults()
        return judge(market.ledger(), life.caused, life.struck, time.monotonic() - began_at, began)


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=Wish.sessions)
    parser.add_argument("--faults", type=float, default=Wish.faults, help="share of the sessions that get trouble")
    parser.add_argument("--seed", type=int, default=Wish.seed)
    parser.add_argument("--together", type=int, default=Wish.together, help="sessions that are alive at once")
    parser.add_argument("--workers", type=int, default=Wish.workers)
    parser.add_argument("--backend", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    given = _arguments(words)
    wish = Wish(given.sessions, given.faults, given.seed, given.together, given.workers, progress=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpubroker-soak-")))
        if given.backend == "postgresql":
            from tests import servers

            os.environ["DATABASE_URL"] = stack.enter_context(servers.postgres())
        set_up()
        from tests.sandbox import SandboxProcess

        market = stack.enter_context(
            SandboxProcess(folder / "market", boot_seconds=0.5, credit=1_000_000, offers=OFFERS)
        )
        introduce(market)
        verdict = run(market, wish)
        close_connections()
    if given.json:
        sys.stdout.write(f"{json.dumps({'benchmark': 'soak', **asdict(wish), **asdict(verdict)})}\n")
    else:
        for name, text in verdict.rows():
            sys.stdout.write(f"  {name:<36}  {text}\n")
    return 0 if verdict.good else 1


def set_up() -> None:
    """Django on an empty database that vanishes, as the tests have it."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ.setdefault("LOG_LEVEL", "critical")
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def introduce(market: SandboxProcess) -> None:
    from django.conf import settings

    from gpubroker.common import providers as configured

    settings.VASTAI_API_KEY = market.api_key
    settings.VASTAI_BASE_URL = market.url
    settings.PROVIDER_PACE = 0
    settings.SSH_CHECK_SECONDS = 0.5
    configured.configured.cache_clear()


def close_connections() -> None:
    from django.db import connections

    connections.close_all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
