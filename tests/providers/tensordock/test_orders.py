"""Creates on a hostnode, and orders that are refused without a call (TensorDock contract, sections 4.2 and 5)."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from typing import Any

import pytest
import requests

from providers.base import Access
from providers.errors import (
    InvalidRequest,
    NotSupported,
    OfferGone,
    ProviderError,
    Unavailable,
)
from tests.providers.tensordock.conftest import (
    BASE,
    GPU,
    KEY_ONE,
    KEY_TWO,
    NODE,
    ON_HOST,
    Vendor,
    embedded,
    hostnode,
    made,
    order,
)


def test_a_hostnode_is_asked_first(vendor: Vendor) -> None:
    vendor.answer("GET", f"/hostnodes/{NODE}", {"data": hostnode({"has_public_ip_available": False})})
    vendor.answer("POST", "/instances", made())
    vendor.client.create(order(ON_HOST, ports=(8000,)))
    (sent,) = vendor.created
    assert (sent["hostnode_id"], "location_id" in sent) == (NODE, False)
    assert sent["resources"] == {"vcpu_count": 16, "ram_gb": 64, "storage_gb": 120, "gpus": {GPU: {"count": 2}}}
    assert sent["port_forwards"] == [
        {"internal_port": 22, "external_port": 20456},
        {"internal_port": 8000, "external_port": 20457},
    ]


def test_a_hostnode_with_an_address_free(vendor: Vendor) -> None:
    vendor.answer("GET", f"/hostnodes/{NODE}", {"data": hostnode({"available_ports": []})})
    vendor.answer("POST", "/instances", made())
    vendor.client.create(order(ON_HOST))
    (sent,) = vendor.created
    assert (sent["useDedicatedIp"], "port_forwards" in sent) == (True, False)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"error": "Hostnode not found"}),
        (404, {"error": "Not found"}),
        (200, embedded("Hostnode not found", 404)),
        (200, {"data": hostnode({"gpus": []})}),
        (200, {"data": hostnode({"gpus": [{"v0Name": GPU, "availableCount": 1}]})}),
        (200, {"data": hostnode({"gpus": [{"v0Name": "l4-pcie-24gb", "availableCount": 8}]})}),
        (200, {"data": hostnode({"gpus": None})}),
        (200, {"data": hostnode({"has_public_ip_available": False, "available_ports": []})}),
        (200, {"data": hostnode({"has_public_ip_available": False, "available_ports": [20456, 20456, 0, "x"]})}),
        (200, {"data": hostnode({"has_public_ip_available": None, "available_ports": None})}),
    ],
)
def test_a_hostnode_that_has_too_little_by_now(vendor: Vendor, status: int, body: Any) -> None:
    vendor.answer("GET", f"/hostnodes/{NODE}", body, status)
    vendor.refuses(OfferGone, vendor.client.create, order(ON_HOST, ports=(8000,)))
    assert vendor.created == []


@pytest.mark.parametrize(("status", "body"), [(502, "<html>"), (200, {"data": []}), (200, {}), (401, {"error": "no"})])
def test_a_hostnode_that_cannot_be_asked(vendor: Vendor, status: int, body: Any) -> None:
    vendor.answer("GET", f"/hostnodes/{NODE}", body, status)
    with pytest.raises(ProviderError) as caught:
        vendor.client.create(order(ON_HOST))
    assert not caught.value.may_have_happened
    assert vendor.created == []


def test_a_hostnode_that_answers_late(vendor: Vendor) -> None:
    """The create that would follow could outlive the caller's lease."""

    def slowly(_: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        vendor.clock.seconds += 25
        return 200, {}, json.dumps({"data": hostnode()})

    vendor.wire.add_callback("GET", f"{BASE}/hostnodes/{NODE}", slowly)
    error = vendor.refuses(Unavailable, vendor.client.create, order(ON_HOST))
    assert not error.may_have_happened
    assert vendor.created == []


# What is refused without a call


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"offer_id": "29907796"}, InvalidRequest),
        ({"image": "nvidia/cuda:12.4.1"}, InvalidRequest),
        ({"image": "windows10"}, InvalidRequest),
        ({"ssh_public_keys": ()}, InvalidRequest),
        ({"ssh_public_keys": ("ssh-rsa",)}, InvalidRequest),
        ({"ssh_public_keys": (KEY_ONE, "ssh-rsa AAAA'; reboot; '")}, InvalidRequest),
        ({"ssh_public_keys": (KEY_ONE + "\n" + KEY_TWO,)}, InvalidRequest),
        ({"env": {"A B": "1"}}, InvalidRequest),
        ({"env": {"A": 'say "hi"'}}, InvalidRequest),
        ({"env": {"A": "$HOME"}}, InvalidRequest),
        ({"env": {"A": "it's"}}, InvalidRequest),
        ({"env": {"A": "a\nb"}}, InvalidRequest),
        ({"ports": (0,)}, InvalidRequest),
        ({"ports": tuple(range(1000, 1065))}, InvalidRequest),
        ({"access": Access.ENTRYPOINT}, NotSupported),
        ({"args": ("serve",)}, NotSupported),
        ({"template_id": "abc"}, NotSupported),
        ({"bid_price": Decimal("0.2")}, NotSupported),
    ],
)
def test_an_order_that_cannot_be_sent(vendor: Vendor, changes: dict[str, Any], kind: type[ProviderError]) -> None:
    error = vendor.refuses(kind, vendor.client.create, order(**changes))
    assert not error.may_have_happened
    assert vendor.sent == []
    assert vendor.gate.taken == []


@pytest.mark.parametrize("label", ["", "x" * 61])
def test_a_label_that_could_not_be_found_again(vendor: Vendor, label: str) -> None:
    vendor.refuses(InvalidRequest, vendor.client.create, dataclasses.replace(order(), label=label))
    assert vendor.sent == []
