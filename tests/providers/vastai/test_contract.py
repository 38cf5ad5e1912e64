"""Vast.ai under the suite of all providers, and what only Vast.ai has, against the sandbox."""

from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

import pytest

from providers.base import LaunchOrder, Phase, Provider
from providers.errors import OfferGone
from providers.http import Limits, NullGate, NullObserver
from providers.registry import VastAIConfig, build
from providers.vastai import OfferSearch, VastAI, start_failure
from tests.providers.contract import PATIENT, PUBLIC_KEY, ProviderContract, new_label
from tests.sandbox import SandboxProcess


@pytest.fixture(scope="module")
def sandbox_process(sandbox_of_pages: SandboxProcess) -> SandboxProcess:
    return sandbox_of_pages


class TestVastAI(ProviderContract):
    def connect(self, market: SandboxProcess, *, key: str | None = None, limits: Limits = PATIENT) -> VastAI:
        config = VastAIConfig(api_key=key or market.api_key, base_url=market.url)
        built = build([config], NullGate(), NullObserver(), limits=limits, pace=0.0)
        return cast(VastAI, built["vastai"])

    @pytest.fixture
    def vast(self, provider: Provider) -> VastAI:
        return cast(VastAI, provider)

    @pytest.mark.parametrize("shape", ["400", "404", "410"])
    def test_every_shape_of_an_offer_that_is_gone(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder, shape: str
    ) -> None:
        market.fault("offer_gone", shape=shape)
        with pytest.raises(OfferGone) as caught:
            provider.create(order)
        assert str(caught.value.status) == shape

    def test_a_bid_too_low_leaves_a_machine_to_destroy(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder
    ) -> None:
        market.fault("success_false", operation="create", contract=True)
        created = provider.create(order)
        assert not created.accepted
        (contract,) = market.alive()
        assert str(contract["id"]) == created.instance_id
        provider.destroy(created.instance_id)
        assert market.alive() == []

    def test_a_container_that_cannot_start_fails(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder
    ) -> None:
        market.fault("boot_error", mode="oci")
        instance = self.wait_for(provider, provider.create(order).instance_id, Phase.FAILED)
        assert instance.status == "created"
        assert start_failure(instance.status, instance.status_message)

    def test_an_image_that_cannot_be_pulled_has_failed_though_it_says_loading(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder
    ) -> None:
        market.fault("boot_error", mode="pull")
        instance = self.wait_for(provider, provider.create(order).instance_id, Phase.FAILED)
        assert instance.status == "loading"
        assert start_failure(instance.status, instance.status_message)

    def test_a_container_that_ends_at_once(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder
    ) -> None:
        market.fault("boot_exited")
        self.wait_for(provider, provider.create(order).instance_id, Phase.FAILED)

    def test_direct_ssh_comes_first_and_the_proxy_second(self, provider: Provider, rented: str) -> None:
        instance = self.wait_for(provider, rented, Phase.RUNNING)
        assert [endpoint.kind for endpoint in instance.ssh_endpoints] == ["direct", "proxy"]
        assert {22, 8000} <= set(instance.ports)

    def test_stop_and_start(self, vast: VastAI, rented: str) -> None:
        self.wait_for(vast, rented, Phase.RUNNING)
        assert not vast.set_state(rented, running=False).queued
        self.wait_for(vast, rented, Phase.STOPPED)
        vast.set_state(rented, running=True)
        self.wait_for(vast, rented, Phase.RUNNING)

    def test_keys(self, vast: VastAI, rented: str) -> None:
        vast.attach_ssh_key(rented, PUBLIC_KEY)
        vast.attach_ssh_key(rented, PUBLIC_KEY)
        (key,) = vast.instance_ssh_keys(rented)
        assert key.public_key == PUBLIC_KEY
        vast.detach_ssh_key(rented, key.key_id)
        assert vast.instance_ssh_keys(rented) == ()

    def test_account_keys(self, vast: VastAI) -> None:
        assert vast.ssh_keys() == ()
        added = vast.add_ssh_key(PUBLIC_KEY)
        assert vast.ssh_keys() == (added,)
        vast.delete_ssh_key(added.key_id)
        vast.delete_ssh_key(added.key_id)
        assert vast.ssh_keys() == ()

    def test_another_label(self, vast: VastAI, rented: str) -> None:
        label = new_label()
        vast.set_label(rented, label)
        assert [instance.instance_id for instance in vast.find_by_label(label)] == [rented]

    def test_many_at_once(self, market: SandboxProcess, vast: VastAI) -> None:
        ids = [str(market.foreign("x")) for _ in range(5)]
        vast.destroy_many(ids[:4])
        assert [instance.instance_id for instance in vast.list_instances().instances] == ids[4:]

    def test_templates(self, vast: VastAI) -> None:
        templates = vast.list_templates()
        assert templates
        (same,) = vast.list_templates({"hash_id": {"eq": templates[0].hash_id}})
        assert same == templates[0]

    def test_an_interruptible_machine(self, vast: VastAI, order: LaunchOrder) -> None:
        created = vast.create(replace(order, bid_price=Decimal("5.0")))
        assert created.accepted
        vast.set_bid(created.instance_id, Decimal("6.0"))

    def test_fewer_offers_if_asked(self, market: SandboxProcess) -> None:
        search = OfferSearch(filters={"gpu_name": {"eq": "RTX 4090"}}, verified_only=False)
        config = VastAIConfig(api_key=market.api_key, base_url=market.url, search=search)
        offers = build([config], NullGate(), NullObserver(), pace=0.0)["vastai"].list_offers().offers
        assert offers
        assert {offer.gpu_name_raw for offer in offers} == {"RTX 4090"}

    def test_charges_carry_the_label_after_the_end(
        self, market: SandboxProcess, vast: VastAI, order: LaunchOrder, rented: str
    ) -> None:
        instance: Any = self.wait_for(vast, rented, Phase.RUNNING)
        market.advance(3600)
        vast.destroy(rented)
        day = 86_400
        since, until = (
            instance.created_at.fromtimestamp(instance.created_at.timestamp() + d, instance.created_at.tzinfo)
            for d in (-day, 2 * day)
        )
        (charge,) = vast.charges(since, until)
        assert (charge.instance_id, charge.label) == (rented, order.label)
        assert charge.amount > 0
