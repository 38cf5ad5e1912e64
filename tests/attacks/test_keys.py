"""Keys that are none, in every place where one might be looked for, on every operation."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import pytest

from billing import keys as keyring_module
from billing.models import ApiKey, Consumer
from tests import keys
from tests.attacks.conftest import World
from tests.attacks.surface import ALL, Attacker, Operation, assert_refused, books

NEEDED = "a valid API key is needed"
#: The token in its body is its key.
WITH_KEY = [operation for operation in ALL if operation.name != "session_heartbeat"]


@pytest.mark.parametrize("operation", WITH_KEY, ids=lambda each: each.name)
def test_no_operation_answers_without_a_good_key(world: World, operation: Operation) -> None:
    before = books()
    for secret in ("", "gpb_aaaaaaaa_" + "a" * 40):
        answer = Attacker(secret)(operation.method, operation.at(**world.ids), operation.body())
        assert_refused(answer, 401, error=NEEDED)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert books() == before


def elsewhere(secret: str) -> list[tuple[str, dict[str, str]]]:
    """A good key where none is looked for: (what is added to the URL, headers)."""
    basic = base64.b64encode(f"{secret}:".encode()).decode()
    return [
        *[(f"?{name}={secret}", {}) for name in ("api_key", "key", "access_token", "token", "X-API-Key",
        "authorization")],
        ("", {"Cookie": f"api_key={secret}; X-API-Key={secret}; sessionid={secret}"}),
        ("", {"Authorization": secret}), ("", {"Authorization": f"Basic {basic}"}),
        ("", {"Authorization": f"Token {secret}"}), ("", {"Authorization": f"ApiKey {secret}"}),
        ("", {"Authorization": f"Bearer={secret}"}), ("", {"Authorization": f'Bearer "{secret}"'}),
        ("", {"X-API-Key": f"Bearer {secret}"}), ("", {"X-API-Key": secret.upper()}), ("",
        {"X-API-Key": secret + "\x00"}),
        ("", {"X-API-Key": secret.replace("_", "-")}), ("", {"X-API-Key": secret[:13]}), ("",
        {"X-API-Key": f"{secret}a"}),
        ("", {"X-API-Key": secret.replace("g", "ｇ", 1)}), ("", {"Proxy-Authorization": f"Bearer {secret}"}),
        ("", {"X-Forwarded-Authorization": f"Bearer {secret}"}), ("", {"X-Original-Authorization": f"Bearer {secret}"}),
        ("", {"X-Forwarded-User": "root", "Remote-User": "root", "X-Remote-User": "root"}),
    ]  # fmt: skip


def test_a_good_key_in_a_wrong_place_is_none(world: World) -> None:
    secret, before = world.secrets[0], books()
    for query, headers in elsewhere(secret):
        answer = Attacker()("GET", f"/api/v1/sessions{query}", None, "application/json", **headers)
        assert_refused(answer, 401, error=NEEDED)
        assert secret[14:] not in answer.content.decode() + str(answer.headers)
    assert books() == before


def test_the_start_of_one_key_and_the_end_of_another(world: World) -> None:
    mine, boss = world.secrets
    for secret in (f"{boss[:12]}_{mine[13:]}", f"{mine[:12]}_{boss[13:]}"):
        assert_refused(Attacker(secret)("GET", "/api/v1/sessions"), 401, error=NEEDED)


def test_the_key_of_a_consumer_that_is_no_more(world: World) -> None:
    """Nothing deletes one; should a person do it in the database, the key ends with it."""
    made = keys.make("gone")
    assert Attacker(made.secret)("GET", "/api/v1/sessions").status_code == 200
    ApiKey.objects.filter(prefix=made.key.prefix).delete()
    Consumer.objects.filter(name="gone").delete()
    keyring_module.keyring.forget(made.key.prefix)  # or five seconds later
    assert_refused(Attacker(made.secret)("GET", "/api/v1/sessions"), 401, error=NEEDED)


def test_digests_are_compared_in_constant_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is no such key: the same comparison, against a digest that nothing has."""
    compared: list[tuple[Any, Any]] = []
    compare = hmac.compare_digest

    def noted(left: Any, right: Any) -> bool:
        compared.append((left, right))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    for secret in (world.secrets[0], world.secrets[0][:-1] + "a", "gpb_aaaaaaaa_" + "a" * 40):
        Attacker(secret)("GET", "/api/v1/sessions")
    assert [len(left) for left, _ in compared] == [64, 64, 64]
    assert [len(right) for _, right in compared] == [64, 64, 64]


def test_a_revoked_key_cannot_undo_it(world: World) -> None:
    boss = keys.staff()
    attacker = Attacker(boss.secret)
    assert attacker("DELETE", f"/api/v1/keys/{boss.key.prefix}").status_code == 200
    before = books()
    assert_refused(attacker("POST", "/api/v1/keys", {"scopes": ["staff"]}), 401, error=NEEDED)
    assert_refused(attacker("POST", f"/api/v1/keys/{boss.key.prefix}/rotate", {}), 401, error=NEEDED)
    assert books() == before
