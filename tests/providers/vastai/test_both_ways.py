"""Operations beside the broker's main job, on Vast.ai's own API and through the gateway, against the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest

from providers.base import LaunchOrder, Phase
from providers.errors import InvalidRequest, NotFound, NotSupported
from providers.http import NullGate, NullObserver
from providers.registry import LowCodeAPIConfig, VastAIConfig, build
from providers.vastai import AnyVastAI, Part, VastAI
from tests.providers.contract import PATIENT, PUBLIC_KEY, ProviderContract, new_label
from tests.sandbox import SandboxProcess

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def sandbox_process(sandbox_of_pages: SandboxProcess) -> SandboxProcess:
    return sandbox_of_pages


@pytest.fixture
def market(sandbox_process: SandboxProcess) -> Iterator[SandboxProcess]:
    sandbox_process.reset()
    yield sandbox_process
    sandbox_process.reset()


@pytest.fixture
def native(market: SandboxProcess) -> VastAI:
    config = VastAIConfig(market.api_key, market.url)
    return cast(VastAI, build([config], NullGate(), NullObserver(), limits=PATIENT, pace=0.0)["vastai"])


@pytest.fixture
def gateway(market: SandboxProcess) -> AnyVastAI:
    config = LowCodeAPIConfig(f"at_{market.api_key}", f"{market.url}/lowcodeapi/vastai")
    return cast(AnyVastAI, build([config], NullGate(), NullObserver(), limits=PATIENT, pace=0.0)["vastai"])


@pytest.fixture(params=["native", "gateway"])
def vast(request: pytest.FixtureRequest) -> AnyVastAI:
    return cast(AnyVastAI, request.getfixturevalue(request.param))


def rent(vast: AnyVastAI, bid: str | None = None, **more: Any) -> str:
    offer = vast.offer_page(filters={"num_gpus": {"eq": 1}, "direct_port_count": {"gt": 1}})[0]
    price = None if bid is None else Decimal(bid)
    order = LaunchOrder(offer.provider_id, new_label(), "ubuntu:24.04", 20, bid_price=price, **more)
    return vast.create(order).instance_id


# Offers


def test_offers_that_take_bids(vast: AnyVastAI) -> None:
    """All of them, past the 64 rows of one search, by the rows of a search for bids."""
    listed = {offer.provider_id for offer in vast.list_offers().offers}
    assert len(listed) > 64
    assert vast.biddable_offers() == listed


def test_a_paused_machine_is_asked_back(vast: AnyVastAI, market: SandboxProcess) -> None:
    machine = rent(vast, bid="20")
    ProviderContract.wait_for(vast, machine, Phase.RUNNING)
    market.admin("POST", f"instances/{machine}/outbid", {"price": 25})
    stopped = vast.get_instance(machine)
    assert stopped is not None
    assert (stopped.phase, stopped.status_message, stopped.min_bid_per_hour) == (Phase.STOPPED, "", Decimal(25))
    assert "queued" in vast.start(machine)
    queued = vast.get_instance(machine)
    assert queued is not None
    assert (queued.phase, queued.status_message) == (Phase.STOPPED, "start queued until a GPU is free")
    vast.set_bid(machine, Decimal("25.5"))
    back = ProviderContract.wait_for(vast, machine, Phase.RUNNING)
    assert (back.gpu_price_per_hour, vast.start(machine)) == (Decimal("25.5"), "accepted")


def test_offers_are_searched_ordered_and_cut(vast: AnyVastAI) -> None:
    dearest = vast.offer_page(filters={"num_gpus": {"eq": 2}}, sort_by="dph_base", direction="desc", part=Part(limit=3))
    prices = [offer.price_per_hour for offer in dearest]
    assert len(prices) == 3
    assert prices == sorted(prices, reverse=True)
    assert {offer.gpu_count for offer in dearest} == {2}
    bids = vast.offer_page("bid", part=Part(limit=2))
    assert [offer.interruptible for offer in bids] == [True, True]


def test_one_offer_until_it_is_taken(market: SandboxProcess, vast: AnyVastAI) -> None:
    (listed,) = vast.offer_page(part=Part(limit=1))
    offer = vast.offer(listed.provider_id)
    assert offer is not None
    assert (offer.provider_id, offer.price_per_hour) == (listed.provider_id, listed.price_per_hour)
    market.take_offer(listed.provider_id)
    assert vast.offer(listed.provider_id) is None
    assert vast.offer("1") is None


def test_the_vendor_itself_has_no_offset_and_no_owner(native: VastAI) -> None:
    with pytest.raises(NotSupported, match="no 'offset'"):
        native.offer_page(part=Part(offset=64))
    for call in (native.bids, native.host_machines, native.invoice_page):
        with pytest.raises(NotSupported, match="no 'owner_id'"):
            call(Part(owner_id="7"))
    with pytest.raises(NotSupported, match="no operation 'user'"):
        native.user("7")
    with pytest.raises(NotSupported, match="no operation 'create_bid'"):
        native.create_bid(Decimal(1), 1, 1)


# Instances and bids


def test_instances_by_status(market: SandboxProcess, vast: AnyVastAI) -> None:
    ids = [str(market.foreign("x")) for _ in range(3)]
    market.advance(30)
    vast.set_state(ids[0], running=False)
    assert [each.instance_id for each in vast.instance_page("stopped")] == ids[:1]
    assert [each.instance_id for each in vast.instance_page("running", Part(limit=1))] == ids[1:2]
    assert {each.instance_id for each in vast.instance_page()} == set(ids)


def test_any_field_that_the_vendor_lets_be_written(market: SandboxProcess, vast: AnyVastAI) -> None:
    instance_id = rent(vast)
    vast.update_instance(instance_id, {"label": "mine"})
    assert [contract["label"] for contract in market.alive()] == ["mine"]
    with pytest.raises(InvalidRequest):
        vast.update_instance(instance_id, {})


def test_keys_of_the_order_open_the_machine_at_once(market: SandboxProcess, gateway: AnyVastAI) -> None:
    rent(gateway, ssh_public_keys=(PUBLIC_KEY,))
    assert [contract["keys"] for contract in market.alive()] == [[PUBLIC_KEY]]


def test_a_bid_from_first_to_last(market: SandboxProcess, vast: AnyVastAI) -> None:
    rent(vast)
    bid_id = rent(vast, bid="5.0")
    (bid,) = vast.bids()
    assert (bid.bid_id, bid.price_per_hour, bid.instance.instance_id) == (bid_id, Decimal("5.0"), bid_id)
    vast.set_bid(bid_id, Decimal("6.0"))
    assert [each.price_per_hour for each in vast.bids(Part(limit=1))] == [Decimal("6.0")]
    assert vast.bids(Part(offset=1)) == ()
    instance = vast.bid(bid_id)
    assert instance is not None
    assert instance.instance_id == bid_id
    assert vast.delete_bid(bid_id)
    assert vast.delete_bid(bid_id) == "already gone"
    assert vast.bid(bid_id) is None
    assert len(market.alive()) == 1


def test_a_bid_without_an_offer(market: SandboxProcess, gateway: AnyVastAI) -> None:
    label = new_label()
    created = gateway.create_bid(Decimal("20"), 3600, 1, label)
    (contract,) = market.alive()
    assert (str(contract["id"]), contract["label"], contract["is_bid"]) == (created.instance_id, label, True)
    assert contract["num_gpus"] == 1


def test_reboot_recycle_and_logs(market: SandboxProcess, native: VastAI) -> None:
    instance_id = rent(native)
    market.advance(30)
    assert native.reboot(instance_id) == "accepted"
    rebooting = native.get_instance(instance_id)
    assert rebooting is not None
    assert rebooting.status == "rebooting"
    market.advance(30)
    assert native.recycle(instance_id) == "accepted"
    market.advance(30)
    address = native.request_logs(instance_id, tail=2, containing="sshd")
    assert address.startswith(f"{market.url}/")
    ProviderContract.wait_for(native, instance_id, Phase.RUNNING)
    with pytest.raises(InvalidRequest):
        native.reboot("999999999")
    for call in (native.recycle, native.request_logs):
        with pytest.raises(NotFound):
            call("999999999")


# The host's side


def test_a_machine_goes_on_and_off_the_market(market: SandboxProcess, vast: AnyVastAI) -> None:
    assert vast.host_machines() == ()
    machine_id = str(market.admin("POST", "machines", {})["id"])
    unlisted = vast.host_machine(machine_id)
    assert (unlisted.machine_id, unlisted.gpu_price_per_hour) == (machine_id, None)
    on_sale: dict[str, Any] = {"machine_id": {"eq": int(machine_id)}, "verified": {"eq": "any"}}
    assert vast.offer_page(filters=on_sale) == ()
    vast.offer_machine(machine_id, Decimal("0.75"), price_min_bid=0.2)
    (listed,) = vast.host_machines()
    assert (listed.gpu_price_per_hour, listed.min_bid_per_hour) == (Decimal("0.75"), Decimal("0.2"))
    offers = vast.offer_page(filters=on_sale)
    assert {offer.price_per_hour / offer.gpu_count for offer in offers} == {Decimal("0.75")}
    vast.update_machine_offer(machine_id, {"price_gpu": 0.8})
    assert vast.host_machine(machine_id).gpu_price_per_hour == Decimal("0.8")
    assert vast.host_machine(machine_id).min_bid_per_hour == Decimal("0.2")
    vast.withdraw_machine_offer(machine_id)
    assert vast.offer_page(filters=on_sale) == ()
    assert vast.host_machines(Part(offset=1)) == ()


def test_the_least_bid(market: SandboxProcess, native: VastAI) -> None:
    machine_id = str(market.admin("POST", "machines", {})["id"])
    native.offer_machine(machine_id, Decimal("0.75"))
    native.set_min_bid(machine_id, Decimal("0.31"))
    assert native.host_machine(machine_id).min_bid_per_hour == Decimal("0.31")


def test_somebody_elses_machine(vast: AnyVastAI) -> None:
    with pytest.raises(NotFound):
        vast.host_machine("12345")
    for price in (Decimal(0), Decimal("-1"), Decimal("NaN")):
        with pytest.raises(InvalidRequest):
            vast.offer_machine("12345", price)
    with pytest.raises(InvalidRequest):
        vast.update_machine_offer("12345", {})


# Account


def test_the_user(vast: AnyVastAI, gateway: AnyVastAI, market: SandboxProcess) -> None:
    market.credit(12.5)
    me = vast.current_user()
    assert (me.credit, me.balance) == (Decimal("12.5"), Decimal("0.0"))
    vast.update_current_user({"username": "lab"})
    assert vast.current_user().username == "lab"
    assert gateway.user(me.user_id).user_id == me.user_id
    for changes in ({}, {"credit": 5}):
        with pytest.raises(InvalidRequest):
            vast.update_current_user(changes)
    assert vast.current_user().credit == Decimal("12.5")


def test_another_user_is_not_to_be_seen(gateway: AnyVastAI) -> None:
    with pytest.raises(NotFound):
        gateway.user("5")


def test_invoices(market: SandboxProcess, vast: AnyVastAI) -> None:
    market.admin("POST", "credit", {"add": 25})
    first, second = vast.invoice_page()
    assert {first.amount, second.amount} == {Decimal("-1000.0"), Decimal("-25.0")}
    assert vast.invoice(second.invoice_id) == second
    assert len(vast.invoice_page(Part(limit=1))) == 1
    with pytest.raises(NotFound):
        vast.invoice("999999")
    assert set(vast.invoices(LONG_AGO, datetime.now(UTC) + timedelta(days=1))) == {first, second}


def test_a_template_from_first_to_last(vast: AnyVastAI) -> None:
    made = vast.create_template("mine", "ubuntu:24.04", env="-e A=1", extra_filters={"num_gpus": {"eq": 2}})
    assert vast.create_template("mine", "ubuntu:24.04", env="-e A=1", extra_filters={"num_gpus": {"eq": 2}}) == made
    template = vast.template(str(made.template_id))
    assert (template.name, template.hash_id, template.raw["env"]) == ("mine", made.hash_id, "-e A=1")
    assert template in vast.list_templates()
    own = vast.template_page(Part(owner_id=vast.current_user().user_id))
    assert own == (template,)
    changed = vast.update_template(str(made.template_id), {"name": "other"})
    assert changed.template_id == made.template_id
    assert changed.hash_id != made.hash_id
    assert vast.template(str(made.template_id)).name == "other"
    assert len(vast.template_page(Part(limit=2, offset=1))) == 2
    vast.delete_template(str(made.template_id))
    for call in (vast.template, vast.delete_template):
        with pytest.raises(NotFound):
            call(str(made.template_id))
    with pytest.raises(NotFound):
        vast.update_template(str(made.template_id), {"name": "x"})
    with pytest.raises(InvalidRequest):
        vast.create_template("", "ubuntu:24.04")


def test_keys_of_the_account(vast: AnyVastAI) -> None:
    assert vast.ssh_keys() == ()
    added = vast.add_ssh_key(PUBLIC_KEY)
    assert vast.ssh_keys() == (added,)
    vast.delete_ssh_key(added.key_id)
    vast.delete_ssh_key(added.key_id)
    assert vast.ssh_keys() == ()
