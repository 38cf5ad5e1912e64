"""What everything costs, computed from the spans whenever somebody asks: no meter runs between questions."""

from __future__ import annotations

from dataclasses import dataclass

from providers.sandbox.instances import Contract, Span
from providers.sandbox.ledger import Account, Ledger


def cost(contract: Contract, until: float) -> float:
    """Dollars of a contract so far: GPU, disk and traffic."""
    return sum(span.dollars(until) for span in contract.spans)


def credit(ledger: Ledger, account: Account, at: float) -> float:
    """Dollars left to spend; may be below zero, because a disk is billed even then."""
    paid, spent = ledger.balance_of(account.id)
    return paid - spent - sum(cost(contract, at) for contract in ledger.live_of(account.id))


def ran_dry_at(ledger: Ledger, account: Account, since: float, now: float) -> float:
    """When, between two moments, the credit reached zero. It only ever sinks in between, so halving finds it."""
    low, high = min(since, now), now
    for _ in range(48):
        middle = (low + high) / 2
        if credit(ledger, account, middle) > 0:
            low = middle
        else:
            high = middle
    return high


def use_traffic(contract: Contract, dollars: float, at: float) -> None:
    """It has just received so much, which is billed by volume: a second at that price."""
    contract.spans.append(Span("bwd", at - 1, dollars * 3600, at))


def close_spans(contract: Contract, kinds: tuple[str, ...], at: float) -> None:
    for span in contract.spans:
        if span.kind in kinds and span.end is None:
            span.end = at


@dataclass(frozen=True, slots=True)
class Charge:
    """What one contract cost within a stretch of time."""

    contract: Contract
    start: float
    end: float
    gpu: float
    disk: float
    traffic: float

    @property
    def total(self) -> float:
        return self.gpu + self.disk + self.traffic


def charges(ledger: Ledger, account: Account, since: float, until: float) -> list[Charge]:
    """One charge for each of the account's contracts, dead or alive, that cost something in the stretch."""
    found = []
    for contract in ledger.all_contracts(account.id):
        gpu, disk, traffic = (contract.dollars(kind, until, since) for kind in ("gpu", "disk", "bwd"))
        if gpu or disk or traffic:
            end = until if contract.destroyed_at is None else min(until, contract.destroyed_at)
            found.append(Charge(contract, max(since, contract.created_at), end, gpu, disk, traffic))
    return found
