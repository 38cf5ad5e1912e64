"""What is on sale: every free slice of every machine is an ask, and a slice taken re-deals its machine's asks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from providers.sandbox.catalog import DAY, Machine, machines
from providers.sandbox.ledger import Ledger

#: Offer ids begin here; contract ids are far above.
FIRST_ASK = 21_480_000
_EPOCH = "market_epoch"
#: Of a model, what only the generator needs.
_ODDS = frozenset({"sizes", "weight", "price_low", "price_high"})


@dataclass(frozen=True, slots=True)
class Ask:
    """``num_gpus`` of a machine, on sale. Renting it takes its id off the market for ever."""

    id: int
    machine: Machine
    num_gpus: int

    @property
    def least_bid(self) -> float:
        """Dollars per hour for all its GPUs, as rows show it."""
        return round(self.machine.bid_price * self.num_gpus, 4)

    def describe(self, epoch: float) -> dict[str, Any]:
        """The slice in the sandbox's own words; a contract keeps this, each face renders its rows from it."""
        machine = asdict(self.machine)
        machine.pop("id")
        machine.pop("slices")
        facts = machine.pop("facts")
        model = {name: value for name, value in machine.pop("model").items() if name not in _ODDS}
        days = machine.pop("days_left")
        return {
            **machine,
            **facts,
            "model": model,
            "ask_id": self.id,
            "machine_id": self.machine.id,
            "machine_gpus": self.machine.gpus,
            "num_gpus": self.num_gpus,
            "listed_at": epoch,
            "end_date": None if days is None else epoch + days * DAY,
        }


class Market:
    """The asks, in the ledger and in memory."""

    def __init__(self, ledger: Ledger, seed: int, offers: int) -> None:
        self._ledger = ledger
        self._size = (seed, offers)
        self.machines: dict[int, Machine] = {}
        self.asks: dict[int, Ask] = {}
        self.epoch = 0.0
        self._described: dict[int, dict[str, Any]] = {}
        self._of_machine: dict[int, list[int]] = {}

    def open(self, now: float) -> None:
        """Load the market of this seed and size; another one than last time is dealt anew."""
        self.machines = self.machines or machines(*self._size)
        name = f"{self._size[0]}:{self._size[1]}"
        rows = self._ledger.asks()
        known = all(machine_id in self.machines for _, machine_id, _ in rows)
        if self._ledger.get_meta("market") != name or not rows or not known:
            self._ledger.set_meta("market", name)
            self._ledger.set_meta(_EPOCH, repr(now))
            self._ledger.clear_asks()
            self.asks.clear()
            self._described.clear()
            self._of_machine.clear()
            with self._ledger.together():
                for machine_id in self.machines:
                    self.deal(machine_id)
        else:
            for id_, machine_id, gpus in rows:
                self._offer(Ask(id_, self.machines[machine_id], gpus))
        self.epoch = float(self._ledger.get_meta(_EPOCH) or now)

    def free_gpus(self, machine_id: int) -> int:
        """Neither ours nor of somebody who bids more than one of us does."""
        ours = (c for c in self._ledger.live.values() if c.machine_id == machine_id)
        taken = sum(c.num_gpus for c in ours if c.holds_gpus or c.rival_bid)
        machine = self.machines.get(machine_id)
        return machine.gpus - taken if machine else 0

    def described(self, ask: Ask) -> dict[str, Any]:
        """``ask.describe()``, kept: faces may keep what they derive from it there too, under an underscore."""
        found = self._described.get(ask.id)
        if found is None:
            found = self._described[ask.id] = ask.describe(self.epoch)
        return found

    def deal(self, machine_id: int) -> None:
        """Offer what is free of a machine under new ids; the old ids are gone."""
        machine = self.machines.get(machine_id)
        if machine is None:
            return
        for id_ in self._of_machine.pop(machine_id, []):
            del self.asks[id_]
            self._described.pop(id_, None)
        free = self.free_gpus(machine_id)
        sizes = [size for size in machine.slices if size <= free]
        last = self._ledger.next_number("ask", FIRST_ASK, 3 * max(1, len(sizes)))
        dealt = [Ask(last - 3 * place, machine, size) for place, size in enumerate(sizes)]
        self._ledger.replace_asks(machine_id, [(ask.id, ask.num_gpus) for ask in dealt])
        for ask in dealt:
            self._offer(ask)

    def _offer(self, ask: Ask) -> None:
        self.asks[ask.id] = ask
        self._of_machine.setdefault(ask.machine.id, []).append(ask.id)

    def withdraw(self, ask_id: int) -> bool:
        """Somebody else took it: the whole machine is dealt anew."""
        ask = self.asks.get(ask_id)
        if ask is None:
            return False
        self.deal(ask.machine.id)
        return True
