"""The shared pieces: gate, counters, secrets, SSH keys, ids, money."""

from __future__ import annotations

import json
import re
import threading
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connections
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.common import clock, counters, crypto, ids, money, sshkeys
from gpubroker.common.gate import MOST_SLACK, DatabaseGate
from gpubroker.common.models import Counter, ProviderGate
from gpubroker.common.renderers import JSONRenderer
from providers.base import GateHeld
from tests.harness import MovableClock


@pytest.mark.django_db
def test_gate_spaces_calls(time: MovableClock) -> None:
    gate = DatabaseGate()
    gate.acquire("vastai:create", 4.5)
    with pytest.raises(GateHeld) as held:
        gate.acquire("vastai:create", 4.5)
    assert 4.5 < held.value.retry_after <= 4.5 + MOST_SLACK
    gate.acquire("vastai:destroy", 3)
    time.advance(seconds=4.5 + MOST_SLACK)
    gate.acquire("vastai:create", 4.5)


@pytest.mark.django_db
def test_gate_waits_only_within_its_budget(time: MovableClock) -> None:
    gate = DatabaseGate()
    gate.acquire("list", 0.2)
    gate.acquire("list", 0.2, wait=1)
    with pytest.raises(GateHeld):
        gate.acquire("list", 0.2, wait=0.01)


@pytest.mark.django_db
def test_gate_pushed_out_by_a_429(time: MovableClock) -> None:
    gate = DatabaseGate()
    gate.push_out("create", 30)
    with pytest.raises(GateHeld):
        gate.acquire("create", 0)
    time.advance(seconds=31)
    gate.acquire("create", 0)
    gate.push_out("create", 9)
    assert ProviderGate.objects.get().next_allowed_at > clock.now() + timedelta(seconds=8)


@pytest.mark.django_db(transaction=True)
def test_gate_lets_one_of_many_threads_through() -> None:
    passed: list[str] = []
    start = threading.Barrier(8)

    def try_once() -> None:
        start.wait()
        try:
            DatabaseGate().acquire("create", 60)
            passed.append("through")
        except GateHeld:
            passed.append("held")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=try_once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(passed) == ["held"] * 7 + ["through"]


@pytest.mark.django_db
def test_counters_add_up_by_label() -> None:
    counters.increment("x_total", provider="vastai")
    counters.increment("x_total", 2, provider="vastai")
    counters.increment("x_total", provider="tensordock")
    rows = {row.labels: row.value for row in Counter.objects.filter(name="x_total")}
    assert rows == {'{"provider": "vastai"}': 3, '{"provider": "tensordock"}': 1}


def test_secrets_are_sealed_and_keys_rotate(settings: Any) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.ENCRYPTION_KEYS = [old]
    sealed = crypto.seal("secret text")
    assert "secret" not in sealed
    settings.ENCRYPTION_KEYS = [new, old]
    assert crypto.unseal(sealed) == "secret text"
    settings.ENCRYPTION_KEYS = [new]
    with pytest.raises(crypto.SecretUnreadable, match="ENCRYPTION_KEYS"):
        crypto.unseal(sealed)


@pytest.mark.parametrize(
    ("kind", "head"), [("rsa", "-----BEGIN RSA PRIVATE KEY-----"), ("ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----")]
)
def test_key_pairs(kind: str, head: str) -> None:
    pair = sshkeys.generate(kind, "sess-a")
    assert pair.private.startswith(head)
    assert pair.private not in repr(pair)
    assert sshkeys.checked_public_key(f"  {pair.public}\n") == pair.public


@given(st.text(max_size=200))
def test_no_text_crashes_the_key_check(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        sshkeys.checked_public_key(text)


def test_ids_fit_into_labels() -> None:
    assert re.fullmatch(r"sess-[a-z2-7]{16}", ids.new_session_id())
    assert re.fullmatch(r"[a-z2-7]{8}", ids.new_deployment_id())
    assert len({ids.new_session_id() for _ in range(1000)}) == 1000


@given(st.decimals(-1_000_000, 1_000_000, places=9))
def test_money_is_rounded_half_up_to_a_millionth(amount: Decimal) -> None:
    assert abs(money.quantize(amount) - amount) <= Decimal("0.0000005")
    assert money.quantize(money.quantize(amount)) == money.quantize(amount)


@given(st.decimals(0, 10**9, places=6))
def test_money_is_printed_as_a_plain_number(amount: Decimal) -> None:
    text = JSONRenderer().render({"cost": money.as_number(amount)}).decode()
    assert re.fullmatch(r'\{"cost":\d+(\.\d{0,5}[1-9])?\}', text)
    assert json.loads(text, parse_float=Decimal)["cost"] == amount


def test_tiny_money_is_not_printed_in_powers_of_ten() -> None:
    assert JSONRenderer().render({"cost": money.as_number(Decimal("0.00005"))}) == b'{"cost":0.00005}'
