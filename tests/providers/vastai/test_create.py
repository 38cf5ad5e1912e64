from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import requests

from providers.base import Access, Created, LaunchOrder
from providers.errors import InvalidRequest, OutcomeUnknown, Unavailable
from providers.vastai.orders import DEFAULT_IMAGE
from tests.providers.vastai.conftest import Vendor

PATH = "/v0/asks/7000001/"
ORDER = LaunchOrder(
    offer_id="7000001",
    label="gpb-prod-abcdefghijklmn27-1",
    image="vllm/vllm-openai:v0.11.0",
    disk_gb=60,
    env={"HF_HOME": "/data", "EMPTY": ""},
    ports=(8000, 22, 8000, 9000),
    onstart="echo hello",
    ssh_public_keys=("ssh-ed25519 AAAA me",),
)


def sent_for(vendor: Vendor, order: LaunchOrder) -> dict[str, Any]:
    vendor.answer("PUT", PATH, {"success": True, "new_contract": 42})
    vendor.client.create(order)
    method, path, body = vendor.sent[0]
    assert (method, path) == ("PUT", "/api" + PATH)
    assert isinstance(body, dict)
    return body


def test_an_order_as_sent(vendor: Vendor) -> None:
    assert sent_for(vendor, ORDER) == {
        "client_id": "me",
        "label": "gpb-prod-abcdefghijklmn27-1",
        "image": "vllm/vllm-openai:v0.11.0",
        "disk": 60,
        "env": {"HF_HOME": "/data", "EMPTY": "", "-p 8000:8000": "1", "-p 9000:9000": "1"},
        "cancel_unavail": True,
        "runtype": "ssh_direc ssh_proxy",
        "onstart": "echo hello",
    }
    assert vendor.gate.taken == [("vastai:create", 4.5, 0.0)]


def test_without_an_image_ours_is_taken_and_it_has_a_tag(vendor: Vendor) -> None:
    assert sent_for(vendor, replace(ORDER, image=""))["image"] == DEFAULT_IMAGE
    assert ":" in DEFAULT_IMAGE


def test_a_template_brings_its_own_image_and_way_of_launching(vendor: Vendor) -> None:
    body = sent_for(vendor, replace(ORDER, image="", template_id="4e17788f74f075dd9aab7d0d4427968f"))
    assert body["template_hash_id"] == "4e17788f74f075dd9aab7d0d4427968f"
    assert "image" not in body
    assert "runtype" not in body


def test_ssh_can_be_had_out_of_any_template(vendor: Vendor) -> None:
    """Scalars in the request win over the template's (section 3.1)."""
    body = sent_for(vendor, replace(ORDER, image="", template_id="4e17788f74f075dd9aab7d0d4427968f", access=Access.SSH))
    assert (body["runtype"], "image" in body) == ("ssh_direc ssh_proxy", False)


def test_an_image_as_it_is_without_arguments(vendor: Vendor) -> None:
    body = sent_for(vendor, replace(ORDER, onstart="", access=Access.ENTRYPOINT, ports=(22, 80)))
    assert (body["runtype"], body["args"], body["user"]) == ("args", [], "root")
    assert "onstart" not in body
    assert {"-p 22:22", "-p 80:80"} < set(body["env"])


def test_an_image_beside_a_template_wins(vendor: Vendor) -> None:
    assert sent_for(vendor, replace(ORDER, template_id="4e17"))["image"] == ORDER.image


def test_arguments_run_the_image_as_it_is(vendor: Vendor) -> None:
    body = sent_for(vendor, replace(ORDER, args=("-c", "sleep 9"), onstart="/bin/sh", ports=(22,)))
    assert (body["runtype"], body["onstart"], body["args"], body["user"]) == (
        "args",
        "/bin/sh",
        ["-c", "sleep 9"],
        "root",
    )
    assert "-p 22:22" in body["env"]


