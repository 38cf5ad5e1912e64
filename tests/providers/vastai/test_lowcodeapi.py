"""The gateway's envelopes, refusals and gaps on a faked wire (the contract's section 7)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import responses

from providers.base import Access, Balance, Created, DestroysMany, KeepsDisks, LaunchOrder, Provider, RemovesKeys
from providers.errors import (
    AuthError,
    InsufficientCredit,
    InvalidRequest,
    ListingIncomplete,
    MalformedAnswer,
    NotFound,
    NotSupported,
    OfferGone,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Unavailable,
)
from providers.http import HTTPClient
from providers.vastai import LowCodeAPITransport, OfferSearch, Part, VastAIByGateway
from tests.providers.vastai.conftest import FixedClock, Vendor, instance_row, listing, offer_row

BASE = "https://api.lowcodeapi.com/vastai"
TOKEN = "at_0a1b2c3d4e5f"
ONE = ("broker@test", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI")
KEY = f"{ONE[1]} {ONE[0]}"
ORDER = LaunchOrder("7", "gpb-prod-abcdefghijklmn27-1", "ubuntu:24.04", 20, {"A": "1"}, (8000,), ssh_public_keys=(KEY,))
AUTH = {"success": False, "error": "auth_error", "msg": "Invalid user key"}
GONE = {"success": False, "error": "invalid_args", "msg": "error 404/3603: no_such_ask  Instance type by id 7 is not"}
NO_SUCH = {"success": False, "error": "no_such_instance", "msg": "Instance 5 not found."}
BROKE = {"success": False, "error": "insufficient_credit", "msg": "Your account lacks credit; see the billing page."}
PAGE_404 = {"message": "The resource could not be found.\n\n", "code": "404 Not Found", "title": "Not Found"}


class Gateway(Vendor):
    """The same wire with the gateway at its end."""

    def build(self, **search: Any) -> Any:
        http = HTTPClient("vastai", BASE, "", self.gate, self.observer, FixedClock(), secrets=(TOKEN,))
        return VastAIByGateway(LowCodeAPITransport(http, TOKEN), OfferSearch(**search))

    def result(self, method: str, path: str, body: Any) -> None:
        envelope = {"message": "Request completed", "provider": "vastai", "result": body, "response_headers": {}}
        self.wire.add(method, BASE + path, json=envelope)

    def error(self, method: str, path: str, body: Any, status: int) -> None:
        envelope = {"message": f"Request failed with status code {status}", "provider": "vastai", "error": body}
        self.wire.add(method, BASE + path, json=envelope, status=status)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with responses.RequestsMock(assert_all_requests_are_fired=True) as wire:
        yield Gateway(wire)


def test_it_is_a_provider_that_promises_no_more_than_it_has(gateway: Gateway) -> None:
    client: Any = gateway.client
    assert isinstance(client, Provider)
    assert isinstance(client, KeepsDisks)
    assert not isinstance(client, DestroysMany)
    assert not isinstance(client, RemovesKeys)
    can = client.capabilities
    assert (can.templates, can.interruptible, can.preserve_disk, can.attach_ssh_key) == (True, True, True, True)
    assert (can.custom_image, can.entrypoint, can.label_length) == (True, True, 60)


# Requests


def test_the_token_travels_in_the_query_and_no_bearer_with_it(gateway: Gateway) -> None:
    gateway.result("GET", "/balance", {"credit": 1.5})
    assert gateway.client.balance() == Balance(Decimal("1.5"))
    assert gateway.params == [{"api_token": TOKEN}]
    assert "Authorization" not in gateway.wire.calls[0].request.headers
    assert gateway.sent == [("GET", "/vastai/balance", None)]


def test_a_search_in_the_words_of_the_seed(gateway: Gateway) -> None:
    gateway.client = gateway.build(max_price_per_hour=Decimal("2.5"))
    gateway.result("GET", "/offers", {"offers": [offer_row()]})
    (offer,) = gateway.client.list_offers().offers
    assert (offer.provider_id, offer.price_per_hour) == ("7000001", Decimal("0.8"))
    (params,) = gateway.params
    search = json.loads(params.pop("q"))
    assert params == {
        "type": "on-demand", "sort_option": "dph_total", "order": "asc", "limit": "64", "api_token": TOKEN,
    }  # fmt: skip
    assert search == {
        "rentable": {"eq": True}, "rented": {"eq": False}, "external": {"eq": False}, "verified": {"eq": True},
        "dph_total": {"lte": 2.5}, "type": "on-demand", "order": [["dph_total", "asc"]], "limit": 64,
        "allocated_storage": 8,
    }  # fmt: skip
    assert gateway.gate.taken == [("vastai:list_offers", 6.0, 0.0)]


def test_a_create_carries_label_environment_ports_and_keys(gateway: Gateway) -> None:
    gateway.result("POST", "/instances", {"success": True, "new_contract": 91, "instance_api_key": "x"})
    assert gateway.client.create(ORDER) == Created("91")
    ((method, path, body),) = gateway.sent
    assert (method, path, gateway.params) == ("POST", "/vastai/instances", [{"api_token": TOKEN}])
    start = f"mkdir -p ~/.ssh && chmod 700 ~/.ssh && printf '%s\\n' '{KEY}' >> ~/.ssh/authorized_keys"
    assert body == {
        "offer_id": "7", "client_id": "me", "label": ORDER.label, "disk": 20, "image": "ubuntu:24.04",
        "env": {"A": "1", "-p 8000:8000": "1"}, "cancel_unavail": True, "runtype": "ssh_direc ssh_proxy",
        "ssh_key": KEY, "onstart": start,
    }  # fmt: skip
    assert gateway.gate.taken == [("vastai:create", 4.5, 0.0)]


@pytest.mark.parametrize(
    ("changes", "onstart", "key"),
    [
        ({"onstart": "touch /x", "ssh_public_keys": ()}, "touch /x", None),
        ({"onstart": "sleep 1", "access": Access.ENTRYPOINT, "args": ("a",)}, "sleep 1", None),
        ({"template_id": "ab" * 16}, None, KEY),
    ],
)
def test_keys_stay_away_where_they_would_do_harm(
    gateway: Gateway, changes: dict[str, Any], onstart: str | None, key: str | None
) -> None:
    order = LaunchOrder(**{**{name: getattr(ORDER, name) for name in ORDER.__slots__}, **changes})
    gateway.result("POST", "/instances", {"success": True, "new_contract": 91})
    gateway.client.create(order)
    body = gateway.sent[0][2]
    assert (body.get("onstart"), body.get("ssh_key")) == (onstart, key)


def test_two_keys_and_a_start_script(gateway: Gateway) -> None:
    order = LaunchOrder("7", "label", "img:1", 20, onstart="echo up", ssh_public_keys=(f"{KEY}\n", "ssh-rsa it's"))
    gateway.result("POST", "/instances", {"success": True, "new_contract": 91})
    gateway.client.create(order)
    body = gateway.sent[0][2]
    assert body["ssh_key"] == f"{KEY}\nssh-rsa it's"
    head, tail = body["onstart"].splitlines()
    assert tail == "echo up"
    assert f"""'{KEY}' 'ssh-rsa it'"'"'s' >> ~/.ssh/authorized_keys""" in head


@pytest.mark.parametrize("key", ["", "  ", "ssh-rsa A\nssh-rsa B"])
def test_a_key_that_is_none_is_refused_before_anything_is_sent(gateway: Gateway, key: str) -> None:
    order = LaunchOrder("7", "label", "img:1", 20, ssh_public_keys=(key,))
    gateway.refuses(InvalidRequest, order, call=gateway.client.create)
    assert gateway.sent == []


def test_finding_by_label_asks_the_vendors_own_filter(gateway: Gateway) -> None:
    gateway.result("GET", "/instances", listing([instance_row(label="x")], label_counts={"x": 1}))
    assert [each.label for each in gateway.client.find_by_label("x")] == ["x"]
    assert gateway.params[0] == {
        "limit": "25", "order_by": '[{"col":"id","dir":"asc"}]', "select_filters": '{"label":{"eq":"x"}}',
        "api_token": TOKEN,
    }  # fmt: skip


def test_pages_are_followed_by_the_vendors_token(gateway: Gateway) -> None:
    gateway.result("GET", "/instances", listing([instance_row(1)], total=2, token="t"))
    gateway.result("GET", "/instances", listing([instance_row(2)], total=2))
    assert len(gateway.client.list_instances().instances) == 2
    assert gateway.params[1]["after_token"] == "t"


def test_a_key_is_attached_with_an_update(gateway: Gateway) -> None:
    gateway.result("PUT", "/instances/instance_id", {"success": True})
    gateway.client.attach_ssh_key("5", KEY)
    assert gateway.sent == [("PUT", "/vastai/instances/instance_id", {"ssh_key": KEY})]
    assert gateway.params == [{"instance_id": "5", "api_token": TOKEN}]


def test_a_second_key_waits_for_its_slot(gateway: Gateway) -> None:
    """Attached one after the other, the second would find the first one's slot taken, every time."""
    for _ in range(2):
        gateway.result("PUT", "/instances/instance_id", {"success": True})
    gateway.client.attach_ssh_key("5", KEY, f"{KEY}B")
    assert [body["ssh_key"] for _, _, body in gateway.sent] == [KEY, f"{KEY}B"]
    assert gateway.gate.taken == [("vastai:put_instance", 1.0, 0.0), ("vastai:put_instance", 1.0, 5.0)]


