"""API keys: made once, kept as a hash, checked cheaply, and gone when they are revoked."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from billing import keys, services
from billing.keys import Keyring
from billing.models import ApiKey, Consumer
from gpubroker.common import clock
from gpubroker.common.errors import ApiError
from gpubroker.common.principal import Principal
from tests.harness import MovableClock
from tests.keys import make, staff

pytestmark = pytest.mark.django_db


class Seconds:
    """A timer to move by hand."""

    def __init__(self) -> None:
        self.value = 0.0

    def __call__(self) -> float:
        return self.value


def test_a_key_is_stored_as_its_hash_and_nothing_else() -> None:
    made = make("lab", name="nightly")
    assert re.fullmatch(r"gpb_[a-z2-7]{8}_[a-z2-7]{40}", made.secret)
    row = ApiKey.objects.get()
    assert made.secret.startswith(f"{row.prefix}_")
    assert row.digest == hashlib.sha256(made.secret.encode()).hexdigest()
    assert (row.consumer, row.name, row.scopes) == (Consumer.objects.get(name="lab"), "nightly", "read,spend")
    assert (row.expires_at, row.last_used_at, row.revoked_at, row.rotated_from) == (None, None, None, None)
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM billing_apikey")
        assert made.secret.rpartition("_")[2] not in str(cursor.fetchall())
    assert made.secret not in repr(made)


def test_keys_differ() -> None:
    made = [keys.generate() for _ in range(1000)]
    assert len({key.prefix for key in made}) == len({key.secret for key in made}) == 1000
    assert made[0].secret not in repr(made[0])


@pytest.mark.parametrize(
    ("scopes", "stored", "held"),
    [
        (["read"], "read", {"read"}),
        (["spend"], "spend", {"spend"}),
        (["spend", "read", "read"], "read,spend", {"read", "spend"}),
    ],
)
def test_scopes_of_a_consumers_key(scopes: list[str], stored: str, held: set[str]) -> None:
    made = make("lab", scopes)
    assert made.key.scopes == stored
    assert Keyring().check(made.secret) == Principal("lab", frozenset(held), made.key.prefix)


def test_a_staff_key_belongs_to_nobody() -> None:
    made = make(None, ["read", "staff"])
    assert (made.key.scopes, made.key.consumer) == ("staff", None)
    assert Keyring().check(made.secret) == Principal(None, frozenset({"staff"}), made.key.prefix)


@pytest.mark.parametrize(
    ("consumer", "scopes", "message"),
    [
        ("lab", ["staff"], "consumer_id: a staff key belongs to no consumer"),
        (None, ["read"], "consumer_id: a key without the scope staff belongs to a consumer; name one"),
        ("lab", [], "scopes: at least one of read, spend, staff is needed"),
        ("lab", ["read", "write"], "scopes: 'write' is not one of read, spend, staff"),
    ],
)
def test_what_does_not_go_together_is_refused(consumer: str | None, scopes: list[str], message: str) -> None:
    with pytest.raises(ApiError) as refused:
        make(consumer, scopes)
    assert (refused.value.status, refused.value.message) == (400, message)
    assert not ApiKey.objects.exists()
    assert not Consumer.objects.exists()


@pytest.mark.parametrize("scopes", ["", "write", "spend,read", "read,staff"])
def test_the_database_knows_the_scopes(scopes: str) -> None:
    made = make()
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.filter(pk=made.key.pk).update(scopes=scopes)


def test_the_database_ties_staff_to_nobody() -> None:
    made, other = make(), staff()
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.filter(pk=made.key.pk).update(scopes="staff")
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.filter(pk=other.key.pk).update(consumer=made.key.consumer)


def test_what_is_not_the_key_is_nobody() -> None:
    ring, secret = Keyring(), make().secret
    wrong = [
        "", "gpb_", secret[:-1], secret + "a", secret[:-1] + ("a" if secret[-1] != "a" else "b"), f"{secret}\n",
        f" {secret}", secret.upper(), secret.replace("gpb_", "xyz_"), "\x00", "gpb_aaaaaaaa_" + "a" * 40, "ſ" * 53,
        "x" * 1_000_000,
    ]  # fmt: skip
    assert [ring.check(presented) for presented in wrong] == [None] * len(wrong)
    assert ring.check(secret) is not None


@given(st.text(max_size=80))
def test_no_text_passes_or_crashes(text: str) -> None:
    assert Keyring().check(text) is None


def test_expiry_holds_to_the_second_although_the_key_is_remembered(time: MovableClock) -> None:
    ring, made = Keyring(), make(expires_in=timedelta(hours=1))
    time.advance(minutes=59)
    assert ring.check(made.secret) is not None
    time.advance(minutes=1)
    assert ring.check(made.secret) is None
    assert ApiKey.objects.get().state(clock.now()) == "expired"


def test_revoked_here_at_once_and_elsewhere_within_five_seconds() -> None:
    seconds = Seconds()
    elsewhere, made = Keyring(seconds), make()
    assert keys.keyring.check(made.secret) is not None
    assert elsewhere.check(made.secret) is not None
    services.revoke_key(made.key.prefix, by="test")
    assert keys.keyring.check(made.secret) is None
    seconds.value = 4.9
    assert elsewhere.check(made.secret) is not None
    seconds.value = 5.0
    assert elsewhere.check(made.secret) is None


def test_revoked_twice_is_revoked_once(time: MovableClock) -> None:
    made = make()
    first = services.revoke_key(made.key.prefix, by="test").revoked_at
    time.advance(hours=1)
    assert services.revoke_key(made.key.prefix, by="test").revoked_at == first
    with pytest.raises(ApiError, match="key gpb_nothere1 not found"):
        services.revoke_key("gpb_nothere1", by="test")


def test_a_check_costs_one_query_in_five_seconds_and_one_update_in_a_minute(time: MovableClock) -> None:
    seconds = Seconds()
    ring, made = Keyring(seconds), make()
    with CaptureQueriesContext(connection) as first:
        ring.check(made.secret)
    assert [query["sql"].split()[0] for query in first] == ["SELECT", "UPDATE"]
    with CaptureQueriesContext(connection) as more:
        for _ in range(50):
            ring.check(made.secret)
    assert len(more) == 0
    seconds.value, time.offset = 5.0, timedelta(seconds=5)
    with CaptureQueriesContext(connection) as later:
        ring.check(made.secret)
    assert [query["sql"].split()[0] for query in later] == ["SELECT"]


def test_an_unknown_prefix_costs_one_query_as_well() -> None:
    ring = Keyring()
    with CaptureQueriesContext(connection) as queries:
        for _ in range(20):
            assert ring.check("gpb_aaaaaaaa_" + "a" * 40) is None
    assert len(queries) == 1


def test_the_memory_of_a_flood_of_prefixes_is_bounded() -> None:
    ring = Keyring()
    ring._known = {str(number): keys._Known(read_at=0.0) for number in range(keys.CACHE_SIZE)}
    assert ring.check("gpb_aaaaaaaa_" + "a" * 40) is None
    assert len(ring._known) == 1


def test_the_last_use_is_written_to_the_minute(time: MovableClock) -> None:
    ring, made = Keyring(), make()
    ring.check(made.secret)
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    time.advance(seconds=50)
    ring.check(made.secret)
    assert ApiKey.objects.get().last_used_at == first
    time.advance(seconds=11)
    ring.check(made.secret)
    second = ApiKey.objects.get().last_used_at
    assert second is not None
    assert second - first > timedelta(minutes=1)


@pytest.mark.django_db(transaction=True)
def test_a_use_that_cannot_be_written_is_no_reason_to_refuse() -> None:
    ring, made = Keyring(), make()

    def read_only(execute: object, sql: str, *rest: object) -> object:
        if sql.startswith("UPDATE"):
            raise OperationalError("database is locked")
        return execute(sql, *rest)  # type: ignore[operator]

    with connection.execute_wrapper(read_only):
        assert ring.check(made.secret) is not None
    assert ApiKey.objects.get().last_used_at is None


def test_rotation_keeps_consumer_scopes_name_and_length_of_life(time: MovableClock) -> None:
    old = make("lab", ["read"], name="graphs", expires_in=timedelta(days=30))
    time.advance(days=10)
    new = services.rotate_key(old.key.prefix, by="test")
    assert (new.key.consumer, new.key.scopes, new.key.name) == (old.key.consumer, "read", "graphs")
    assert new.key.rotated_from == old.key
    assert new.key.expires_at == new.key.created_at + timedelta(days=30)
    assert keys.keyring.check(old.secret) is not None
    assert keys.keyring.check(new.secret) is not None
    time.advance(hours=23, minutes=59)
    assert keys.keyring.check(old.secret) is not None
    time.advance(minutes=1)
    assert keys.keyring.check(old.secret) is None
    assert keys.keyring.check(new.secret) is not None


def test_a_grace_never_lengthens_a_life(time: MovableClock) -> None:
    old = make(expires_in=timedelta(hours=1))
    services.rotate_key(old.key.prefix, by="test")
    old.key.refresh_from_db()
    assert old.key.expires_at == old.key.created_at + timedelta(hours=1)


def test_rotation_without_grace_revokes_at_once() -> None:
    old = make()
    new = services.rotate_key(old.key.prefix, by="test", grace=timedelta(0))
    assert keys.keyring.check(old.secret) is None
    assert keys.keyring.check(new.secret) is not None
    old.key.refresh_from_db()
    assert old.key.state(clock.now()) == "revoked"


def test_only_a_working_key_is_rotated_and_only_once(time: MovableClock) -> None:
    revoked, expired, replaced = make(), make(expires_in=timedelta(seconds=1)), make()
    services.revoke_key(revoked.key.prefix, by="test")
    successor = services.rotate_key(replaced.key.prefix, by="test")
    time.advance(seconds=1)
    sentences = {
        revoked.key.prefix: "is revoked; make a new one",
        expired.key.prefix: "is expired; make a new one",
        replaced.key.prefix: f"was replaced by {successor.key.prefix} already",
    }
    before = list(ApiKey.objects.order_by("pk").values())
    for prefix, sentence in sentences.items():
        with pytest.raises(ApiError) as refused:
            services.rotate_key(prefix, by="test")
        assert (refused.value.status, refused.value.message) == (409, f"key {prefix} {sentence}")
    assert list(ApiKey.objects.order_by("pk").values()) == before
