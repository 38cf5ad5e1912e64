"""Signatures, as the documentation says to check them; and secrets, which are in no other place."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import deliver, signing, webhooks
from billing.models import WebhookDelivery, WebhookEndpoint, WebhookMessage
from billing.tasks import purge_webhooks
from gpubroker.common import clock, crypto
from tests.billing.receiver import Genuine, Receiver, documented_check, hook, only, tell
from tests.harness import MovableClock

#: HMAC fills short keys up with zero bytes, so those do not tell keys apart.
SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(
    secret=SECRETS, other=SECRETS, body=st.binary(), flip=st.integers(min_value=0),
    at=st.integers(min_value=1_000_000, max_value=4_000_000_000), shift=st.integers(-10_000, 10_000),
)  # fmt: skip
def test_only_the_right_secret_body_and_time_are_genuine(
    secret: str, other: str, body: bytes, flip: int, at: int, shift: int
) -> None:
    check = documented_check()
    header = signing.signature([secret], at, body)
    expected = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert header == f"t={at},v1={expected}"
    assert check(secret, header, body, at + shift) is (abs(shift) <= 300)
    assert check(secret, signing.signature([other, secret], at, body), body, at)
    assert check(other, header, body, at) is (other == secret)
    changed = bytearray(body + b"!")
    changed[flip % len(changed)] ^= 1
    assert not check(secret, header, bytes(changed), at)
    assert not check(secret, header.replace(f"t={at}", f"t={at + 1}"), body, at)


@pytest.mark.django_db
def test_after_a_rotation_both_secrets_sign_for_a_while(
    receiver: Receiver, time: MovableClock, genuine: Genuine
) -> None:
    made = hook(receiver)
    fresh = webhooks.rotate(made.endpoint, by="test", overlap=timedelta(hours=1))

    def proven() -> list[bool]:
        tell()
        assert deliver.drain() == 1
        last = receiver.received[-1]
        header, now = last.headers["GPUBroker-Signature"], clock.now().timestamp()
        return [genuine(secret, header, last.body, now) for secret in (made.secret, fresh.secret)]

    assert proven() == [True, True]
    time.advance(hours=1)
    assert proven() == [False, True]
    purge_webhooks()
    kept = WebhookEndpoint.objects.get()
    assert (kept.old_secret_sealed, kept.old_secret_until) == ("", None)
    newest = webhooks.rotate(made.endpoint, by="test", overlap=timedelta(0))
    assert proven() == [False, False]
    assert crypto.unseal(WebhookEndpoint.objects.get().secret_sealed) == newest.secret


@pytest.mark.django_db
def test_an_unreadable_secret_is_told_and_tried_again(receiver: Receiver) -> None:
    made = hook(receiver)
    WebhookEndpoint.objects.filter(id=made.endpoint.id).update(secret_sealed="gAAAAAsealed-with-another-key")
    tell()
    assert deliver.drain() == 1
    assert (only().state, "ENCRYPTION_KEYS" in only().last_error, receiver.received) == ("pending", True, [])


@pytest.mark.django_db
def test_no_secret_is_in_a_log_or_in_clear_in_the_database(receiver: Receiver, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    made = hook(receiver)
    fresh = webhooks.rotate(made.endpoint, by="test")
    receiver.plan = [500]
    tell()
    deliver.drain()
    stored = str([list(model.objects.values()) for model in (WebhookEndpoint, WebhookMessage, WebhookDelivery)])
    for secret in (made.secret, fresh.secret):
        assert re.fullmatch(r"whsec_[a-z2-7]{40}", secret)
        assert secret[6:] not in stored + caplog.text + repr(made) + repr(fresh)
    assert "for=gpu" not in caplog.text