@pytest.mark.parametrize(("running", "word"), [(True, "start"), (False, "stop")])
def test_start_and_stop_are_paths(gateway: Gateway, running: bool, word: str) -> None:
    gateway.result("POST", f"/instances/instance_id/{word}", {"success": True})
    assert not gateway.client.set_state("5", running=running).queued
    assert gateway.sent == [("POST", f"/vastai/instances/instance_id/{word}", None)]


def test_the_accounts_own_templates(gateway: Gateway) -> None:
    gateway.result("GET", "/users/me", {"id": 77})
    for _ in range(2):
        gateway.result("GET", "/templates", {"templates": []})
    assert gateway.client.list_templates() == ()
    assert [each.get("owner_id") for each in gateway.params] == [None, "77", None]


# Answers


def test_an_instance_that_is_not_there(gateway: Gateway) -> None:
    gateway.result("GET", "/instances/instance_id", {"instances": None})
    assert gateway.client.get_instance("5") is None


@pytest.mark.parametrize("status", [400, 404])
def test_a_destroy_of_what_is_gone(gateway: Gateway, status: int) -> None:
    gateway.error("DELETE", "/instances/instance_id", NO_SUCH, status)
    assert gateway.client.destroy("5") == "already gone"
    assert gateway.sent == [("DELETE", "/vastai/instances/instance_id", None)]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, AUTH, AuthError),
        (401, AUTH, AuthError),
        (400, GONE, OfferGone),
        (410, GONE | {"error": "no_such_ask"}, OfferGone),
        (400, BROKE, InsufficientCredit),
        (400, {"success": False, "error": "invalid_args", "msg": "image is required"}, InvalidRequest),
        (403, {"detail": "no"}, AuthError),
        (404, PAGE_404, NotFound),
        (404, "<html><title>404 Not Found</title></html>", NotFound),
        (429, "429 Too Many Requests\n\nAPI requests too frequent: endpoint threshold=4.5*1.0", RateLimited),
        (500, {"success": False, "error": "server_error", "msg": "Something went wrong"}, OutcomeUnknown),
        (502, "<html>nginx</html>", OutcomeUnknown),
    ],
)
def test_the_vendors_refusals_come_through(gateway: Gateway, status: int, body: Any, kind: type[ProviderError]) -> None:
    gateway.error("POST", "/instances", body, status)
    error = gateway.refuses(kind, ORDER, call=gateway.client.create)
    assert error.status == status


