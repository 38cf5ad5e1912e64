"""Keys, templates and money of the account (the contract's sections 4.7 and 5)."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from providers.base import Balance, TemplateData
from providers.errors import (
    AuthError,
    InvalidRequest,
    ListingIncomplete,
    MalformedAnswer,
    NotFound,
    OutcomeUnknown,
    ProviderError,
)
from providers.vastai.records import Charge, ChargeItem, Invoice, SSHKey
from tests.providers.vastai.conftest import KEY, Vendor

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here"
SINCE = datetime(2026, 2, 1, tzinfo=UTC)
UNTIL = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("credit", "expected"), [("12.340", "12.340"), ("-0.5", "-0.5"), ("0", "0"), ('"7.25"', "7.25"), ("0.1", "0.1")]
)
def test_balance(vendor: Vendor, credit: str, expected: str) -> None:
    vendor.answer("GET", "/v0/users/current/", f'{{"id": 5, "balance": 0, "credit": {credit}, "api_key": "{KEY}"}}')
    assert vendor.client.balance() == Balance(Decimal(expected))


@pytest.mark.parametrize("body", [{}, [], {"balance": 5}, {"credit": None}, {"credit": "lots"}, {"credit": True}, "7"])
def test_no_balance(vendor: Vendor, body: Any) -> None:
    vendor.answer("GET", "/v0/users/current/", body)
    vendor.refuses(MalformedAnswer, call=vendor.client.balance)


# Keys


def test_ssh_keys(vendor: Vendor) -> None:
    vendor.answer("GET", "/v0/ssh/", [{"id": 1, "key": PUBLIC}, {"id": 2, "public_key": PUBLIC, "user_id": 5}])
    assert vendor.client.ssh_keys() == (SSHKey("1", PUBLIC), SSHKey("2", PUBLIC))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, []),
        (404, {"success": False, "msg": "No SSH keys found for the user."}),
        (404, "No SSH keys found for the user."),
    ],
)
def test_no_ssh_keys(vendor: Vendor, status: int, body: Any) -> None:
    vendor.answer("GET", "/v0/ssh/", body, status)
    assert vendor.client.ssh_keys() == ()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"success": False, "error": "auth_error", "msg": "Invalid user key"}, AuthError),
        (404, "<html>", NotFound),
        (200, {}, MalformedAnswer),
        (200, [{"id": 1}], MalformedAnswer),
    ],
)
def test_ssh_keys_unknown(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("GET", "/v0/ssh/", body, status)
    vendor.refuses(kind, call=vendor.client.ssh_keys)


def test_add_and_delete(vendor: Vendor) -> None:
    vendor.answer("POST", "/v0/ssh/", {"success": True, "key": {"id": 3, "public_key": PUBLIC}})
    vendor.answer("DELETE", "/v0/ssh/3/", {"success": True})
    assert vendor.client.add_ssh_key(PUBLIC) == SSHKey("3", PUBLIC)
    vendor.client.delete_ssh_key("3")
    assert vendor.sent == [("POST", "/api/v0/ssh/", {"ssh_key": PUBLIC}), ("DELETE", "/api/v0/ssh/3/", {})]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"success": False, "error": "team_ssh_keys_not_supported"}, InvalidRequest),
        (400, {"success": False, "error": "no_ssh_key", "msg": "a key is needed"}, InvalidRequest),
        (200, {"success": True}, OutcomeUnknown),
    ],
)
def test_add_refused(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("POST", "/v0/ssh/", body, status)
    vendor.refuses(kind, PUBLIC, call=vendor.client.add_ssh_key)


@pytest.mark.parametrize(("status", "code"), [(400, "no_ssh_key"), (404, "not_found")])
def test_delete_what_is_not_there(vendor: Vendor, status: int, code: str) -> None:
    vendor.answer("DELETE", "/v0/ssh/3/", {"success": False, "error": code}, status)
    vendor.client.delete_ssh_key("3")


# Templates

TEMPLATE = {
    "id": 123456,
    "hash_id": "4e17788f74f075dd9aab7d0d4427968f",
    "name": "PyTorch",
    "image": "pytorch/pytorch",
    "extra_filters": '{"num_gpus":{"eq":"2"}}',
    "price": 1.5,
}


def test_templates_by_filter(vendor: Vendor) -> None:
    vendor.answer("GET", "/v0/template/", {"success": True, "templates_found": 1, "templates": [TEMPLATE]})
    filters = {"hash_id": {"eq": TEMPLATE["hash_id"]}}
    assert vendor.client.list_templates(filters) == (
        TemplateData(123456, "4e17788f74f075dd9aab7d0d4427968f", "PyTorch", "pytorch/pytorch", raw=TEMPLATE),
    )
    assert json.loads(vendor.params[0]["select_filters"]) == filters
    assert json.loads(vendor.params[0]["select_cols"]) == ["*"]


def test_templates_of_ones_own_and_the_recommended(vendor: Vendor) -> None:
    vendor.answer("GET", "/v0/users/current/", {"id": 77, "credit": 1})
    vendor.answer("GET", "/v0/template/", {"templates": [TEMPLATE]})
    vendor.answer("GET", "/v0/template/", {"templates": [TEMPLATE | {"name": "recommended"}, TEMPLATE | {"id": 9}]})
    assert sorted((each.provider_id, each.name) for each in vendor.client.list_templates()) == [
        (9, "PyTorch"),
        (123456, "PyTorch"),
    ]
    asked = [json.loads(each["select_filters"]) for each in vendor.params[1:]]
    assert asked == [{"creator_id": {"eq": 77}}, {"recommended": {"eq": True}}]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({}, MalformedAnswer),
        ({"templates": None}, MalformedAnswer),
        ([], MalformedAnswer),
        ({"templates": [TEMPLATE, None]}, ListingIncomplete),
        ({"templates": [TEMPLATE | {"id": None}]}, ListingIncomplete),
        ({"templates": [TEMPLATE | {"hash_id": ""}]}, ListingIncomplete),
    ],
)
def test_templates_that_cannot_be_understood(vendor: Vendor, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("GET", "/v0/template/", body)
    vendor.refuses(kind, {}, call=vendor.client.list_templates)


# Money

CHARGE = {
    "start": 1_771_000_000,
    "end": 1_771_003_600.5,
    "type": "instance",
    "source": "instance-12345678",
    "description": "1 x RTX 4090",
    "amount": 1.234,
    "metadata": {"label": "gpb-prod-abcdefghijklmn27-1"},
    "items": [{"type": "gpu", "description": "3 hours at $0.389/hour", "amount": 1.167}, None, {"type": "disk"}],
}


def statement(rows: list[Any], total: int | None = None, token: str | None = None) -> dict[str, Any]:
    total = len(rows) if total is None else total
    return {"success": True, "count": len(rows), "total": total, "next_token": token, "results": rows}


def test_charges(vendor: Vendor) -> None:
    vendor.answer("GET", "/v0/charges/", json.dumps(statement([CHARGE], total=2, token="t")))
    vendor.answer(
        "GET", "/v0/charges/", json.dumps(statement([CHARGE | {"source": "volume-5", "metadata": None}], total=2))
    )
    first, second = vendor.client.charges(SINCE, UNTIL)
    assert first == Charge(
        source="instance-12345678",
        instance_id="12345678",
        label="gpb-prod-abcdefghijklmn27-1",
        description="1 x RTX 4090",
        amount=Decimal("1.234"),
        starts_at=datetime.fromtimestamp(1_771_000_000, UTC),
        ends_at=datetime.fromtimestamp(1_771_003_600.5, UTC),
        items=(ChargeItem("gpu", "3 hours at $0.389/hour", Decimal("1.167")),),
    )
    assert (second.instance_id, second.label) == ("", "")
    assert json.loads(vendor.params[0]["select_filters"]) == {
        "day": {"gte": 1769904000, "lte": 1772323200},
        "type": {"in": ["instance"]},
    }
    assert vendor.params[1]["after_token"] == "t"


def test_invoices(vendor: Vendor) -> None:
    row = {
        "start": 1_771_000_000,
        "end": None,
        "type": "credit",
        "source": "stripe",
        "description": "top-up",
        "amount": -25.0,
    }
    vendor.answer("GET", "/v1/invoices/", json.dumps(statement([row])))
    assert vendor.client.invoices(SINCE, UNTIL) == (
        Invoice("credit", "stripe", "top-up", Decimal("-25.0"), datetime.fromtimestamp(1_771_000_000, UTC), None),
    )


@pytest.mark.parametrize("call", ["charges", "invoices"])
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {"success": False, "error": "Invalid date range", "results": [], "count": 0, "total": 0}, InvalidRequest),
        (400, {"success": False, "msg": "Must provide both 'day' gte and lte filters"}, InvalidRequest),
        (200, statement([], total=3), ListingIncomplete),
        (200, statement([{"amount": None}]), ListingIncomplete),
        (200, {"success": True}, MalformedAnswer),
    ],
)
def test_no_statement(vendor: Vendor, call: str, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("GET", {"charges": "/v0/charges/", "invoices": "/v1/invoices/"}[call], body, status)
    vendor.refuses(kind, SINCE, UNTIL, call=getattr(vendor.client, call))
