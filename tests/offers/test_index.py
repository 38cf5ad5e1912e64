"""The index of a snapshot finds exactly what a plain look at every offer finds. No database."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offers import index, selectors
from offers.bits import STEPS, AtLeast, Same, mask_of, places_in
from offers.health import WEIGHTS, Failure, Health, Success
from offers.listed import Listed, freshness, judged
from offers.selectors import Fits, InventoryQuery
from offers.snapshot import RawRows, Snapshot
from providers.gpus import gpu_key

NOW = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)
PROVIDERS = ["vastai", "tensordock"]
GPUS = ["RTX 4090", "A100", "H100 NVL"]
PRICES = [Decimal("0.2"), Decimal("0.200001"), Decimal("0.5"), Decimal("3")]
PLACES = ["sweden, se", "texas, us", "strasse, de", ""]
CUDA = [None, 11.8, 12.4, 13.0]
AGES = [0, 20, 300, 1200]
SIZES = st.sampled_from([0, 1, 7, 63, 64, 65, 200, STEPS + 1, 3 * STEPS])


def offer(dice: random.Random, number: int) -> Listed:
    provider, gpu = dice.choice(PROVIDERS), dice.choice(GPUS)
    offer_id = f"{provider}-{dice.randrange(1000)}-{number}"
    return Listed(
        id=offer_id, provider=provider, gpu_key=gpu_key(gpu), location=dice.choice([*PLACES, f"village {number}, us"]),
        vram_gb=dice.choice([0, 24, 80]), gpu_count=dice.choice([1, 2, 8]), price=dice.choice(PRICES),
        reliability=dice.choice([0.0, 0.5, 1.0, round(dice.random(), 3)]), cuda=dice.choice(CUDA),
        fetched_at=NOW - timedelta(seconds=dice.choice(AGES)), gpu_type=gpu,
        machine=dice.choice([offer_id, f"{provider}:{dice.randrange(6)}"]),
        printed=json.dumps({"id": offer_id}).encode()[:-1] + b',"availability_confidence":', row=0,
    )  # fmt: skip


class Rows(RawRows):
    """The vendors' rows of every other offer."""

    def __init__(self, offers: tuple[Listed, ...]) -> None:
        super().__init__()
        self.rows = {each.id: {"place": place} for place, each in enumerate(offers) if place % 2}

    def get(self) -> Mapping[str, Mapping[str, Any]]:
        return self.rows


def inventory(size: int, seed: int, failed: int) -> Snapshot:
    """So many offers and failures, made up from the seed; few values, so that much is equal."""
    dice = random.Random(seed)
    offers = tuple(sorted((offer(dice, number) for number in range(size)), key=lambda each: (each.price, each.id)))
    failures = [
        Failure(each.machine, each.provider, each.gpu_type, dice.choice(sorted(WEIGHTS)), at)
        for each in (dice.choice([*offers, offer(dice, -1)]) for _ in range(failed))
        for at in [NOW - timedelta(minutes=dice.choice([1, 10, 40, 200]))] * dice.choice([1, 1, 3])
    ]
    health = Health(
        tuple(sorted(failures, key=lambda each: each.at)), (Success("vastai", "A100", NOW - timedelta(minutes=5)),)
    )
    fetched = tuple(sorted({each.fetched_at for each in offers}))
    return Snapshot(version=(), offers=offers, fetched=fetched, health=health, raw=Rows(offers))


def plainly(held: Snapshot, query: InventoryQuery, fits: Fits | None, now: datetime) -> list[tuple[Listed, float]]:
    """All that match, in order: every offer asked about every filter."""
    view, found = held.health.at(now), []
    gpu = None if query.gpu_type is None else gpu_key(query.gpu_type)
    for each in held.offers:
        sure = judged(freshness(each.fetched_at, now), view.factor(each.machine, each.provider, each.gpu_type))
        checks = [
            each.machine not in view.suppressed,
            query.provider in (None, each.provider),
            gpu in (None, each.gpu_key),
            query.location is None or query.location.casefold() in each.location,
            query.min_vram is None or each.vram_gb >= query.min_vram,
            query.max_price is None or each.price <= query.max_price,
            query.min_gpu_count is None or each.gpu_count >= query.min_gpu_count,
            query.min_reliability is None or each.reliability >= query.min_reliability,
            query.min_cuda is None or (each.cuda is not None and each.cuda >= query.min_cuda),
            query.min_availability_confidence is None or sure >= query.min_availability_confidence,
            fits is None or fits(each.provider, held.raw.get().get(each.id, {}), each.fetched_at),
        ]
        found += [(each, sure)] * all(checks)
    return sorted(found, key=lambda match: (match[0].price, -match[1], match[0].id))


