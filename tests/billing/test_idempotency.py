"""``Idempotency-Key`` on the POSTs of keys and consumers: one request, one API key, shown again for a short while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from billing import keys
from billing.models import ApiKey, Consumer
from gpubroker.common import idempotency
from gpubroker.common.models import IdempotencyRecord
from tests.harness import MovableClock
from tests.interleave import before_sql
from tests.keys import Caller, make, staff

pytestmark = pytest.mark.django_db
KEY: dict[str, Any] = {"Idempotency-Key": "k-1"}
WISH = {"consumer_id": "lab", "name": "nightly"}


@pytest.fixture
def boss() -> Caller:
    return Caller(staff().secret)


def counts() -> tuple[int, int, int]:
    return ApiKey.objects.count(), Consumer.objects.count(), IdempotencyRecord.objects.count()


def stored() -> str:
    return str([list(model.objects.values()) for model in (ApiKey, Consumer, IdempotencyRecord)])


def test_the_same_wish_twice_is_one_key_and_the_same_secret(boss: Caller) -> None:
    first = boss("POST", "/keys", WISH, **KEY)
    assert (first[0], set(first[1])) == (201, {"key", "api_key"})
    assert boss("POST", "/keys", dict(reversed(WISH.items())), **KEY) == first
    assert counts() == (2, 1, 1)
    secret = first[1]["api_key"]
    assert Caller(secret)("GET", "/sessions")[0] == 200
    assert secret not in stored()
    assert secret.rpartition("_")[2] not in stored()


def test_a_replay_says_so_and_is_cached_by_nobody(boss: Caller) -> None:
    answers = [boss.client.post("/api/v1/keys", WISH, content_type="application/json", headers=KEY) for _ in range(2)]
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true"]
    assert [answer.headers["Cache-Control"] for answer in answers] == ["no-store", "no-store"]


def test_the_secret_is_repeated_for_ten_minutes_and_the_answer_for_a_day(boss: Caller, time: MovableClock) -> None:
    first = boss("POST", "/keys", WISH, **KEY)
    time.advance(minutes=9, seconds=59)
    assert boss("POST", "/keys", WISH, **KEY) == first
    time.advance(seconds=2)
    later = (201, {"key": first[1]["key"], "note": idempotency.GONE[idempotency.API_KEY]})
    assert boss("POST", "/keys", WISH, **KEY) == later
    idempotency.purge()
    record = IdempotencyRecord.objects.get()
    assert (record.secret_sealed, record.secret_until, record.secret_name) == ("", None, "api_key")
    assert boss("POST", "/keys", WISH, **KEY) == later
    assert counts() == (2, 1, 1)
    time.advance(hours=24)
    status, other = boss("POST", "/keys", WISH, **KEY)
    assert (status, set(other), counts()) == (201, {"key", "api_key"}, (3, 1, 1))


@pytest.mark.parametrize(
    ("path", "body"),
    [("/keys", {**WISH, "name": "other"}), ("/keys", {"scopes": ["staff"]}), ("/consumers", {"consumer_id": "lab"})],
)
def test_the_same_key_for_another_wish_is_409_and_makes_nothing(boss: Caller, path: str, body: Any) -> None:
    boss("POST", "/keys", WISH, **KEY)
    before = counts()
    status, answer = boss("POST", path, body, **KEY)
    assert (status, answer["error_type"]) == (409, "idempotency_key_reused")
    assert "api_key" not in answer
    assert counts() == before


def test_anothers_same_key_is_another_request(boss: Caller) -> None:
    first = boss("POST", "/keys", WISH, **KEY)[1]
    colleague = Caller(staff().secret)
    second = colleague("POST", "/keys", WISH, **KEY)[1]
    assert second["api_key"] != first["api_key"]
    assert IdempotencyRecord.objects.count() == 2
    status, answer = Caller(make("lab").secret)("POST", "/keys", WISH, **KEY)
    assert (status, set(answer)) == (403, {"error", "scope", "request_id"})
    assert Caller()("POST", "/keys", WISH, **KEY)[0] == 401
    assert IdempotencyRecord.objects.count() == 2


def test_a_refused_wish_keeps_no_record(boss: Caller) -> None:
    assert boss("POST", "/keys", {"scopes": ["read"]}, **KEY)[0] == 400
    make("lab")
    assert boss("POST", "/consumers", {"consumer_id": "lab"}, **KEY)[0] == 409
    assert boss("POST", "/keys/gpb_nothing1/rotate", {}, **KEY)[0] == 404
    assert not IdempotencyRecord.objects.exists()
    assert boss("POST", "/keys", WISH, **KEY)[0] == 201


@pytest.mark.parametrize("path", ["/keys", "/consumers", "/keys/gpb_nothing1/rotate"])
def test_bad_keys(boss: Caller, path: str) -> None:
    before = counts()
    status, answer = boss("POST", path, {"consumer_id": "lab"}, **{"Idempotency-Key": "x" * 256})
    assert (status, answer["field"]) == (400, "Idempotency-Key")
    assert counts() == before


def test_a_rotation_twice_is_one(boss: Caller) -> None:
    old = make("lab")
    path = f"/keys/{old.key.prefix}/rotate"
    first = boss("POST", path, {"grace_seconds": 0}, **KEY)
    assert first[0] == 201
    assert boss("POST", path, {"grace_seconds": 0}, **KEY) == first
    assert boss("POST", path, {"grace_seconds": 60}, **KEY)[1]["error_type"] == "idempotency_key_reused"
    assert boss("POST", path, {"grace_seconds": 0})[0] == 409
    assert ApiKey.objects.filter(rotated_from=old.key).count() == 1
    assert keys.keyring.check(old.secret) is None
    assert Caller(first[1]["api_key"])("GET", "/sessions")[0] == 200


def test_a_consumer_twice_is_one(boss: Caller) -> None:
    first = boss("POST", "/consumers", {"consumer_id": "lab"}, **KEY)
    assert first[0] == 201
    assert boss("POST", "/consumers", {"consumer_id": "lab"}, **KEY) == first
    assert boss("POST", "/consumers", {"consumer_id": "lab"})[0] == 409
    assert Consumer.objects.count() == 1


def crash() -> None:
    raise OperationalError("as if the process were killed here")


@pytest.mark.parametrize("moment", ["INSERT INTO .billing_apikey", "UPDATE .common_idempotencyrecord"])
def test_a_crash_leaves_both_or_neither(boss: Caller, moment: str) -> None:
    before = counts()
    with before_sql(moment, crash) as happened:
        assert boss("POST", "/keys", WISH, **KEY)[0] == 503
    assert happened
    assert counts() == before
    first = boss("POST", "/keys", WISH, **KEY)
    assert (first[0], boss("POST", "/keys", WISH, **KEY)) == (201, first)
    assert counts() == (2, 1, 1)


@pytest.mark.parametrize("moment", ["INSERT INTO .billing_apikey", "UPDATE .common_idempotencyrecord"])
def test_a_rotation_that_crashed_took_nothing_from_the_old_key(boss: Caller, moment: str) -> None:
    old = make("lab")
    path = f"/keys/{old.key.prefix}/rotate"
    with before_sql(moment, crash) as happened:
        assert boss("POST", path, {"grace_seconds": 0}, **KEY)[0] == 503
    assert happened
    assert Caller(old.secret)("GET", "/sessions")[0] == 200
    assert not ApiKey.objects.filter(rotated_from=old.key).exists()
    assert boss("POST", path, {"grace_seconds": 0}, **KEY)[0] == 201


def test_an_old_key_does_not_come_back_between_a_rotation_and_its_commit(
    boss: Caller, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    """Another request may read the old row until the rotation is committed with its record; then it is forgotten."""
    old = make("lab")
    seen: list[bool] = []
    with (
        django_capture_on_commit_callbacks(execute=True),
        before_sql("UPDATE .common_idempotencyrecord", lambda: seen.append(keys.keyring.check(old.secret) is None)),
    ):
        status, _ = boss("POST", f"/keys/{old.key.prefix}/rotate", {"grace_seconds": 0}, **KEY)
    assert (status, seen) == (201, [True])
    assert keys.keyring.check(old.secret) is None
