"""Others who bid for the machines that we bid for (Vast.ai contract, section 4.8)."""

from __future__ import annotations

from providers.sandbox.engine import Engine
from providers.sandbox.instances import Contract


def outbid(engine: Engine, contract: Contract, price: float | None = None, intended: str = "stopped") -> None:
    """Somebody pays ``price`` dollars per hour (a quarter more than the bid) and has its GPUs from now on: the machine
    stops, its disk is kept and billed. ``intended``: wanted "stopped", as the vendor has been seen to write, or
    "running", and then it is back as soon as it wins."""
    contract.rival_bid = price if price is not None else round((contract.bid or 0.0) * 1.25 + 0.01, 4)
    engine.stop(contract)
    contract.intended = intended
    engine.ledger.save(contract)


def win(engine: Engine, contract: Contract, *, move: bool = False) -> None:
    """Whoever bid more is gone; a machine that is wanted runs again. ``move``: it has other ports from now on."""
    contract.rival_bid = 0.0
    if move:
        _move(engine, contract)
    engine.ledger.save(contract)
    engine.market.deal(contract.machine_id)
    engine.tick()


def _move(engine: Engine, contract: Contract) -> None:
    answering = {*contract.ssh_ports, *contract.http_ports}
    engine.release_ports(contract)
    for inside, outside in contract.ports.items():
        if outside in answering:
            contract.ports[inside] = engine.ports.reserve()
    if contract.proxy_port:
        contract.proxy_port = engine.ports.reserve() - (contract.answering_proxy - contract.proxy_port)
