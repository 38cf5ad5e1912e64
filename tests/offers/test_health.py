"""The memory of failed attempts: what it does to confidence, to the list and to what is sold, and how it fades."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.common import clock
from offers import failures, health, snapshot
from offers.health import Degradation, Failure, Health, Success
from offers.models import OfferFailure, OfferSuccess
from tests.harness import Api
from tests.offers.factory import apply, row, version

START = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)
REASONS = sorted(health.WEIGHTS)


def failure(minutes: float, machine: str = "vastai:7", reason: str = "boot_failed") -> Failure:
    return Failure(machine, "vastai", "RTX 4090", reason, START + timedelta(minutes=minutes))


histories = st.lists(
    st.builds(failure, st.floats(0, 240), st.sampled_from(["vastai:1", "vastai:2"]), st.sampled_from(REASONS)),
    max_size=12,
)
moments = st.floats(0, 600).map(lambda minutes: START + timedelta(minutes=minutes))


@given(histories, moments, st.floats(0, 300))
def test_confidence_comes_back_with_time(history: list[Failure], at: datetime, later: float) -> None:
    known = [seen for seen in history if seen.at <= at]
    now, then = health.machine_factor(known, at), health.machine_factor(known, at + timedelta(minutes=later))
    assert 0 < now <= then <= 1


@given(histories, moments, st.floats(0, 240), st.sampled_from(REASONS))
def test_one_more_failure_never_helps(history: list[Failure], at: datetime, minutes: float, reason: str) -> None:
    more = [*history, failure(minutes, reason=reason)]
    assert health.machine_factor(more, at) <= health.machine_factor(history, at)
    before, after = health.suppressed_until(history), health.suppressed_until(more)
    assert before is None or (after is not None and after >= before)


@given(histories, moments)
def test_a_view_is_the_same_within_a_step(history: list[Failure], at: datetime) -> None:
    known = Health(tuple(sorted(history, key=lambda seen: seen.at)))
    assert known.at(at) == known.at(health.stepped(at))
    assert known.step(at) == known.step(health.stepped(at))


@given(histories)
def test_suppression_ends_half_an_hour_after_the_last_failure(history: list[Failure]) -> None:
    until = health.suppressed_until(history)
    assert until is None or until <= max(seen.at for seen in history) + health.SUPPRESS_FOR
    strong = sum(seen.weight for seen in history)
    assert until is None or strong >= health.SUPPRESS_AT


def test_a_failure_halves_and_is_half_forgotten_in_half_an_hour() -> None:
    assert health.machine_factor([], START) == 1.0
    assert health.machine_factor([failure(0)], START) == 0.5
    assert health.machine_factor([failure(0)], START + timedelta(minutes=30)) == pytest.approx(0.5**0.5)
    assert health.machine_factor([failure(0), failure(0)], START) == 0.25
    assert health.machine_factor([failure(0, reason="offer_gone")], START) == pytest.approx(0.5**0.5)
    assert health.machine_factor([failure(0, reason="no_credit")], START) == 1.0


@pytest.mark.parametrize(
    ("minutes", "until"),
    [([0, 10], None), ([0, 10, 20], 50), ([0, 15, 31], None), ([0, 1, 2, 29], 59), ([0, 1, 2, 100], 32)],
)
def test_three_within_half_an_hour_suppress(minutes: list[float], until: float | None) -> None:
    found = health.suppressed_until([failure(at) for at in minutes])
    assert found == (None if until is None else START + timedelta(minutes=until))


def test_weak_reasons_count_half() -> None:
    weak = [failure(at, reason="refused") for at in range(5)]
    assert health.suppressed_until(weak) is None
    assert health.suppressed_until([*weak, failure(5, reason="create_lost")]) == START + timedelta(minutes=35)


def test_a_gpu_type_is_degraded_only_by_three_machines() -> None:
    successes = [Success("vastai", "RTX 4090", START)] * 3
    two = [failure(0, "vastai:1"), failure(0, "vastai:2"), failure(0, "vastai:2")]
    key = ("vastai", "RTX 4090")
    assert health.degradations(two, successes, START)[key] == Degradation(failed=3, attempts=6, machines=2)
    assert health.degradations(two, successes, START)[key].factor == 1.0
    three = [*two, failure(0, "vastai:3")]
    assert health.degradations(three, successes, START)[key].factor == pytest.approx(1 - 0.5 * 4 / 7)
    assert health.degradations(three, [], START)[key].factor == 0.5
    assert health.degradations(three, successes, START + timedelta(hours=1)) == {}


# -- in the inventory ------------------------------------------------------------------------------------


def fails(offer_id: str = "vastai-1", machine_id: str = "7", reason: str = "boot_failed", times: int = 1) -> None:
    for _ in range(times):
        assert failures.record_failure(
            provider="vastai", offer_id=offer_id, machine_id=machine_id, gpu_type="RTX 4090", reason=reason,
            message="secret-image: no such image",
        )  # fmt: skip
    snapshot.forget()


class StillClock:
    """Moves only when told, so that factors come out to the digit."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def still() -> Iterator[StillClock]:
    stopped = StillClock()
    with clock.use(stopped):
        yield stopped


