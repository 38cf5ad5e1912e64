"""The twelve rules under everything at once: a state machine drives the API, the workers and the marketplace with its
faults, and after each step the rules are held against the marketplace's ledger.

It runs in one thread: what other processes do at the same moment happens at the points of :mod:`tests.points`, where
no transaction is open. Time moves only when the machine says so. ``GPUBROKER_LONG=1`` runs many more examples from a
random seed, which is printed; ``GPUBROKER_SEED`` repeats one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gpubroker.common import providers as configured
from gpubroker.common import sshkeys
from offers import snapshot
from sessions_app import drive
from sessions_app.models import Rental
from sessions_app.states import Debt
from tests.harness import MovableClock, refresh_offers
from tests.points import Crash, at_point, die
from tests.sandbox import SandboxProcess
from tests.sessions_app.world import World

LONG = os.environ.get("GPUBROKER_LONG") == "1"
#: The second pass, on PostgreSQL, is about the database: a few examples tell.
SHORT = 5 if os.environ.get("DATABASE_URL") else 12
EXAMPLES, STEPS = (400, 50) if LONG else (SHORT, 25)
OWN_KEY = sshkeys.generate("ed25519", "mine").public

BY_BID: list[dict[str, Any]] = [
    {"pricing": "interruptible"},
    {"pricing": "interruptible", "bid_price": 9, "auto_retry": True, "max_retries": 2, "retry_scope": "any"},
    {"pricing": "interruptible", "bid_price": 9, "launch_mode": "entrypoint", "docker_image": "nginx:1"},
]
WISHES: list[dict[str, Any]] = [
    *BY_BID,
    {},
    {"auto_retry": True, "max_retries": 2, "retry_scope": "any"},
    {"auto_retry": True, "max_retries": 1, "retry_scope": "any", "storage_policy": "preserve", "preserve_hours": 1},
    {"storage_policy": "preserve", "preserve_hours": 2},
    {"idle_threshold_minutes": 10},
    {"max_price": 1.01, "reservation_hours": 1},
    {"ssh_public_key": OWN_KEY},
    {"launch_mode": "entrypoint", "docker_image": "nginx:1", "reservation_hours": 1},
]
#: The create took effect, and nobody is told.
LOST: list[dict[str, Any]] = [
    {"kind": "lost_answer"},
    {"kind": "error_after"},
    {"kind": "truncated_json"},
    {"kind": "truncated_json", "mid_stream": True},
    {"kind": "malformed", "operation": "create"},
]
ANSWERS: list[dict[str, Any]] = [
    {"kind": "offer_gone"},
    {"kind": "insufficient_credit"},
    {"kind": "success_false", "operation": "create"},
    {"kind": "success_false", "operation": "create", "contract": True},
    {"kind": "ssh_attach_fail"},
    {"kind": "slow", "seconds": 0.02},
    *({"kind": "rate_limited", "operation": each} for each in ("create", "list", "get", "destroy")),
    *({"kind": "error_5xx", "operation": each} for each in ("create", "list", "get", "destroy", "update")),
]
MACHINES: list[dict[str, Any]] = [
    {"kind": "boot_never"},
    {"kind": "boot_error"},
    {"kind": "boot_error", "mode": "pull"},
    {"kind": "boot_exited"},
    {"kind": "no_ssh"},
    {"kind": "ssh_delay", "seconds": 90},
    {"kind": "no_driver"},
    {"kind": "wrong_gpu"},
]
#: Complete-looking, and wrong.
LIES: list[dict[str, Any]] = [{"kind": "empty_listing"}, {"kind": "partial_listing", "consistent": True}]
LISTINGS: list[dict[str, Any]] = [
    *LIES,
    {"kind": "partial_listing"},
    {"kind": "listing_lag", "seconds": 40},
    {"kind": "malformed", "operation": "list"},
    {"kind": "auth_error", "operation": "list"},
]
REFUSALS: list[dict[str, Any]] = [
    *({"kind": "refuse_destroy", "mode": each} for each in ("silent", "error", "slow")),
    {"kind": "success_false", "operation": "destroy"},
]
FAULT = st.one_of(*(st.sampled_from(group) for group in (LOST, ANSWERS, MACHINES, LISTINGS, REFUSALS)))
NUMBER = st.integers(0, 11)
TIMES = st.sampled_from([1, 2, 6])
POINT = st.integers(1, 40)
ENDS = st.sampled_from(["done", "delete", "tick"])


class Machine(RuleBasedStateMachine):
    """Its rules only choose; :class:`World` does."""

    def __init__(self, market: SandboxProcess, time: MovableClock) -> None:
        super().__init__()
        self.ending = ExitStack()
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.world = World(market, time)
        self.ending.enter_context(self.world.watched())

    # -- consumers and their programs ----------------------------------------------------------------

    @initialize(pick=NUMBER, wish=st.sampled_from(WISHES), fault=FAULT, rounds=st.integers(0, 3))
    def first(self, pick: int, wish: dict[str, Any], fault: dict[str, Any], rounds: int) -> None:
        self.create_amid_a_fault(pick, wish, fault, rounds)

    @rule(pick=NUMBER, wish=st.sampled_from(WISHES), rounds=st.integers(0, 4))
    def create(self, pick: int, wish: dict[str, Any], rounds: int) -> None:
        if len(self.world.sessions()) < 4:
            self.world.create(pick, **wish)
        self.world.work(rounds, 15)

    @rule(pick=NUMBER, wish=st.sampled_from(WISHES), fault=FAULT, rounds=st.integers(0, 3))
    def create_amid_a_fault(self, pick: int, wish: dict[str, Any], fault: dict[str, Any], rounds: int) -> None:
        self.world.market.fault(**fault)
        self.create(pick, wish, rounds)

    @rule(pick=NUMBER, wish=st.sampled_from(WISHES), at=st.integers(1, 16))
    def create_by_two_workers(self, pick: int, wish: dict[str, Any], at: int) -> None:
        """The task that launches comes twice, at the same moment."""
        self.create(pick, wish, 0)
        for rental in Rental.objects.filter(state=Debt.INTENDED):
            with at_point(at, partial(drive.drive_rental, rental.id)):
                drive.drive_rental(rental.id)

    @rule(pick=NUMBER)
    def delete(self, pick: int) -> None:
        self._ask("delete", pick)

    @rule(pick=NUMBER)
    def done(self, pick: int) -> None:
        self._ask("post", pick, "/done")

    @rule(pick=NUMBER, at=st.integers(1, 4), one=ENDS, other=ENDS)
    def two_ends_at_once(self, pick: int, at: int, one: str, other: str) -> None:
        session = self.world.session(pick)
        if session is not None:
            with at_point(at, partial(self.world.end, session.id, other)):
                self.world.end(session.id, one)

    @rule(pick=NUMBER, hours=st.integers(0, 12))
    def extend(self, pick: int, hours: int) -> None:
        self._ask("post", pick, "/extend", {"additional_hours": hours})

    @rule(pick=NUMBER, price=st.sampled_from([0.001, 0.5, 12, 32, 33]), rounds=st.integers(0, 2))
    def bid(self, pick: int, price: float, rounds: int) -> None:
        self._ask("post", pick, "/bid", {"bid_price": price})
        self.world.work(rounds, 15)

    @rule(pick=NUMBER)
    def rekey(self, pick: int) -> None:
        self._ask("post", pick, "/rekey", {"ssh_key_type": "ed25519"})

    @rule(pick=NUMBER, busy=st.sampled_from([0, 90]))
    def heartbeat(self, pick: int, busy: int) -> None:
        session = self.world.session(pick)
        mine = [one for one in self.world.machines() if session and session.id in one["env"].values()]
        token = mine[-1]["env"]["GPUBROKER_AGENT_TOKEN"] if mine else "wrong"
        told = {"gpu_utilization": busy, "memory_used_mb": 100, "ssh_connections": 0}
        self._ask("post", pick, "/heartbeat", {"agent_token": token, **told})

    @rule(pick=NUMBER, wrong=st.sampled_from([
        {"reservation_hours": 13}, {"offer_id": "vastai-1"}, {"storage_policy": "keep"}, {"max_price": 0.000001},
        {"ssh_public_key": "ssh-rsa nothing"}, {"disk_gb": 15_999}, {"max_retries": 2}, {"preserve_hours": 2},
    ]))  # fmt: skip
    def refused(self, pick: int, wrong: dict[str, Any]) -> None:
        self.world.create(pick, **wrong)

    def _ask(self, method: str, pick: int, path: str = "", body: Any = None) -> None:
        session = self.world.session(pick)
        if session is not None:
            self.world.call(method, f"/sessions/{session.id}{path}", body)

    # -- time ----------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 3, 10, 40, 120, 700, 1900, 3600, 4 * 3600, 13 * 3600]))
    def nobody_works(self, seconds: int) -> None:
        self.world.advance(seconds)

    @rule(rounds=st.integers(1, 6), seconds=st.sampled_from([1, 5, 20, 60, 600]))
    def work(self, rounds: int, seconds: int) -> None:
        self.world.work(rounds, seconds)

    @rule(minutes=st.sampled_from([-10, -2, 2, 10]))
    def clock_jumps(self, minutes: int) -> None:
        self.world.jump(60 * minutes)

    # -- workers, one by one -------------------------------------------------------------------------

    @rule(pick=NUMBER)
    def one_row(self, pick: int) -> None:
        self.world.step(pick)()

    @rule(pick=NUMBER)
    def one_row_twice(self, pick: int) -> None:
        step = self.world.step(pick)
        step()
        step()

    @rule()
    def tick_whose_tasks_are_lost(self) -> None:
        drive.tick()

    @rule(pick=NUMBER, at=POINT, restart=st.booleans())
    def crash(self, pick: int, at: int, restart: bool) -> None:
        """A worker dies somewhere in a step; then everything is started anew, or the others just go on."""
        step = self.world.step(pick)
        self.world.crashed()
        try:
            with at_point(at, die, everywhere=True):
                step()
        except Crash:
            self.world.crashed()
        if restart:
            drive.recover()

    @rule(
        pick=NUMBER, at=POINT, who=NUMBER, what=st.sampled_from(["delete", "done", "extend", "step", "round", "harm"])
    )
    def meanwhile(self, pick: int, at: int, what: str, who: int) -> None:
        """In the middle of one worker's step somebody else does something."""
        others: dict[str, Callable[[], None]] = {
            "delete": lambda: self.delete(who),
            "done": lambda: self.done(who),
            "extend": lambda: self.extend(who, 1),
            "step": lambda: self.one_row(who),
            "round": self.world.workers.round,
            "harm": lambda: self.harm(who, "offline"),
        }
        with at_point(at, others[what]):
            self.world.step(pick)()

    # -- the marketplace -----------------------------------------------------------------------------

    @rule(fault=FAULT, times=TIMES, rounds=st.integers(0, 3))
    def fault(self, fault: dict[str, Any], times: int, rounds: int) -> None:
        self.world.market.fault(**fault, times=times)
        self.world.work(rounds, 40)

    @rule(lie=st.sampled_from(LIES), times=TIMES, rounds=st.integers(1, 3))
    def a_listing_lies(self, lie: dict[str, Any], times: int, rounds: int) -> None:
        self.world.market.fault(**lie, times=times)
        self.world.work(rounds, 40)

    @rule()
    def faults_end(self) -> None:
        self.world.market.clear_faults()

    @rule(pick=NUMBER, how=st.sampled_from(["offline", "exited", "interrupt", "wipe-keys"]))
    def harm(self, pick: int, how: str) -> None:
        self.world.harm(pick, how)

    @rule(pick=NUMBER, how=st.sampled_from(["outbid", "win"]), rounds=st.integers(0, 4))
    def rivals(self, pick: int, how: str, rounds: int) -> None:
        """Outbid, or the bid wins again."""
        self.world.rivals(pick, how)
        self.world.work(rounds, 15)

    @rule(pick=NUMBER, wish=st.sampled_from(BY_BID))
    def outbid_and_back(self, pick: int, wish: dict[str, Any]) -> None:
        """The whole way, which single steps seldom go."""
        self.create(pick, wish, 4)
        for how in ("outbid", "win"):
            self.rivals(pick, how, 3)

    @rule(pick=NUMBER)
    def somebody_takes_an_offer(self, pick: int) -> None:
        session = self.world.session(pick)
        if session is not None:
            self.world.market.take_offer(session.offer_id.removeprefix("vastai-"))

    @rule(whose=st.sampled_from(["nobody", "person", "other deployment", "nearly ours", "orphan"]))
    def stranger(self, whose: str) -> None:
        self.world.stranger(whose)

    @rule()
    def inventory(self) -> None:
        refresh_offers()

    @rule()
    def until_all_is_calm(self) -> None:
        self.world.calm()

    # -- the rules -----------------------------------------------------------------------------------

    @invariant()
    def rules_hold(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        try:
            self.world.settle_unless_broken()
        finally:
            self.ending.close()
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)


