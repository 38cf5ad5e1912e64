"""Credentials, shares of the rate limit, and what a 429 does (TensorDock contract, sections 1 and 2)."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import requests

from providers.base import Provider
from providers.errors import GateClosed, ProviderError, RateLimited
from providers.http import Limits, NullGate, NullObserver
from providers.registry import TensorDockConfig, VastAIConfig, build
from providers.tensordock import PATIENT
from providers.tensordock.wire import LANES, ROUTES
from tests.providers.tensordock.conftest import (
    AUTH_ID,
    BASE,
    LABEL,
    NOW,
    TOKEN,
    VM,
    Vendor,
    detail,
    embedded,
    listed_row,
    made,
    order,
)
from tests.providers.wire import RawServer, RecordingGate, http_bytes, serving

PATH = f"/instances/{VM}"


def test_the_token_is_in_the_header_and_nowhere_else(vendor: Vendor) -> None:
    vendor.answer("POST", "/instances", made())
    vendor.client.create(order())
    request = vendor.wire.calls[0].request
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["Content-Type"] == "application/json"
    assert TOKEN not in f"{request.url}{request.body!r}{vendor.client!r}"


@pytest.mark.parametrize("secret", [TOKEN, AUTH_ID])
@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
def test_no_credential_gets_out(vendor: Vendor, caplog: pytest.LogCaptureFixture, secret: str, status: int) -> None:
    caplog.set_level(logging.DEBUG)
    vendor.answer("DELETE", PATH, {"error": f"nobody knows {secret} here"}, status)
    with pytest.raises(ProviderError) as caught:
        vendor.client.destroy(VM)
    assert "nobody knows" in str(caught.value)
    assert secret not in f"{caught.value!s}{caught.value!r}{caplog.text}"


def test_the_private_side_of_an_order_is_not_logged(vendor: Vendor, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bad_image = [{"code": "invalid_enum_value", "message": "no", "path": ["data", "attributes", "image"]}]
    vendor.answer("POST", "/instances", bad_image, 400)
    vendor.answer("POST", "/instances", made())
    vendor.client.create(order(env={"GPUBROKER_AGENT_TOKEN": "agent-token-that-nobody-may-see"}))
    assert LABEL in caplog.text
    assert "agent-token-that-nobody-may-see" not in caplog.text


def test_all_lanes_together_stay_below_the_limit() -> None:
    """100 a minute are published; 1.5 a second are advised."""
    assert sum(60 / seconds for seconds in LANES.values()) <= 90
    assert {route.lane for route in ROUTES.values()} == set(LANES)


def test_lanes_of_debts_are_named_as_the_broker_knows_them() -> None:
    """Its gate lets these pass when others are held."""
    assert ROUTES["destroy"].lane == "destroy"
    assert ROUTES["get_instance"].lane == "get_instance"


def test_every_call_takes_a_slot_of_its_lane(vendor: Vendor) -> None:
    vendor.listed(listed_row())
    vendor.answer("GET", PATH, detail())
    vendor.client.list_instances()
    assert vendor.gate.taken == [
        ("tensordock:list_instances", 4.0, 0.0),
        ("tensordock:describe", 3.0, 30.0),
    ]


def test_a_busy_listing_does_not_hold_a_destroy(vendor: Vendor) -> None:
    vendor.gate.held = {f"tensordock:{lane}": 60.0 for lane in LANES if lane != "destroy"}
    vendor.answer("DELETE", PATH, "", 204)
    assert vendor.client.destroy(VM) == "accepted"


LIMITS: list[tuple[int, Any, dict[str, str], float]] = [
    (429, {"error": "Too many requests"}, {"Retry-After": "17"}, 17.0),
    (429, "", {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "23"}, 23.0),
    (429, "", {"RateLimit-Reset": "23", "Retry-After": "2"}, 23.0),
    (429, "", {"X-RateLimit-Reset": str(int(NOW.timestamp()) + 31)}, 31.0),
    (429, "", {"X-RateLimit-Reset": str((int(NOW.timestamp()) + 31) * 1_000)}, 31.0),
    (429, "", {"X-RateLimit-Reset": "soon"}, 4.0),
    (429, "<html>", {}, 4.0),
    (429, {"retry_after": 9}, {}, 9.0),
    (400, {"error": "Too many requests"}, {}, 4.0),
    (200, embedded("Slow down", 429), {}, 10.0),
]


@pytest.mark.parametrize(("status", "body", "headers", "pause"), LIMITS)
def test_a_429_holds_the_whole_organisation(
    vendor: Vendor, status: int, body: Any, headers: dict[str, str], pause: float
) -> None:
    vendor.answer("GET", "/instances", body, status, headers=headers)
    error = vendor.refuses(RateLimited, vendor.client.list_instances)
    assert error.retry_after == pause
    assert {f"tensordock:{lane}" for lane in LANES} <= {key for key, _ in vendor.gate.pushed}
    assert {seconds for _, seconds in vendor.gate.pushed} == {pause}


def test_headers_of_a_limit_that_is_not_used_up_hold_nothing(vendor: Vendor) -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "50"}
    vendor.answer("GET", "/instances", {"data": []}, headers=headers)
    vendor.client.list_instances()
    assert vendor.gate.pushed == []


@pytest.mark.parametrize(
    ("lane", "call"),
    [
        ("locations", "list_offers"),
        ("create", "create"),
        ("list_instances", "list_instances"),
        ("get_instance", "get_instance"),
        ("destroy", "destroy"),
    ],
)
def test_a_held_lane_is_a_closed_gate(vendor: Vendor, lane: str, call: str) -> None:
    vendor.gate.held = {f"tensordock:{lane}": 7.0}
    arguments: dict[str, list[Any]] = {"create": [order()], "get_instance": [VM], "destroy": [VM]}
    error = vendor.refuses(GateClosed, getattr(vendor.client, call), *arguments.get(call, []))
    assert error.retry_after == 7.0
    assert vendor.sent == []


def client_of(server: RawServer, limits: Limits) -> Provider:
    config = TensorDockConfig(TOKEN, f"{server.url}/api/v2")
    return build([config], RecordingGate(), NullObserver(), limits=limits)["tensordock"]


@pytest.mark.parametrize(
    "script",
    [
        [5.0],
        [http_bytes(200, b'{"data": {"id": "5b0c', length=100), "close"],
        ["reset"],
        [http_bytes(200, b'{"data": {"id": "5b0c')],
    ],
    ids=["slow", "cut off", "reset", "half a JSON"],
)
def test_a_create_that_may_have_happened(script: list[Any]) -> None:
    with serving(script) as server, pytest.raises(ProviderError) as caught:
        client_of(server, Limits(connect=1.0, read=0.3, total=0.5)).create(order())
    assert caught.value.may_have_happened


def test_changes_are_waited_for_longer_than_reads() -> None:
    assert PATIENT.total >= 100
    assert Limits().total < PATIENT.total


def test_nobody_is_there() -> None:
    client = build([TensorDockConfig(TOKEN, "http://127.0.0.1:9")], NullGate(), NullObserver())["tensordock"]
    with pytest.raises(ProviderError) as caught:
        client.create(order())
    assert not caught.value.may_have_happened


def test_both_providers_are_built_and_hide_their_credentials() -> None:
    config = TensorDockConfig(TOKEN, BASE, auth_id=AUTH_ID)
    built = build([VastAIConfig("0a1b2c3d" * 8), config], NullGate(), NullObserver())
    assert list(built) == ["vastai", "tensordock"]
    assert built["tensordock"].name == "tensordock"
    shown = f"{config!r}{built!r}"
    assert TOKEN not in shown
    assert AUTH_ID not in shown


def test_a_provider_is_configured_once() -> None:
    with pytest.raises(ValueError, match="tensordock is configured twice"):
        build([TensorDockConfig(TOKEN), TensorDockConfig(TOKEN)], NullGate(), NullObserver())


def test_a_redirect_is_not_followed(vendor: Vendor) -> None:
    vendor.answer("POST", "/instances", "", 307, headers={"Location": "https://elsewhere.example/api"})
    with pytest.raises(ProviderError) as caught:
        vendor.client.create(order())
    assert caught.value.may_have_happened
    assert len(vendor.wire.calls) == 1


def test_a_timeout_is_observed_under_its_operation(vendor: Vendor) -> None:
    vendor.answer("DELETE", PATH, requests.ReadTimeout("slow"))
    with pytest.raises(ProviderError):
        vendor.client.destroy(VM)
    assert vendor.observer.seen == [("tensordock", "destroy", "outcome_unknown")]