@pytest.fixture
def two_machines(still: StillClock) -> StillClock:
    """A slice and a double slice of machine 7, and another machine."""
    apply([row("1"), row("2", gpu_count=2), row("3", machine_id="8")])
    return still


def listed(api: Api) -> dict[str, float]:
    return {offer["id"]: offer["availability_confidence"] for offer in api.get("/inventory")["offers"]}


@pytest.mark.django_db
def test_a_failure_lowers_all_offers_of_its_machine(api: Api, two_machines: StillClock) -> None:
    before = version()
    fails()
    assert version() == before + 1
    assert listed(api) == {"vastai-1": 0.5, "vastai-2": 0.5, "vastai-3": 1.0}
    assert api.get("/inventory/vastai-2")["availability_confidence"] == 0.5
    assert api.get("/inventory", min_availability_confidence=0.6)["total"] == 1


@pytest.mark.django_db
def test_it_fades_without_a_query(api: Api, two_machines: StillClock) -> None:
    fails()
    assert listed(api)["vastai-1"] == 0.5
    two_machines.advance(minutes=2)
    with CaptureQueriesContext(connection) as captured:
        assert listed(api)["vastai-1"] == 0.52
    assert [query["sql"] for query in captured if "offerfailure" in query["sql"].lower()] == []


@pytest.mark.django_db
def test_three_failures_take_the_machine_off_the_market(api: Api, two_machines: StillClock) -> None:
    fails(times=3)
    assert list(listed(api)) == ["vastai-3"]
    assert api.get("/inventory/vastai-1", 404)["error"] == "offer vastai-1 not found"
    assert api.create(404, offer_id="vastai-2")["offer_id"] == "vastai-2"
    two_machines.advance(minutes=30)
    assert sorted(listed(api)) == ["vastai-1", "vastai-2", "vastai-3"]
    assert api.get("/inventory/vastai-1")["available"] is True


@pytest.mark.django_db
def test_what_says_nothing_of_the_machine_is_not_remembered(two_machines: StillClock) -> None:
    before = version()
    for reason in ("no_credit", "provider_auth", "provider_unavailable", "price", "deleted"):
        assert not failures.record_failure(
            provider="vastai", offer_id="vastai-1", machine_id="7", gpu_type="RTX 4090", reason=reason
        )
    assert not OfferFailure.objects.exists()
    assert version() == before


@pytest.mark.django_db
def test_a_nameless_machine_is_known_by_its_offer(api: Api, still: StillClock) -> None:
    apply([row("1", machine_id=""), row("2", machine_id="")])
    fails(machine_id="", times=3)
    assert list(listed(api)) == ["vastai-2"]
    machine = api.get("/offer-health")["machines"][0]
    assert (machine["machine_id"], machine["offers"]) == ("", ["vastai-1"])


@pytest.mark.django_db
def test_offer_health(api: Api, two_machines: StillClock) -> None:
    assert api.get("/offer-health") == {"machines": [], "gpu_types": [], "count": 0, "total": 0}
    fails(times=3)
    two_machines.advance(minutes=1)
    fails("vastai-3", "8", "boot_timeout")
    failures.record_successes([failures.Worked("vastai", "vastai-3", "8", "RTX 4090")])
    answer = api.get("/offer-health")
    assert [machine["machine_id"] for machine in answer["machines"]] == ["8", "7"]
    seven = answer["machines"][1]
    assert seven == {
        "provider": "vastai", "machine_id": "7", "offers": ["vastai-1", "vastai-2"], "gpu_type": "RTX 4090",
        "failures_30_min": 3, "failures": 3, "last_reason": "boot_failed", "confidence_factor": 0.13,
        "last_failure_at": "2026-01-29T12:00:00Z", "suppressed_until": "2026-01-29T12:30:00Z",
    }  # fmt: skip
    assert answer["machines"][0]["suppressed_until"] is None
    assert answer["gpu_types"] == [{
        "provider": "vastai", "gpu_type": "RTX 4090", "failed": 4, "attempts": 5, "machines": 2,
        "confidence_factor": 1.0,
    }]  # fmt: skip
    assert "secret-image" not in str(answer)
    page = api.get("/offer-health", limit=1, offset=1)
    assert ([machine["machine_id"] for machine in page["machines"]], page["count"], page["total"]) == (["7"], 1, 2)
    assert api.get("/offer-health", 400, limit="0")["field"] == "limit"


@pytest.mark.django_db
def test_old_rows_are_forgotten(two_machines: StillClock) -> None:
    fails()
    failures.record_successes([failures.Worked("vastai", "vastai-1", "7", "RTX 4090")])
    two_machines.advance(days=29)
    fails()
    assert failures.purge() == 0
    two_machines.advance(days=2)
    assert failures.purge() == 2
    assert (OfferFailure.objects.count(), OfferSuccess.objects.count()) == (1, 0)