def test_a_gateway_that_still_asks_for_the_retired_listing_has_not_said_that_it_is_empty(gateway: Gateway) -> None:
    retired = {"success": False, "error": "deprecated_endpoint", "msg": "/api/v0/instances/ is deprecated."}
    gateway.error("GET", "/instances", retired, 410)
    error = gateway.refuses(NotSupported, call=gateway.client.list_instances)
    assert (error.code, error.status) == ("deprecated_endpoint", 410)


def test_a_gateway_that_ignores_the_pages_word_makes_no_short_listing(gateway: Gateway) -> None:
    for _ in range(4):
        gateway.result("GET", "/instances", listing([instance_row(1)], total=2, token="t"))
    gateway.refuses(ListingIncomplete, call=gateway.client.list_instances)


@pytest.mark.parametrize("token", ["", "at_ 1", "at_1\n", "at_é"])
def test_a_token_that_can_never_work(gateway: Gateway, token: str) -> None:
    http = HTTPClient("vastai", BASE, "", gateway.gate, gateway.observer, FixedClock())
    with pytest.raises(ValueError, match="the LowCodeAPI token is empty, or holds") as caught:
        LowCodeAPITransport(http, token)
    assert "at_" not in str(caught.value)


def test_a_rate_limit_says_how_long_and_holds_the_gate(gateway: Gateway) -> None:
    page = "<p>API requests too frequent: endpoint threshold=4.5*2.0</p>"
    gateway.error("POST", "/instances", page, 429)
    error = gateway.refuses(RateLimited, ORDER, call=gateway.client.create)
    assert error.retry_after == 9.0
    assert gateway.gate.pushed == [("vastai:create", 9.0)]


