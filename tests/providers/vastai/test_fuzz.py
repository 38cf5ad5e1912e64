"""Whatever the vendor answers, a call ends with a valid result or a ``ProviderError``: nothing else gets out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import responses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.base import Created, Instance, InstanceListing, LaunchOrder, OfferData, OfferListing
from providers.errors import OutcomeUnknown, ProviderError
from providers.http import HTTPClient, NullGate, NullObserver
from providers.vastai import AnyVastAI, LowCodeAPITransport, NativeTransport, OfferSearch, VastAI, VastAIByGateway
from tests.examples import examples
from tests.providers.vastai.conftest import BASE, KEY, instance_row, listing, offer_row

_ANY = re.compile(r".*")
SINCE, UNTIL = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
ORDER = LaunchOrder(offer_id="1", label="gpb-prod-abcdefghijklmn27-1", image="img:1", disk_gb=20)

OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "list_offers": lambda client: client.list_offers(),
    "create": lambda client: client.create(ORDER),
    "list_instances": lambda client: client.list_instances(),
    "find_by_label": lambda client: client.find_by_label(ORDER.label),
    "get_instance": lambda client: client.get_instance("9000001"),
    "destroy": lambda client: client.destroy("9000001"),
    "destroy_many": lambda client: client.destroy_many(["1", "2"]),
    "set_label": lambda client: client.set_label("1", "x"),
    "start": lambda client: client.set_state("1", running=True),
    "stop": lambda client: client.set_state("1", running=False),
    "set_bid": lambda client: client.set_bid("1", Decimal("0.5")),
    "attach_ssh_key": lambda client: client.attach_ssh_key("1", "ssh-ed25519 AAAA"),
    "detach_ssh_key": lambda client: client.detach_ssh_key("1", "2"),
    "instance_ssh_keys": lambda client: client.instance_ssh_keys("1"),
    "ssh_keys": lambda client: client.ssh_keys(),
    "add_ssh_key": lambda client: client.add_ssh_key("ssh-ed25519 AAAA"),
    "delete_ssh_key": lambda client: client.delete_ssh_key("1"),
    "list_templates": lambda client: client.list_templates({}),
    "all_templates": lambda client: client.list_templates(),
    "balance": lambda client: client.balance(),
    "charges": lambda client: client.charges(SINCE, UNTIL),
    "invoices": lambda client: client.invoices(SINCE, UNTIL),
    "offer_page": lambda client: client.offer_page(),
    "offer": lambda client: client.offer("7000001"),
    "instance_page": lambda client: client.instance_page("running"),
    "bids": lambda client: client.bids(),
    "bid": lambda client: client.bid("9000001"),
    "create_bid": lambda client: client.create_bid(Decimal(1), 1, 1),
    "delete_bid": lambda client: client.delete_bid("9000001"),
    "update_instance": lambda client: client.update_instance("1", {"label": "x"}),
    "reboot": lambda client: client.reboot("1"),
    "request_logs": lambda client: client.request_logs("1"),
    "current_user": lambda client: client.current_user(),
    "user": lambda client: client.user("1"),
    "update_current_user": lambda client: client.update_current_user({"username": "x"}),
    "invoice_page": lambda client: client.invoice_page(),
    "invoice": lambda client: client.invoice("1"),
    "template": lambda client: client.template("1"),
    "template_page": lambda client: client.template_page(),
    "create_template": lambda client: client.create_template("x", "img:1"),
    "update_template": lambda client: client.update_template("1", {"name": "x"}),
    "delete_template": lambda client: client.delete_template("1"),
    "host_machines": lambda client: client.host_machines(),
    "host_machine": lambda client: client.host_machine("1"),
    "offer_machine": lambda client: client.offer_machine("1", Decimal(1)),
    "update_machine_offer": lambda client: client.update_machine_offer("1", {"price_gpu": 1}),
    "withdraw_machine_offer": lambda client: client.withdraw_machine_offer("1"),
}
BY_GATEWAY = sorted(OPERATIONS.keys() - {"destroy_many"})

WORDS = [
    *("success", "error", "msg", "message", "detail", "instances", "instances_found", "total_instances", "next_token"),
    *(
        "label_counts",
        "offers",
        "new_contract",
        "results",
        "count",
        "total",
        "templates",
        "ssh_keys",
        "key",
        "credit",
        "id",
    ),
    *("retry_after", "amount", "source", "metadata", "items", "hash_id", "public_key"),
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "0", "running", "stopped", "no_such_instance", "auth_error", "no_such_ask", "[]", "9" * 30]),
    st.text(max_size=12),
    st.sampled_from([1e308, -1e308, 5e-324]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=5)), inner, max_size=8),
    ),
    max_leaves=25,
)


def spoilt(row: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A good row in which some fields hold anything."""
    return st.dictionaries(st.sampled_from(sorted(row)), values, max_size=6).map(lambda changes: row | changes)


