import pytest

from providers.base import GateHeld
from providers.gates import LocalGate


class Time:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def gate(time: Time) -> LocalGate:
    return LocalGate(monotonic=time.monotonic, sleep=time.sleep)


def test_a_second_call_is_held_until_the_interval_is_over(gate: LocalGate, time: Time) -> None:
    gate.acquire("create", 4.5)
    time.now += 1.5
    with pytest.raises(GateHeld) as held:
        gate.acquire("create", 4.5)
    assert held.value.retry_after == pytest.approx(3.0)
    time.now += 3.0
    gate.acquire("create", 4.5)
    assert time.slept == []


def test_a_refused_call_takes_no_slot(gate: LocalGate, time: Time) -> None:
    gate.acquire("create", 4.5)
    for _ in range(3):
        with pytest.raises(GateHeld):
            gate.acquire("create", 4.5)
    time.now += 4.5
    gate.acquire("create", 4.5)


def test_waiting_callers_line_up(gate: LocalGate, time: Time) -> None:
    gate.acquire("list", 2.0)
    gate.acquire("list", 2.0, wait=5.0)
    gate.acquire("list", 2.0, wait=5.0)
    assert time.slept == [pytest.approx(2.0), pytest.approx(2.0)]


def test_keys_do_not_hold_each_other(gate: LocalGate) -> None:
    gate.acquire("create", 4.5)
    gate.acquire("destroy", 3.0)


def test_pushing_out_never_brings_nearer(gate: LocalGate, time: Time) -> None:
    gate.push_out("create", 10.0)
    gate.push_out("create", 2.0)
    with pytest.raises(GateHeld) as held:
        gate.acquire("create", 4.5)
    assert held.value.retry_after == pytest.approx(10.0)