def test_a_rate_limit_inside_a_good_answer(gateway: Gateway) -> None:
    gateway.result(
        "DELETE", "/instances/instance_id", {"success": False, "error": "rate_limit_exceeded", "msg": "slow"}
    )
    error = gateway.refuses(RateLimited, "5", call=gateway.client.destroy)
    assert error.retry_after == 1.0


def test_a_refusal_inside_a_good_answer(gateway: Gateway) -> None:
    gateway.result("POST", "/instances", {"success": False, "new_contract": 12, "msg": "bid too low"})
    assert gateway.client.create(ORDER) == Created("12", accepted=False, note="bid too low")


@pytest.mark.parametrize("body", [{}, [], "text", 7, None, {"message": "Request completed"}, listing([])])
def test_what_is_no_envelope_proves_nothing(gateway: Gateway, body: Any) -> None:
    gateway.wire.add("GET", f"{BASE}/instances", json=body)
    gateway.wire.add("POST", f"{BASE}/instances", json=body)
    gateway.refuses(MalformedAnswer, call=gateway.client.list_instances)
    gateway.refuses(OutcomeUnknown, ORDER, call=gateway.client.create)


@pytest.mark.parametrize("result", [None, [], "text", 7, {}, {"instances": {}}])
def test_a_strange_result_proves_nothing(gateway: Gateway, result: Any) -> None:
    gateway.result("GET", "/instances", result)
    gateway.result("POST", "/instances", result)
    gateway.refuses(MalformedAnswer, call=gateway.client.list_instances)
    gateway.refuses(OutcomeUnknown, ORDER, call=gateway.client.create)


# The gateway's own refusals


def own_error(status: int, words: str) -> dict[str, Any]:
    """As the gateway has it: its error repeats the request, token and all."""
    logging_ = {"method": "GET", "path": "/vastai/balance", "query": {"api_token": TOKEN}, "headers": {"x": TOKEN}}
    return {"message": words, "provider": "vastai", "error": {"code": status, "logging": logging_}}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "A valid API token is required to access this API."),
        (403, "Invalid api_token"),
        (403, "No access token is associated with this api_token, authorize your vastai with LowCodeAPI."),
    ],
)
def test_a_token_that_is_refused(gateway: Gateway, caplog: pytest.LogCaptureFixture, status: int, words: str) -> None:
    caplog.set_level(logging.DEBUG)
    gateway.wire.add("GET", f"{BASE}/balance", json=own_error(status, words), status=status)
    error = gateway.refuses(AuthError, call=gateway.client.balance)
    assert (error.message, error.status) == (words, status)
    assert TOKEN not in f"{error} {error!r} {vars(error)} {error.__cause__} {error.__context__} {caplog.text}"