offers = st.lists(st.one_of(spoilt(offer_row()), values), max_size=4).map(lambda rows: {"offers": rows})
instances = st.lists(st.one_of(spoilt(instance_row()), values), max_size=4).map(lambda rows: listing(rows))
one = spoilt(instance_row()).map(lambda row: {"instances": row})
bodies = st.one_of(values, offers, instances, one)
statuses = st.sampled_from([200, 200, 200, 200, 201, 204, 301, 400, 401, 402, 403, 404, 410, 411, 422, 429, 500, 502])


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(status=statuses, body=bodies, cut=st.one_of(st.none(), st.integers(0, 30)))
def test_only_provider_errors_get_out(operation: str, status: int, body: Any, cut: int | None) -> None:
    http = HTTPClient("vastai", BASE, KEY, NullGate(), NullObserver())
    client = VastAI(NativeTransport(http), OfferSearch(max_pages=4))
    _fuzz(client, operation, status, body, cut)


@pytest.mark.parametrize("operation", BY_GATEWAY)
@settings(max_examples=examples(4), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    status=statuses,
    body=bodies,
    under=st.sampled_from(["result", "error", "message"]),
    cut=st.one_of(st.none(), st.integers(0, 30)),
)
def test_only_provider_errors_get_out_of_the_gateway(
    operation: str, status: int, body: Any, under: str, cut: int | None
) -> None:
    http = HTTPClient("vastai", BASE, "", NullGate(), NullObserver(), secrets=(KEY,))
    client = VastAIByGateway(LowCodeAPITransport(http, KEY), OfferSearch(max_pages=4))
    _fuzz(client, operation, status, {"message": KEY, "provider": "vastai", under: body}, cut)


def _fuzz(client: AnyVastAI, operation: str, status: int, body: Any, cut: int | None) -> None:
    content = json.dumps(body).encode()
    content = content if cut is None else content[:cut]
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        for method in ("GET", "PUT", "POST", "DELETE"):
            wire.add(method, url=_ANY, status=status, body=content)
        result = _outcome(lambda: OPERATIONS[operation](client))
    _check(result)
    assert isinstance(result, ProviderError) or 200 <= status < 300 or 400 <= status < 500


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ProviderError as error:
        return error


def _check(result: Any) -> None:
    """Results and errors hold what their types promise."""
    if isinstance(result, ProviderError):
        assert KEY not in str(result)
        assert result.retry_after is None or 0 < result.retry_after <= 600
        assert result.may_have_happened is isinstance(result, OutcomeUnknown)
    elif isinstance(result, OfferListing):
        for offer in result.offers:
            _check_offer(offer)
    elif isinstance(result, InstanceListing):
        for instance in result.instances:
            _check_instance(instance)
    elif isinstance(result, Created):
        assert result.instance_id.isdecimal()
    elif isinstance(result, Instance):
        _check_instance(result)


def _check_offer(offer: OfferData) -> None:
    assert offer.provider_id.isdecimal()
    assert offer.price_per_hour > 0
    assert offer.gpu_count > 0
    assert offer.vram_mb > 0
    json.dumps(offer.raw, allow_nan=False).encode()


def _check_instance(instance: Instance) -> None:
    assert instance.instance_id.isdecimal()
    instance.label.encode()
    assert all(0 < endpoint.port < 65_536 and endpoint.host for endpoint in instance.ssh_endpoints)
    assert all(0 < port < 65_536 for port in instance.ports)
    for rate in (instance.gpu_price_per_hour, instance.storage_price_per_hour):
        assert rate is None or rate >= 0
