"""The core under random histories: bills, GPUs and offers always add up, whatever happens in which order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.sandbox import billing
from providers.sandbox.engine import Engine
from providers.sandbox.instances import Contract
from providers.sandbox.options import Options
from providers.sandbox.orders import Order

BOOT = 60.0
START = 1_790_000_000.0


class HandClock:
    """Time that moves when told."""

    speed = 1.0

    def __init__(self) -> None:
        self.time = START

    def now(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


@contextmanager
def an_engine(credit: float = 1e6) -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as folder:
        options = Options(Path(folder), boot_seconds=BOOT, offers=20, credit=credit)
        engine = Engine(options, lambda: "host key", HandClock())
        yield engine
        engine.close()


def rent(engine: Engine, place: int = 0, start: bool = True) -> Contract:
    account = engine.ledger.accounts()[0]
    asks = sorted(engine.market.asks)
    order = Order("a:1", "ssh ssh_direc ssh_proxy", 10.0, label="x", ports=["22/tcp"], start=start)
    return engine.rent(account, engine.market.asks[asks[place % len(asks)]], order)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["rent", "rent", "stop", "start", "destroy", "reboot", "exit", "offline", "withdraw"]),
        st.integers(0, 50),
        st.floats(0, 7200),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_bills_and_gpus_add_up(steps: list[tuple[str, int, float]]) -> None:
    with an_engine() as engine:
        gpu: dict[int, float] = {}
        disk: dict[int, float] = {}
        made: dict[int, Contract] = {}
        on_sale, gone = set(engine.market.asks), set[int]()
        for what, place, seconds in steps:
            live = list(engine.ledger.live.values())
            if what == "rent":
                contract = rent(engine, place)
                made[contract.id] = contract
                gpu[contract.id] = disk[contract.id] = 0.0
            elif what == "withdraw":
                engine.market.withdraw(sorted(engine.market.asks)[place % len(engine.market.asks)])
            elif live:
                act(engine, what, live[place % len(live)])
            spend(engine, seconds, gpu, disk)
            engine.clock.advance(seconds)
            engine.tick()
            check_gpus(engine)
            gone |= on_sale - set(engine.market.asks)
            on_sale = set(engine.market.asks)
            assert on_sale.isdisjoint(gone)
        now = engine.clock.now()
        for contract_id, contract in made.items():
            assert contract.dollars("gpu", now) == pytest.approx(gpu[contract_id], abs=1e-6)
            assert contract.dollars("disk", now) == pytest.approx(disk[contract_id], abs=1e-6)
        credit = engine.credit(engine.ledger.accounts()[0])
        assert credit == pytest.approx(1e6 - sum(gpu.values()) - sum(disk.values()))


def act(engine: Engine, what: str, contract: Contract) -> None:
    if what == "stop":
        engine.stop(contract)
    elif what == "start":
        engine.start(contract)
    elif what == "destroy":
        engine.destroy(contract)
    elif what == "reboot":
        engine.reboot(contract)
    else:
        engine.halt(contract, "offline" if what == "offline" else "exited", None)


def spend(engine: Engine, seconds: float, gpu: dict[int, float], disk: dict[int, float]) -> None:
    """The next ``seconds`` in the plainest way: nothing changes by itself but boots that end."""
    now = engine.clock.now()
    for contract in engine.ledger.live.values():
        if contract.halted != "offline":
            disk[contract.id] += seconds / 3600 * contract.disk_rate
        if contract.current == "running" and not contract.halted:
            booting = max(0.0, contract.boot_done_at - now) if contract.boot_kind == "boot" else 0.0
            gpu[contract.id] += max(0.0, seconds - booting) / 3600 * contract.gpu_rate


def check_gpus(engine: Engine) -> None:
    """No GPU is rented twice, none is offered that is rented, and every free one of a size on sale is offered."""
    for machine in engine.market.machines.values():
        free = engine.market.free_gpus(machine.id)
        assert 0 <= free <= machine.gpus
        offered = sorted(ask.num_gpus for ask in engine.market.asks.values() if ask.machine.id == machine.id)
        assert offered == sorted(size for size in machine.slices if size <= free)


def test_credit_runs_dry_at_the_very_moment_even_if_nobody_looked() -> None:
    with an_engine(credit=1.0) as engine:
        contract = rent(engine)
        engine.clock.advance(100 * 3600)
        engine.tick()
        hours_of_disk = 100 * contract.disk_rate
        assert contract.current == "stopped"
        end = contract.spans[1].end
        assert end is not None
        assert billing.cost(contract, end) == pytest.approx(1.0, abs=1e-6)
        assert engine.credit(engine.ledger.accounts()[0]) < 0
        assert contract.dollars("disk", engine.clock.now()) == pytest.approx(hours_of_disk)


def test_a_contract_survives_its_json() -> None:
    with an_engine() as engine:
        contract = rent(engine)
        again = Contract.from_json(contract.to_json())
        assert again == contract
        assert replace(again, label="y") != contract


def test_a_market_of_another_size_is_dealt_anew_and_contracts_stay(tmp_path: Path) -> None:
    first = Engine(Options(tmp_path, offers=20), lambda: "k", HandClock())
    contract = rent(first)
    asks = set(first.market.asks)
    first.close()
    second = Engine(Options(tmp_path, offers=40), lambda: "k", HandClock())
    assert asks.isdisjoint(second.market.asks)
    assert [c.id for c in second.ledger.live.values()] == [contract.id]
    second.close()
