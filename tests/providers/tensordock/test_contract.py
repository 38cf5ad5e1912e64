"""TensorDock under the suite of all providers, and what only TensorDock has, against the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

import pytest

from providers.base import LaunchOrder, Phase, Provider
from providers.errors import InsufficientCredit, NotSupported, OfferGone, OutcomeUnknown, RateLimited
from providers.http import Limits, NullGate, NullObserver
from providers.registry import TensorDockConfig, build
from providers.tensordock import TensorDock
from tests.providers.contract import PATIENT, PUBLIC_KEY, ProviderContract, new_label
from tests.sandbox import SandboxProcess, TensorDockSandbox

SECOND_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7FSQ0rXgZ1Yp7mPCxWjT4Jd8g9dXGqgXo2ZPpwHlQv second@test"


class TestTensorDock(ProviderContract):
    image = ""
    least_offers = 30
    unknown_id = "00000000-0000-4000-8000-000000000000"
    tells_creation = False

    def connect(self, market: SandboxProcess, *, key: str | None = None, limits: Limits = PATIENT) -> TensorDock:
        config = TensorDockConfig(key or market.api_key, market.tensordock_url)
        built = build([config], NullGate(), NullObserver(), limits=limits, pace=0.0)
        return cast(TensorDock, built["tensordock"])

    @pytest.fixture
    def market(self, tensordock_process: TensorDockSandbox) -> Iterator[SandboxProcess]:
        tensordock_process.reset()
        yield tensordock_process
        tensordock_process.clear_faults()

    @pytest.fixture
    def dock(self, provider: Provider) -> TensorDock:
        return cast(TensorDock, provider)

    # What differs by nature

    def test_a_rented_offer_is_listed_no_more(self, provider: Provider, order: LaunchOrder, rented: str) -> None:
        """A place has several GPUs: a rented one leaves fewer, and the greatest slice goes."""
        before = {offer.provider_id: offer for offer in provider.list_offers().offers}
        place = order.offer_id.split(".")[1]
        free = {offer.gpu_count for offer_id, offer in before.items() if offer_id.split(".")[1] == place}
        assert free
        provider.create(replace(order, offer_id=self.greatest(provider, place), label=new_label()))
        left = [offer for offer in provider.list_offers().offers if offer.provider_id.split(".")[1] == place]
        assert left == []

    @staticmethod
    def greatest(provider: Provider, place: str) -> str:
        offers = [offer for offer in provider.list_offers().offers if offer.provider_id.split(".")[1] == place]
        return max(offers, key=lambda each: each.gpu_count).provider_id

    def test_an_offer_is_rented_once(self, market: SandboxProcess, provider: Provider, order: LaunchOrder) -> None:
        """As often as there are GPUs."""
        offer_id = self.greatest(provider, order.offer_id.split(".")[1])
        provider.create(replace(order, offer_id=offer_id))
        with pytest.raises(OfferGone):
            provider.create(replace(order, offer_id=offer_id, label=new_label()))
        assert len(market.alive()) == 1

    @pytest.mark.parametrize("which", ["list_instances", "find_by_label"])
    def test_a_partial_listing_is_an_error(self, market: SandboxProcess, provider: Provider, which: str) -> None:
        """The wire does not count its rows: only looking again, and looking directly, shows what was left out."""
        label = new_label()
        ids = {str(market.foreign(label)) for _ in range(3)}
        calls: dict[str, Callable[[], Any]] = {
            "list_instances": lambda: provider.list_instances().instances,
            "find_by_label": lambda: provider.find_by_label(label),
        }
        market.fault("partial_listing", operation="list", keep=1)
        assert len(calls[which]()) == 1
        assert {each.instance_id for each in calls[which]()} == ids
        assert None not in [provider.get_instance(each) for each in ids]

    def test_a_listing_that_is_partial_once_is_listed_again(self, market: SandboxProcess, provider: Provider) -> None:
        for _ in range(3):
            market.foreign("x")
        market.fault("partial_listing", keep=1)
        provider.list_instances()
        assert len(provider.list_instances().instances) == 3

    def test_a_key_is_attached_once_or_twice(self, provider: Provider, rented: str) -> None:
        with pytest.raises(NotSupported):
            provider.attach_ssh_key(rented, PUBLIC_KEY)

    def test_a_key_for_a_machine_that_is_gone(self, provider: Provider, rented: str) -> None:
        provider.destroy(rented)
        with pytest.raises(NotSupported):
            provider.attach_ssh_key(rented, PUBLIC_KEY)

    def test_balance(self, market: SandboxProcess, provider: Provider) -> None:
        with pytest.raises(NotSupported):
            provider.balance()

    def calls(self, provider: Provider, order: LaunchOrder, rented: str) -> list[Callable[[], Any]]:
        return [
            provider.list_offers,
            provider.list_instances,
            lambda: provider.create(order),
            lambda: provider.get_instance(rented),
            lambda: provider.find_by_label(order.label),
            lambda: provider.destroy(rented),
        ]

    # Only here

    @pytest.mark.parametrize("shape", ["nodes", "hostnode", "ratio", "stock"])
    def test_every_text_of_an_offer_that_is_gone(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder, shape: str
    ) -> None:
        market.fault("offer_gone", shape=shape)
        with pytest.raises(OfferGone):
            provider.create(order)
        assert market.alive() == []

    def test_a_deployment_that_failed_is_looked_for(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder
    ) -> None:
        market.fault("offer_gone", shape="deploy")
        with pytest.raises(OutcomeUnknown):
            provider.create(order)
        assert provider.find_by_label(order.label) == ()

    def test_a_refusal_that_made_a_machine_leaves_it_to_destroy(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder
    ) -> None:
        market.fault("success_false", operation="create", contract=True)
        created = provider.create(order)
        assert not created.accepted
        (contract,) = market.alive()
        assert str(contract["id"]) == created.instance_id
        provider.destroy(created.instance_id)
        assert market.alive() == []

    def test_little_credit_is_no_lack_of_capacity(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder
    ) -> None:
        market.credit(0.99)
        with pytest.raises(InsufficientCredit):
            provider.create(order)
        assert market.alive() == []

    def test_the_listing_tells_address_and_rate_of_our_machine(
        self, provider: Provider, order: LaunchOrder, rented: str
    ) -> None:
        direct = self.wait_for(provider, rented, Phase.RUNNING)
        (listed,) = provider.list_instances().instances
        assert (listed.ssh_endpoints, listed.ports) == (direct.ssh_endpoints, direct.ports)
        assert [endpoint.user for endpoint in listed.ssh_endpoints] == ["user", "root"]
        assert listed.gpu_price_per_hour == direct.gpu_price_per_hour

    def test_the_quote_is_what_is_billed(self, provider: Provider, order: LaunchOrder) -> None:
        for offer in provider.list_offers().offers[::40]:
            created = provider.create(replace(order, offer_id=offer.provider_id, label=new_label(), disk_gb=200))
            instance = self.wait_for(provider, created.instance_id, Phase.RUNNING)
            assert instance.gpu_price_per_hour is not None
            assert instance.storage_price_per_hour is not None
            billed = instance.gpu_price_per_hour + instance.storage_price_per_hour
            quoted = offer.price_per_hour + offer.storage_price_per_gb_month * 200 / 720
            assert abs(billed - quoted) < Decimal("0.000002"), offer.provider_id
            assert (instance.gpu_name, instance.gpu_count) == (offer.gpu_name_raw, offer.gpu_count)
            provider.destroy(created.instance_id)

    def test_images_that_a_host_does_not_have(
        self, market: SandboxProcess, order: LaunchOrder, provider: Provider
    ) -> None:
        config = TensorDockConfig(market.api_key, market.tensordock_url, "ubuntu1804")
        client = build([config], NullGate(), NullObserver(), limits=PATIENT, pace=0.0)["tensordock"]
        created = client.create(order)
        assert created.accepted
        assert len(market.alive()) == 1

    def test_stop_and_start(self, dock: TensorDock, rented: str) -> None:
        self.wait_for(dock, rented, Phase.RUNNING)
        dock.power_off(rented)
        self.wait_for(dock, rented, Phase.FAILED)
        dock.power_on(rented)
        self.wait_for(dock, rented, Phase.RUNNING)

    def test_the_vendor_counts_calls(self, market: SandboxProcess, provider: Provider) -> None:
        market.settings(pace=1)
        for _ in range(100):
            provider.list_instances()
        with pytest.raises(RateLimited) as caught:
            provider.list_instances()
        assert caught.value.retry_after is not None
        assert 1 <= caught.value.retry_after <= 61