def third(provider: str, row: Mapping[str, Any], at: datetime) -> bool:
    return provider == "vastai" and row.get("place", 0) % 3 == 1 and at <= NOW


queries = st.builds(
    InventoryQuery,
    provider=st.none() | st.sampled_from([*PROVIDERS, "nobody"]),
    gpu_type=st.none() | st.sampled_from(["rtx4090", "NVIDIA A100", "T4"]),
    location=st.none() | st.sampled_from(["US", "village 1", "Straße", "e", "", "x"]),
    min_vram=st.none() | st.sampled_from([0, 24, 25, 100_000]),
    max_price=st.none() | st.sampled_from([*PRICES, Decimal(0), Decimal("0.3"), Decimal(9)]),
    min_gpu_count=st.none() | st.integers(0, 9),
    min_reliability=st.none() | st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1),
    min_availability_confidence=st.none() | st.sampled_from([0.0, 0.5, 0.7, 1.0]) | st.floats(0, 1),
    min_cuda=st.none() | st.sampled_from([0.0, 12.4, 12.5, 14.0]),
    limit=st.none() | st.integers(1, 90),
    offset=st.integers(0, 5) | st.integers(0, 900),
)
everything = InventoryQuery()


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(0, 10_000), st.integers(0, 40), queries, st.sampled_from([None, third]), st.floats(0, 60))
@example(3 * STEPS, 1, 0, everything, None, 0)
@example(3 * STEPS, 1, 40, everything, None, 0)
@example(200, 1, 3, InventoryQuery(location="Straße"), None, 0)
@example(0, 1, 3, everything, third, 0)
def test_a_search_finds_what_a_plain_look_at_every_offer_finds(
    size: int, seed: int, failed: int, query: InventoryQuery, fits: Fits | None, minutes: float
) -> None:
    held = inventory(size, seed, failed)
    end = None if query.limit is None else query.offset + query.limit
    later = NOW + timedelta(minutes=minutes)
    told = {now: plainly(held, query, fits, now) for now in (NOW, later)}
    # Twice at one moment and once at another: what is kept of one must not serve the other.
    for now in (NOW, later, NOW):
        matches = told[now]
        page = matches[query.offset : end]
        offers = b",".join(each.printed + json.dumps(sure).encode() + b"}" for each, sure in page)
        rest = f'"count":{len(page)},"total":{len(matches)},"filter_error":"none"}}'.encode()
        found = selectors.search(query, fits, inventory=held, now=now, more={"filter_error": "none"})
        assert found == b'{"offers":[' + offers + b"]," + rest


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(0, 10_000), st.integers(0, 900), st.floats(0, 1))
def test_columns_of_any_size_answer_with_their_places(size: int, seed: int, skip: int, least: float) -> None:
    dice = random.Random(seed)
    values = [dice.choice([0.0, 0.25, round(dice.random(), 3)]) for _ in range(size)]
    large = [place for place, value in enumerate(values) if value >= least]
    assert list(places_in(AtLeast(values).at_least(least), skip)) == large[skip:]
    assert AtLeast(values).at_least(least) == mask_of(large, size)
    wanted = [0.0, 2.0, *values[::5]]
    having = [place for place, value in enumerate(values) if value in wanted]
    assert list(places_in(Same(values).any_of(wanted))) == having


def test_all_that_is_equally_dear_is_ordered_even_beyond_the_page() -> None:
    held = inventory(3 * STEPS, 7, 40)
    pages = [
        json.loads(selectors.search(InventoryQuery(limit=10, offset=offset), inventory=held, now=NOW))["offers"]
        for offset in range(0, 3 * STEPS, 10)
    ]
    expected = [(each.id, sure) for each, sure in plainly(held, everything, None, NOW)]
    assert [(each["id"], each["availability_confidence"]) for page in pages for each in page] == expected


@pytest.mark.parametrize("asked", [1, index.REMEMBERED + 10])
def test_what_is_remembered_of_places_is_bounded_and_right(asked: int) -> None:
    held = inventory(STEPS + 1, 3, 0)
    for _ in range(2):
        for number in range(asked):
            named = [place for place, each in enumerate(held.offers) if f"e {number}" in each.location]
            assert list(places_in(held.index.located(f"E {number}"))) == named
    assert len(held.index._located) <= index.REMEMBERED
