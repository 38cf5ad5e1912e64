"""Every operation that the seed's document lists, called through the client, as it arrives over the wire."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, cast

import pytest

from providers.base import LaunchOrder
from providers.http import NullGate, NullObserver
from providers.registry import LowCodeAPIConfig, build
from providers.vastai import Part, VastAIByGateway
from tests.providers.contract import PATIENT, PUBLIC_KEY, new_label
from tests.providers.vastai.recorder import Recorder
from tests.providers.vastai.seed import CATEGORIES, DOCUMENT, OPERATIONS, Operation
from tests.sandbox import SandboxProcess

PREFIX = "/lowcodeapi/vastai"
PART = Part(limit=5, offset=1)


def through(url: str, key: str) -> VastAIByGateway:
    built = build([LowCodeAPIConfig(f"at_{key}", url + PREFIX)], NullGate(), NullObserver(), limits=PATIENT, pace=0.0)
    return cast(VastAIByGateway, built["vastai"])


class Scene:
    """The client under test, whose calls are recorded, and things for it to name, made by another one."""

    def __init__(self, market: SandboxProcess, recorder: Recorder) -> None:
        self.market = market
        self.client = through(recorder.url, market.api_key)
        self.helper = through(market.url, market.api_key)

    @property
    def me(self) -> str:
        return self.helper.current_user().user_id

    @property
    def offer(self) -> str:
        return self.helper.offer_page(part=Part(limit=1))[0].provider_id

    @property
    def instance(self) -> str:
        return self.helper.create(self.order).instance_id

    @property
    def order(self) -> LaunchOrder:
        return LaunchOrder(self.offer, new_label(), "ubuntu:24.04", 20, ssh_public_keys=(PUBLIC_KEY,))

    @property
    def bid(self) -> str:
        return self.helper.create_bid(Decimal("5.0"), 1, 1, new_label()).instance_id

    @property
    def invoice(self) -> str:
        return self.helper.invoice_page()[0].invoice_id

    @property
    def machine(self) -> str:
        return str(self.market.admin("POST", "machines", {})["id"])

    @property
    def listed_machine(self) -> str:
        machine = self.machine
        self.helper.offer_machine(machine, Decimal("0.5"))
        return machine

    @property
    def key(self) -> str:
        return self.helper.add_ssh_key(PUBLIC_KEY).key_id

    @property
    def template(self) -> str:
        return str(self.helper.create_template("mine", "ubuntu:24.04").template_id)

    def whose(self, part: Part = PART) -> Part:
        return Part(part.limit, part.offset, self.me)


CALLS: dict[str, Callable[[Scene], Any]] = {
    "GET /balance": lambda s: s.client.balance(),
    "GET /bids": lambda s: s.client.bids(s.whose()),
    "GET /bids/bid_id": lambda s: s.client.bid(s.bid),
    "POST /bids": lambda s: s.client.create_bid(Decimal("5.0"), 1, 1),
    "PUT /bids/bid_id": lambda s: s.client.set_bid(s.bid, Decimal("6.0")),
    "DELETE /bids/bid_id": lambda s: s.client.delete_bid(s.bid),
    "GET /instances": lambda s: s.client.instance_page("running", s.whose()),
    "GET /instances/instance_id": lambda s: s.client.get_instance(s.instance),
    "POST /instances": lambda s: s.client.create(s.order),
    "PUT /instances/instance_id": lambda s: s.client.update_instance(s.instance, {"label": "another"}),
    "POST /instances/instance_id/stop": lambda s: s.client.set_state(s.instance, running=False),
    "POST /instances/instance_id/start": lambda s: s.client.set_state(s.instance, running=True),
    "DELETE /instances/instance_id": lambda s: s.client.destroy(s.instance),
    "GET /invoices": lambda s: s.client.invoice_page(PART),
    "GET /invoices/invoice_id": lambda s: s.client.invoice(s.invoice),
    "GET /machines": lambda s: s.client.host_machines(s.whose()),
    "GET /machines/machine_id": lambda s: s.client.host_machine(s.machine),
    "POST /machines": lambda s: s.client.offer_machine(s.machine, Decimal("0.5")),
    "PUT /machines/machine_id": lambda s: s.client.update_machine_offer(s.listed_machine, {"price_gpu": 0.6}),
    "DELETE /machines/machine_id": lambda s: s.client.withdraw_machine_offer(s.listed_machine),
    "GET /offers": lambda s: s.client.offer_page("bid", {"num_gpus": {"eq": 1}}, part=PART),
    "GET /offers/offer_id": lambda s: s.client.offer(s.offer),
    "GET /ssh_keys": lambda s: s.client.ssh_keys(),
    "POST /ssh_keys": lambda s: s.client.add_ssh_key(PUBLIC_KEY),
    "DELETE /ssh_keys/ssh_key_id": lambda s: s.client.delete_ssh_key(s.key),
    "GET /templates": lambda s: s.client.template_page(s.whose()),
    "GET /templates/template_id": lambda s: s.client.template(s.template),
    "POST /templates": lambda s: s.client.create_template("mine", "ubuntu:24.04"),
    "PUT /templates/template_id": lambda s: s.client.update_template(s.template, {"name": "other"}),
    "DELETE /templates/template_id": lambda s: s.client.delete_template(s.template),
    "GET /users/me": lambda s: s.client.current_user(),
    "GET /users/user_id": lambda s: s.client.user(s.me),
    "PUT /users/me": lambda s: s.client.update_current_user({"fullname": "A Name"}),
}
#: What an order needs beyond the three keys of the seed.
MORE_OF_AN_ORDER = {"client_id", "label", "env", "cancel_unavail", "runtype", "onstart", "ssh_key"}
MORE = {"POST /instances": MORE_OF_AN_ORDER}


@pytest.fixture
def market(sandbox_process: SandboxProcess) -> Iterator[SandboxProcess]:
    sandbox_process.reset()
    yield sandbox_process
    sandbox_process.reset()


@pytest.fixture
def recorder(market: SandboxProcess) -> Iterator[Recorder]:
    with Recorder.in_front_of(market.url) as recorder:
        yield recorder


def test_the_document_is_read_whole() -> None:
    assert (len(OPERATIONS), sum(CATEGORIES.values())) == (33, 33)
    assert len(re.findall(r"^\*\*Method\*\*", DOCUMENT, re.MULTILINE)) == 33
    assert CATEGORIES == {
        "Account": 1, "Bids": 5, "Instances": 7, "Invoices": 2, "Machines": 5, "Offers": 2, "SSH Keys": 3,
        "Templates": 5, "Users": 3,
    }  # fmt: skip
    assert [str(each) for each in OPERATIONS] == list(CALLS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_it_arrives_as_documented(market: SandboxProcess, recorder: Recorder, operation: Operation) -> None:
    CALLS[str(operation)](Scene(market, recorder))
    arrived = recorder.last
    assert (arrived.method, arrived.path) == (operation.method, PREFIX + operation.path)
    assert set(arrived.query) == operation.query
    assert arrived.query["api_token"] == f"at_{market.api_key}"
    assert "Authorization" not in arrived.headers
    keys = set(arrived.body or {})
    assert bool(keys) is (operation.free or bool(operation.body))
    assert operation.free or keys == operation.body | MORE.get(str(operation), set())


def test_the_types_are_the_documents(market: SandboxProcess, recorder: Recorder) -> None:
    scene = Scene(market, recorder)
    order = scene.order
    scene.client.create(order)
    sent = recorder.last.body
    assert (sent["offer_id"], sent["image"], sent["disk"]) == (order.offer_id, "ubuntu:24.04", 20)
    scene.client.add_ssh_key(PUBLIC_KEY)
    assert recorder.last.body == {"name": "contract@test", "public_key": PUBLIC_KEY}
    machine = scene.machine
    scene.client.offer_machine(machine, Decimal("0.5"))
    assert recorder.last.body == {"machine_id": machine, "price": 0.5}
    scene.client.create_bid(Decimal("5.0"), 2, 1)
    assert recorder.last.body == {"price": 5.0, "duration": 2, "num_gpus": 1}