def test_only_a_bid_sends_a_price(vendor: Vendor) -> None:
    assert sent_for(vendor, replace(ORDER, bid_price=Decimal("0.215")))["price"] == 0.215


@pytest.mark.parametrize(
    "order",
    [
        replace(ORDER, label=""),
        replace(ORDER, offer_id=""),
        replace(ORDER, offer_id="../users"),
        replace(ORDER, offer_id="0"),
        replace(ORDER, offer_id="7 "),
        replace(ORDER, env={"-v /:/host": "1"}),
        replace(ORDER, env={"": "1"}),
        replace(ORDER, env={"A B": "1"}),
        replace(ORDER, ports=(0,)),
        replace(ORDER, ports=(65_536,)),
        replace(ORDER, ports=tuple(range(1000, 1065))),
        replace(ORDER, bid_price=Decimal(0)),
        replace(ORDER, bid_price=Decimal("NaN")),
    ],
)
def test_a_bad_order_is_not_sent(vendor: Vendor, order: LaunchOrder) -> None:
    vendor.refuses(InvalidRequest, order, call=vendor.client.create)
    assert vendor.sent == []
    assert vendor.gate.taken == []


LOW_BID = "Bid price too low: the winning one is 0.31"


@pytest.mark.parametrize(
    ("status", "body", "created"),
    [
        (200, {"success": True, "new_contract": 42, "instance_api_key": "d" * 64}, Created("42")),
        (200, {"new_contract": 42}, Created("42")),
        (200, {"success": None, "new_contract": "42"}, Created("42")),
        (201, {"success": True, "new_contract": 42}, Created("42")),
        (200, {"success": False, "new_contract": 42, "msg": LOW_BID}, Created("42", accepted=False, note=LOW_BID)),
        (
            400,
            {"success": False, "new_contract": 42, "error": "bid_low"},
            Created("42", accepted=False, note="bid_low"),
        ),
        (
            410,
            {"success": False, "new_contract": 42, "msg": "no_such_ask"},
            Created("42", accepted=False, note="no_such_ask"),
        ),
        (200, {"success": "false", "new_contract": 42, "msg": "x"}, Created("42", accepted=False, note="x")),
    ],
)
def test_a_contract_was_made(vendor: Vendor, status: int, body: Any, created: Created) -> None:
    vendor.answer("PUT", PATH, body, status)
    assert vendor.client.create(ORDER) == created
    assert vendor.observer.seen == [("vastai", "create", "")]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"success": True}),
        (200, {"success": True, "new_contract": None}),
        (200, {"success": True, "new_contract": 0}),
        (200, {"success": False, "new_contract": "abc"}),
        (400, {"success": False, "new_contract": -1}),
        (200, {"success": True, "new_contract": True}),
        (200, {}),
        (200, []),
        (200, "null"),
        (200, '{"success": true, "new_contr'),
        (200, ""),
        (200, "<html>ok</html>"),
        (500, {"success": False, "error": "server_error"}),
        (504, "<html>Gateway Timeout</html>"),
        (307, ""),
    ],
)
def test_an_answer_that_leaves_it_open(vendor: Vendor, status: int, body: Any) -> None:
    vendor.answer("PUT", PATH, body, status)
    error = vendor.refuses(OutcomeUnknown, ORDER, call=vendor.client.create)
    assert error.may_have_happened
    assert len(vendor.sent) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (requests.ConnectTimeout("x"), Unavailable),
        (requests.ReadTimeout("x"), OutcomeUnknown),
        (requests.ConnectionError("reset"), OutcomeUnknown),
        (requests.exceptions.ChunkedEncodingError("cut"), OutcomeUnknown),
    ],
)
def test_a_lost_answer(vendor: Vendor, fault: Exception, kind: type[Unavailable] | type[OutcomeUnknown]) -> None:
    vendor.answer("PUT", PATH, fault)
    vendor.refuses(kind, ORDER, call=vendor.client.create)
    assert len(vendor.sent) == 1
