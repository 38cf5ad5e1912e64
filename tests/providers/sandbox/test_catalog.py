"""The generated market is believable, and the same for the same seed."""

from __future__ import annotations

from providers.sandbox.catalog import machines
from providers.sandbox.hardware import MODELS


def test_same_seed_same_market_other_seed_other_market() -> None:
    assert machines(7, 320) == machines(7, 320)
    assert machines(7, 320) != machines(8, 320)


def test_enough_verified_slices_and_all_kinds_of_machines() -> None:
    market = list(machines(7, 320).values())
    assert sum(len(m.slices) for m in market if m.visible) >= 320
    assert {m.verification for m in market} == {"verified", "unverified", "deverified"}
    assert {m.datacenter for m in market} == {True, False}
    assert {m.gpus for m in market} >= {1, 2, 4, 8}
    assert any(m.facts["direct_port_count"] == 0 for m in market)
    assert any(m.facts["cpu_cores"] is None for m in market)
    assert any(m.place is None for m in market)
    assert any(m.days_left is None for m in market)
    assert len({m.place for m in market}) >= 35
    assert len({m.model.name for m in market}) >= 25


def test_prices_lie_in_the_range_of_their_model() -> None:
    for machine in machines(3, 320).values():
        assert machine.model.price_low <= machine.gpu_price <= machine.model.price_high
        assert 0 < machine.bid_price < machine.gpu_price
        assert all(size <= machine.gpus for size in machine.slices)
        assert machine.slices[0] == machine.gpus


def test_models_are_distinct_by_name_and_memory() -> None:
    pairs = [(m.name, m.memory_mb) for m in MODELS]
    assert len(pairs) == len(set(pairs)) >= 35