@pytest.mark.parametrize("status", [400, 404, 422])
def test_no_refusal_of_the_gateway_shows_the_token(gateway: Gateway, status: int) -> None:
    gateway.wire.add("GET", f"{BASE}/instances/instance_id", json=own_error(status, f"no: {TOKEN}"), status=status)
    with pytest.raises(ProviderError) as caught:
        gateway.client.get_instance("5")
    assert TOKEN not in f"{caught.value} {vars(caught.value)}"
    assert not isinstance(caught.value, AuthError)


def test_the_token_shows_nowhere_else(gateway: Gateway) -> None:
    gateway.wire.add("GET", f"{BASE}/balance", body=ConnectionError(f"{BASE}/balance?api_token={TOKEN}"))
    error = gateway.refuses(Unavailable, call=gateway.client.balance)
    assert TOKEN not in f"{error} {vars(error)} {error.__cause__!r} {error.__context__!r}"
    assert TOKEN not in f"{gateway.client!r} {gateway.client._transport!r}"


def test_a_route_that_the_gateway_does_not_know(gateway: Gateway) -> None:
    missing = {"message": "The requested API is not found."}
    gateway.wire.add("GET", f"{BASE}/instances/instance_id", json=missing, status=404)
    gateway.wire.add("DELETE", f"{BASE}/instances/instance_id", json=missing, status=404)
    error = gateway.refuses(NotSupported, "5", call=gateway.client.get_instance)
    assert error.message == "the gateway does not know 'get_instance'"
    gateway.refuses(NotSupported, "5", call=gateway.client.destroy)


SINCE = datetime(2026, 2, 1, tzinfo=UTC)
MISSING: dict[str, Callable[[VastAIByGateway], Any]] = {
    "detach_ssh_key": lambda client: client.detach_ssh_key("1", "2"),
    "instance_ssh_keys": lambda client: client.instance_ssh_keys("1"),
    "charges": lambda client: client.charges(SINCE, SINCE),
    "reboot": lambda client: client.reboot("1"),
    "recycle": lambda client: client.recycle("1"),
    "request_logs": lambda client: client.request_logs("1"),
    "set_min_bid": lambda client: client.set_min_bid("1", Decimal(1)),
}


@pytest.mark.parametrize("operation", MISSING)
def test_what_it_lacks_it_names(gateway: Gateway, operation: str) -> None:
    error = gateway.refuses(NotSupported, gateway.client, call=MISSING[operation])
    assert error.message == f"the LowCodeAPI gateway has no operation '{operation}' (VASTAI_TRANSPORT=native has)"
    assert gateway.sent == []


@pytest.mark.parametrize("bad", ["", "0", "abc", "1/ssh", "..", "1&x=2"])
def test_what_is_no_id_is_never_sent(gateway: Gateway, bad: str) -> None:
    calls: list[Callable[[str], Any]] = [
        gateway.client.get_instance, gateway.client.destroy, gateway.client.bid, gateway.client.delete_bid,
        gateway.client.offer, gateway.client.user, gateway.client.template, gateway.client.delete_template,
        gateway.client.invoice, gateway.client.host_machine, gateway.client.withdraw_machine_offer,
        gateway.client.delete_ssh_key,
    ]  # fmt: skip
    for call in calls:
        gateway.refuses(InvalidRequest, bad, call=call)
    gateway.refuses(InvalidRequest, Decimal(1), 1, 0, call=gateway.client.create_bid)
    assert gateway.sent == []


def test_a_part_is_sent_in_the_gateways_words(gateway: Gateway) -> None:
    gateway.result("GET", "/bids", {"bids": []})
    assert gateway.client.bids(Part(limit=3, offset=0, owner_id="77")) == ()
    assert gateway.params == [{"owner_id": "77", "limit": "3", "offset": "0", "api_token": TOKEN}]
