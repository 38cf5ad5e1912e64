"""The breaker of a provider account, the room in one process, and how both stand in the gate's way."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from gpubroker.common import breaker
from gpubroker.common import providers as configured
from gpubroker.common.gate import DatabaseGate
from gpubroker.common.lanes import MOST_CALLS, MOST_URGENT, Lanes, lanes
from gpubroker.common.models import ProviderBreaker
from providers.base import GateHeld
from providers.errors import GateClosed, Unavailable
from tests.harness import MovableClock
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch, time: MovableClock) -> MovableClock:
    """A clock that stands until it is moved: the time of the test's beginning and no more."""
    began = time()
    monkeypatch.setattr(MovableClock, "__call__", lambda self: began + self.offset)
    return time


def fail(times: int, operation: str = "list_offers", error: str = "unavailable") -> None:
    for _ in range(times):
        breaker.note("vastai", operation, error)


def held() -> float:
    """Seconds for which an ordinary call is held; 0: it passes."""
    try:
        breaker.check("vastai")
        breaker.enter("vastai")
    except GateHeld as error:
        return error.retry_after
    return 0.0


def row() -> ProviderBreaker:
    return ProviderBreaker.objects.get(provider="vastai")


def test_four_failures_and_an_answer_leave_it_closed(still: MovableClock) -> None:
    for _ in range(3):
        fail(breaker.FAILURES - 1)
        breaker.note("vastai", "list_instances", "")
    assert held() == 0
    assert (row().failures, row().open_until) == (0, None)


def test_five_in_a_row_open_it(still: MovableClock) -> None:
    fail(2, error="outcome_unknown")
    fail(3)
    assert held() == pytest.approx(1.0)
    assert (row().failures, row().last_error) == (5, "list_offers: unavailable")


@pytest.mark.parametrize(
    "error", ["rate_limited", "auth_error", "offer_gone", "insufficient_credit", "malformed_answer"]
)
def test_whoever_refuses_is_well(still: MovableClock, error: str) -> None:
    fail(breaker.FAILURES - 1)
    breaker.note("vastai", "create", error)
    fail(breaker.FAILURES - 1)
    assert held() == 0


@pytest.mark.parametrize("error", ["gate_closed", "internal_error"])
def test_silence_says_nothing(still: MovableClock, error: str) -> None:
    fail(breaker.FAILURES - 1)
    breaker.note("vastai", "create", error)
    assert row().failures == breaker.FAILURES - 1
    fail(1)
    assert held() > 0


def test_one_call_tries_and_closes_it(still: MovableClock) -> None:
    fail(breaker.FAILURES)
    still.advance(seconds=1)
    assert held() == 0
    assert held() == pytest.approx(1.0), "a second one was let through beside the first"
    breaker.note("vastai", "list_offers", "")
    assert held() == 0
    assert (row().failures, row().trips, row().open_until, row().trying) == (0, 0, None, False)


def test_pauses_grow_to_a_minute(still: MovableClock) -> None:
    fail(breaker.FAILURES)
    pauses = []
    for _ in range(8):
        pauses.append(held())
        still.advance(seconds=pauses[-1])
        assert held() == 0
        fail(1)
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


def test_who_went_to_try_and_died_is_replaced(still: MovableClock) -> None:
    fail(breaker.FAILURES)
    still.advance(seconds=1)
    assert held() == 0
    still.advance(seconds=breaker.TRIAL_LEASE.total_seconds() - 1)
    assert held() == pytest.approx(1.0)
    still.advance(seconds=1)
    assert held() == 0


def test_late_failures_and_destroys_do_not_prolong_it(still: MovableClock) -> None:
    fail(breaker.FAILURES)
    fail(10)
    fail(10, operation="destroy")
    assert held() == pytest.approx(1.0)
    still.advance(seconds=1)
    assert held() == 0
    fail(10, operation="destroy_many")
    assert row().trying, "a destroy's failure was taken for the trial's"


def test_destroy_that_is_answered_closes_it_for_all(still: MovableClock) -> None:
    fail(breaker.FAILURES)
    breaker.note("vastai", "destroy", "")
    assert held() == 0


def test_providers_do_not_share_it(still: MovableClock) -> None:
    fail(breaker.FAILURES)
    breaker.check("tensordock")
    breaker.enter("tensordock")


@pytest.mark.parametrize("endpoint", ["destroy", "get_instance"])
def test_debts_pass_an_open_breaker(still: MovableClock, endpoint: str) -> None:
    fail(breaker.FAILURES)
    gate = DatabaseGate()
    with pytest.raises(GateHeld, match=r"held for 1\.000 s"):
        gate.acquire("vastai:create", 0)
    gate.acquire(f"vastai:{endpoint}", 0)
    lanes.leave()


def test_held_call_takes_no_slot(still: MovableClock) -> None:
    fail(breaker.FAILURES)
    gate = DatabaseGate()
    for _ in range(3):
        with pytest.raises(GateHeld):
            gate.acquire("vastai:list_offers", 60)
    still.advance(seconds=1)
    gate.acquire("vastai:list_offers", 60)
    lanes.leave()


def test_calls_are_refused_at_once_and_come_back(sandbox: SandboxProcess, still: MovableClock) -> None:
    """Over the wire: five 5xx, then not one call reaches the provider until the pause is over."""
    sandbox.fault("error_5xx", operation="list", status=503, times=breaker.FAILURES)
    provider = configured.get("vastai")
    for _ in range(breaker.FAILURES):
        with pytest.raises(Unavailable):
            provider.list_instances()
    with pytest.raises(GateClosed, match="held back: 5 failures in a row") as refused:
        provider.list_instances()
    assert refused.value.retry_after == pytest.approx(1.0)
    still.advance(seconds=1)
    assert provider.list_instances().instances == ()
    assert row().open_until is None


# -- room in one process --------------------------------------------------------------------------------


def entered(room: Lanes, urgent: bool, provider: str = "vastai") -> bool:
    """In a thread of its own, which then ends without leaving: a call that hangs."""
    result: list[Any] = []

    def call() -> None:
        try:
            room.enter(provider, urgent=urgent)
            result.append(True)
        except GateHeld:
            result.append(False)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(10)
    return bool(result[0])


def test_deaf_provider_gets_half_the_threads_and_its_destroys_some_more() -> None:
    room = Lanes()
    assert [entered(room, False) for _ in range(MOST_CALLS + 1)] == [True] * MOST_CALLS + [False]
    assert [entered(room, True) for _ in range(MOST_URGENT + 1)] == [True] * MOST_URGENT + [False]
    assert entered(room, False, "tensordock")


def test_one_thread_has_one_place() -> None:
    room = Lanes()
    for _ in range(MOST_CALLS + 5):
        room.enter("vastai", urgent=False)
    room.leave()
    room.leave()
    assert [entered(room, False) for _ in range(MOST_CALLS + 1)] == [True] * MOST_CALLS + [False]
