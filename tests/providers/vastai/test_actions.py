"""Destroying, states, labels, bids and keys of machines (the contract's sections 4.6 and 4.7)."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from providers.errors import (
    AuthError,
    InsufficientCredit,
    InvalidRequest,
    MalformedAnswer,
    NotFound,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
)
from providers.vastai import VastAI
from providers.vastai.records import SSHKey, StateChange
from tests.providers.vastai.conftest import Vendor

ONE = "/v0/instances/9000001/"
NO_SUCH = {"success": False, "error": "no_such_instance", "msg": "Instance 9000001 not found."}
AUTH = {"success": False, "error": "auth_error", "msg": "Invalid user key"}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, {"success": True}, "accepted"),
        (200, {}, "accepted"),
        (200, {"success": True, "msg": "instance is\nbeing destroyed"}, "instance is being destroyed"),
        (404, NO_SUCH, "already gone"),
        (404, {"success": False, "error": "not_found", "msg": "Instance not found"}, "already gone"),
        (400, NO_SUCH, "already gone"),
        (200, NO_SUCH, "already gone"),
    ],
)
def test_destroy(vendor: Vendor, status: int, body: Any, said: str) -> None:
    vendor.answer("DELETE", ONE, body, status)
    assert vendor.client.destroy("9000001") == said
    assert vendor.sent == [("DELETE", "/api" + ONE, {})]
    assert vendor.gate.taken == [("vastai:destroy", 3.0, 0.0)]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, AUTH, AuthError),
        (404, AUTH | {"msg": "Instance 9000001 not found."}, AuthError),
        (404, "<html>404</html>", NotFound),
        (200, {"success": False, "msg": "busy"}, InvalidRequest),
        (400, {"success": False, "error": "rate_limit_exceeded", "msg": "slow"}, RateLimited),
        (429, {"success": False, "error": "rate_limit_exceeded", "msg": "slow"}, RateLimited),
        (500, "<html>", OutcomeUnknown),
        (200, [], OutcomeUnknown),
        (200, "gone", OutcomeUnknown),
        (200, "null", OutcomeUnknown),
    ],
)
def test_destroy_refused(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("DELETE", ONE, body, status)
    error = vendor.refuses(kind, "9000001", call=vendor.client.destroy)
    assert (error.retry_after is not None) is (kind is RateLimited)


CALLS: dict[str, Callable[[VastAI, str], Any]] = {
    "get": lambda client, instance_id: client.get_instance(instance_id),
    "destroy": lambda client, instance_id: client.destroy(instance_id),
    "destroy_many": lambda client, instance_id: client.destroy_many(["1", instance_id]),
    "set_label": lambda client, instance_id: client.set_label(instance_id, "x"),
    "set_state": lambda client, instance_id: client.set_state(instance_id, running=False),
    "set_bid": lambda client, instance_id: client.set_bid(instance_id, Decimal(1)),
    "attach": lambda client, instance_id: client.attach_ssh_key(instance_id, "ssh-ed25519 AAAA"),
    "detach": lambda client, instance_id: client.detach_ssh_key("1", instance_id),
    "keys": lambda client, instance_id: client.instance_ssh_keys(instance_id),
    "delete_ssh_key": lambda client, instance_id: client.delete_ssh_key(instance_id),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("instance_id", ["", "0", "-1", "abc", "1/ssh", "1?x", "..", "1 ", "١", "1" * 20])
def test_what_is_no_id_never_reaches_a_path(vendor: Vendor, call: str, instance_id: str) -> None:
    vendor.refuses(InvalidRequest, vendor.client, instance_id, call=CALLS[call])
    assert vendor.sent == []


def test_destroy_many(vendor: Vendor) -> None:
    vendor.answer("DELETE", "/v0/instances/", {"success": True})
    assert vendor.client.destroy_many(["5", "6"]) == "accepted"
    assert vendor.sent == [("DELETE", "/api/v0/instances/", {"instance_ids": [5, 6]})]


@pytest.mark.parametrize("count", [0, 65])
def test_destroy_many_has_bounds(vendor: Vendor, count: int) -> None:
    vendor.refuses(InvalidRequest, [str(n + 1) for n in range(count)], call=vendor.client.destroy_many)
    assert vendor.sent == []


def test_set_label(vendor: Vendor) -> None:
    vendor.answer("PUT", ONE, {"success": True, "msg": "label for 9000001 set to 'x'"})
    assert vendor.client.set_label("9000001", "x") == "label for 9000001 set to 'x'"
    assert vendor.sent == [("PUT", "/api" + ONE, {"label": "x"})]


QUEUED = "Required resources are currently unavailable, state change queued."


@pytest.mark.parametrize(
    ("running", "body", "change"),
    [
        (True, {"success": True}, StateChange(False, "accepted")),
        (True, {"success": False, "msg": QUEUED}, StateChange(True, QUEUED)),
        (True, {"success": False, "error": QUEUED}, StateChange(True, QUEUED)),
        (False, {"success": True, "msg": "stopping"}, StateChange(False, "stopping")),
    ],
)
def test_set_state(vendor: Vendor, running: bool, body: Any, change: StateChange) -> None:
    vendor.answer("PUT", ONE, body)
    assert vendor.client.set_state("9000001", running=running) == change
    assert vendor.sent[0][2] == {"state": "running" if running else "stopped"}
    assert vendor.gate.taken == [("vastai:put_instance", 1.0, 0.0)]


@pytest.mark.parametrize(
    ("running", "status", "body", "kind"),
    [
        (True, 400, {"success": False, "error": "missing_billing"}, InsufficientCredit),
        (True, 404, NO_SUCH, NotFound),
        (True, 200, {"success": False, "msg": "no"}, InvalidRequest),
        (False, 200, {"success": False, "msg": QUEUED}, InvalidRequest),
        (True, 400, {"success": False, "msg": QUEUED}, InvalidRequest),
        (False, 502, "", OutcomeUnknown),
    ],
)
def test_set_state_refused(vendor: Vendor, running: bool, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("PUT", ONE, body, status)
    vendor.refuses(kind, "9000001", running=running, call=vendor.client.set_state)


def test_set_bid(vendor: Vendor) -> None:
    vendor.answer("PUT", "/v0/instances/bid_price/9000001/", {"success": True})
    assert vendor.client.set_bid("9000001", Decimal("0.21")) == "accepted"
    assert vendor.sent[0][2] == {"client_id": "me", "price": 0.21}


@pytest.mark.parametrize("price", ["0", "-1", "NaN", "Infinity"])
def test_a_bid_is_a_price(vendor: Vendor, price: str) -> None:
    vendor.refuses(InvalidRequest, "9000001", Decimal(price), call=vendor.client.set_bid)
    assert vendor.sent == []


# Keys of a machine

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"success": True, "msg": "SSH key attached successfully"}),
        (200, {}),
        (400, {"success": False, "error": "invalid_args", "msg": "SSH key already associated with instance."}),
        (409, {"success": False, "msg": "duplicate key"}),
        (200, {"success": False, "msg": "Key is already attached"}),
    ],
)
def test_attach(vendor: Vendor, status: int, body: Any) -> None:
    vendor.answer("POST", ONE + "ssh/", body, status)
    vendor.client.attach_ssh_key("9000001", f" {PUBLIC}\n")
    assert vendor.sent == [("POST", f"/api{ONE}ssh/", {"ssh_key": PUBLIC})]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, NO_SUCH, NotFound),
        (404, AUTH, AuthError),
        (400, {"success": False, "error": "invalid_args", "msg": "bad key"}, InvalidRequest),
        (500, {"success": False, "msg": "already broken"}, OutcomeUnknown),
        (200, [], OutcomeUnknown),
    ],
)
def test_attach_refused(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("POST", ONE + "ssh/", body, status)
    vendor.refuses(kind, "9000001", PUBLIC, call=vendor.client.attach_ssh_key)


@pytest.mark.parametrize("key", ["", "  ", "ssh-ed25519 A\nssh-ed25519 B"])
def test_one_key_at_a_time(vendor: Vendor, key: str) -> None:
    vendor.refuses(InvalidRequest, "9000001", key, call=vendor.client.attach_ssh_key)
    assert vendor.sent == []


def test_detach(vendor: Vendor) -> None:
    vendor.answer("DELETE", ONE + "ssh/7/", {"success": True, "msg": "SSH key removed from instance."})
    vendor.client.detach_ssh_key("9000001", "7")
    assert vendor.sent == [("DELETE", f"/api{ONE}ssh/7/", {})]


@pytest.mark.parametrize("code", ["no_such_ssh_key", "no_such_instance"])
def test_detach_what_is_not_there(vendor: Vendor, code: str) -> None:
    vendor.answer("DELETE", ONE + "ssh/7/", {"success": False, "error": code}, 404)
    vendor.refuses(NotFound, "9000001", "7", call=vendor.client.detach_ssh_key)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (f'[{{"id": 1, "public_key": "{PUBLIC}"}}]', (SSHKey("1", PUBLIC),)),
        (f'[{{"id": 1, "key": "{PUBLIC}"}}]', (SSHKey("1", PUBLIC),)),
        ([{"id": 1, "key": PUBLIC}], (SSHKey("1", PUBLIC),)),
        ("[]", ()),
        (None, ()),
    ],
)
def test_keys_of_an_instance(vendor: Vendor, keys: Any, expected: tuple[SSHKey, ...]) -> None:
    vendor.answer("GET", ONE + "ssh/", {"success": True, "ssh_keys": keys})
    assert vendor.client.instance_ssh_keys("9000001") == expected


@pytest.mark.parametrize("keys", ["", "[", "{}", 5, {}, '[{"id": 1}]', "[null]", "[" * 3000])
def test_keys_that_cannot_be_understood(vendor: Vendor, keys: Any) -> None:
    vendor.answer("GET", ONE + "ssh/", {"success": True, "ssh_keys": keys})
    vendor.refuses(MalformedAnswer, "9000001", call=vendor.client.instance_ssh_keys)


KEYS = "/v0/instances/9000001/ssh/"


def held(*keys: tuple[int, str]) -> dict[str, Any]:
    return {"success": True, "ssh_keys": json.dumps([{"id": number, "public_key": text} for number, text in keys])}


def test_a_key_is_removed_by_its_text(vendor: Vendor) -> None:
    """Comments do not count; another's key stays."""
    vendor.answer("GET", KEYS, held((5, "ssh-ed25519 AAAA old@laptop"), (6, "ssh-ed25519 BBBB")))
    vendor.answer("DELETE", KEYS + "5/", {"success": True})
    assert vendor.client.remove_ssh_key("9000001", "ssh-ed25519 AAAA sess-x") is True
    assert [path for method, path, _ in vendor.sent if method == "DELETE"] == ["/api" + KEYS + "5/"]


def test_a_key_that_is_not_there_needs_no_removal(vendor: Vendor) -> None:
    vendor.answer("GET", KEYS, held((6, "ssh-ed25519 BBBB")))
    assert vendor.client.remove_ssh_key("9000001", "ssh-ed25519 AAAA") is False
    assert [method for method, _, _ in vendor.sent] == ["GET"]


def test_a_key_that_somebody_else_removes_meanwhile(vendor: Vendor) -> None:
    vendor.answer("GET", KEYS, held((5, "ssh-ed25519 AAAA")))
    vendor.answer(
        "DELETE", KEYS + "5/", {"success": False, "error": "no_such_ssh_key", "msg": "SSH key not found"}, 404
    )
    assert vendor.client.remove_ssh_key("9000001", "ssh-ed25519 AAAA") is True