@pytest.fixture(scope="module")
def marketplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """Few offers, as they are read anew for each example; nothing there takes real time."""
    with SandboxProcess(tmp_path_factory.mktemp("sandbox"), boot_seconds=20, offers=24, credit=1_000_000) as process:
        yield process


@pytest.mark.timeout(0 if LONG else 600)
@pytest.mark.django_db
def test_rules_hold_whatever_happens(marketplace: SandboxProcess, settings: Any, time: MovableClock) -> None:
    settings.VASTAI_API_KEY, settings.VASTAI_BASE_URL = marketplace.api_key, marketplace.url
    settings.PROVIDER_PACE, settings.SSH_CHECK_SECONDS = 0, 0.1
    configured.configured.cache_clear()

    def machine() -> Machine:
        return Machine(marketplace, time)

    number = int(os.environ.get("GPUBROKER_SEED", secrets.randbelow(10**9)))
    if LONG:
        print(f"GPUBROKER_SEED={number}")
    run_state_machine_as_test(
        seed(number)(machine) if LONG else machine,  # type: ignore[arg-type]
        settings=hypothesis_settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, derandomize=not LONG, database=None, deadline=None,
            # Where it must be quick, a failure is told as it was found; the long form looks for the shortest.
            phases=[Phase.generate, Phase.shrink] if LONG else [Phase.generate], print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    configured.configured.cache_clear()
    snapshot.forget()
