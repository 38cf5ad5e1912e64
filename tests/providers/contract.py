"""One suite that every provider passes against the sandbox, over real HTTP.

A provider's own test module sub-classes :class:`ProviderContract` and says how to connect. The suite knows only
the protocol; what is wrong with the wire is arranged through the sandbox's admin endpoint.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from providers.base import Instance, LaunchOrder, Phase, Provider
from providers.errors import (
    AuthError,
    InsufficientCredit,
    InvalidRequest,
    ListingIncomplete,
    MalformedAnswer,
    NotFound,
    OfferGone,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Unavailable,
)
from providers.http import Limits
from providers.labels import make_label
from tests.sandbox import SandboxProcess

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl contract@test"
PATIENT = Limits(connect=2.0, read=10.0, total=20.0)
HASTY = Limits(connect=1.0, read=0.3, total=0.6)

_session_numbers = itertools.count()


def new_label() -> str:
    """A label that no other test has."""
    number = next(_session_numbers)
    letters = "".join("abcdefghijklmnop"[number >> shift & 15] for shift in range(60, -4, -4))
    return make_label("contract", f"sess-{letters}", 1)


class ProviderContract:
    """``connect`` is all that a sub-class must give. The attributes are for vendors that differ by nature; where one
    lacks something altogether, its class says in the test of the same name what happens instead."""

    #: What to launch; "" where the provider's own image is all there is.
    image = "ubuntu:24.04"
    #: More offers than this make a market.
    least_offers = 65
    #: An id in the vendor's form that no machine has.
    unknown_id = "999999999"
    #: Whether machines tell when they were made.
    tells_creation = True

    def connect(self, market: SandboxProcess, *, key: str | None = None, limits: Limits = PATIENT) -> Provider:
        raise NotImplementedError

    @pytest.fixture
    def market(self, sandbox_process: SandboxProcess) -> Iterator[SandboxProcess]:
        sandbox_process.reset()
        yield sandbox_process
        sandbox_process.clear_faults()

    @pytest.fixture
    def provider(self, market: SandboxProcess) -> Provider:
        return self.connect(market)

    @pytest.fixture
    def order(self, provider: Provider) -> LaunchOrder:
        offer = min(provider.list_offers().offers, key=lambda each: each.price_per_hour)
        return LaunchOrder(
            offer_id=offer.provider_id,
            label=new_label(),
            image=self.image,
            disk_gb=20,
            env={"WORKLOAD": "contract"},
            ports=(8000,),
            ssh_public_keys=(PUBLIC_KEY,),
        )

    @pytest.fixture
    def rented(self, provider: Provider, order: LaunchOrder) -> str:
        return provider.create(order).instance_id

    # Offers

    def test_all_offers_are_listed_once(self, provider: Provider) -> None:
        offers = provider.list_offers().offers
        assert len(offers) >= self.least_offers
        assert len({offer.provider_id for offer in offers}) == len(offers)
        for offer in offers:
            assert offer.provider == provider.name
            assert offer.price_per_hour > 0
            assert type(offer.price_per_hour) is Decimal
            assert offer.gpu_count > 0
            assert offer.vram_mb > 1_000
            assert offer.gpu_name_raw

    def test_a_rented_offer_is_listed_no_more(self, provider: Provider, order: LaunchOrder, rented: str) -> None:
        assert order.offer_id not in {offer.provider_id for offer in provider.list_offers().offers}

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            ({"kind": "error_5xx", "status": 503}, Unavailable),
            ({"kind": "malformed", "operation": "search"}, MalformedAnswer),
            ({"kind": "rate_limited"}, RateLimited),
            ({"kind": "auth_error"}, AuthError),
        ],
    )
    def test_offers_are_an_error_rather_than_few(
        self, market: SandboxProcess, provider: Provider, fault: dict[str, Any], kind: type[ProviderError]
    ) -> None:
        market.fault(**{"operation": "search", "skip": 1, **fault})
        with pytest.raises(kind):
            provider.list_offers()

    # Create

    def test_create(self, market: SandboxProcess, provider: Provider, order: LaunchOrder) -> None:
        created = provider.create(order)
        assert created.accepted
        (contract,) = market.alive()
        assert str(contract["id"]) == created.instance_id
        assert contract["label"] == order.label

    def test_the_label_is_readable_back_everywhere(self, provider: Provider, order: LaunchOrder, rented: str) -> None:
        direct = provider.get_instance(rented)
        (listed,) = provider.list_instances().instances
        (found,) = provider.find_by_label(order.label)
        assert direct is not None
        assert direct.label == listed.label == found.label == order.label
        assert direct.instance_id == listed.instance_id == found.instance_id == rented

    def test_a_label_that_begins_alike_is_another(self, provider: Provider, order: LaunchOrder, rented: str) -> None:
        assert provider.find_by_label(order.label[:-1]) in ((), [])
        assert provider.find_by_label(order.label + "0") in ((), [])

    @pytest.mark.parametrize(
        "fault",
        [
            {"kind": "lost_answer"},
            {"kind": "error_after"},
            {"kind": "truncated_json"},
            {"kind": "truncated_json", "mid_stream": True},
            {"kind": "malformed", "operation": "create"},
        ],
        ids=str,
    )
    def test_a_create_whose_answer_is_lost_is_found_by_its_label(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder, fault: dict[str, Any]
    ) -> None:
        market.fault(**fault)
        with pytest.raises(OutcomeUnknown) as caught:
            provider.create(order)
        assert caught.value.may_have_happened
        (contract,) = market.alive()
        (found,) = provider.find_by_label(order.label)
        assert found.instance_id == str(contract["id"])

    def test_a_create_whose_answer_is_too_slow(self, market: SandboxProcess, order: LaunchOrder) -> None:
        market.fault("slow", operation="create", seconds=1.5, after=True)
        with pytest.raises(OutcomeUnknown):
            self.connect(market, limits=HASTY).create(order)
        assert len(self.connect(market).find_by_label(order.label)) == 1

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            ({"kind": "error_5xx", "status": 502}, OutcomeUnknown),
            ({"kind": "error_5xx", "status": 500}, OutcomeUnknown),
            ({"kind": "rate_limited", "threshold": 4.5}, RateLimited),
            ({"kind": "auth_error", "status": 404}, AuthError),
            ({"kind": "auth_error", "status": 401}, AuthError),
            ({"kind": "auth_error", "status": 403}, AuthError),
            ({"kind": "insufficient_credit"}, InsufficientCredit),
            ({"kind": "offer_gone"}, OfferGone),
            ({"kind": "success_false"}, InvalidRequest),
        ],
        ids=str,
    )
    def test_a_refused_create_makes_nothing(
        self,
        market: SandboxProcess,
        provider: Provider,
        order: LaunchOrder,
        fault: dict[str, Any],
        kind: type[ProviderError],
    ) -> None:
        market.fault(**{"operation": "create", **fault})
        with pytest.raises(ProviderError) as caught:
            provider.create(order)
        assert type(caught.value) is kind
        assert market.alive() == []
        assert list(provider.find_by_label(order.label)) == []

    def test_a_rate_limit_says_how_long(self, market: SandboxProcess, provider: Provider, order: LaunchOrder) -> None:
        market.fault("rate_limited", operation="create", threshold=4.5)
        with pytest.raises(RateLimited) as caught:
            provider.create(order)
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 4.5

    def test_an_offer_that_somebody_else_took(
        self, market: SandboxProcess, provider: Provider, order: LaunchOrder
    ) -> None:
        assert market.take_offer(order.offer_id)
        with pytest.raises(OfferGone):
            provider.create(order)

    def test_an_offer_is_rented_once(self, market: SandboxProcess, provider: Provider, order: LaunchOrder) -> None:
        provider.create(order)
        with pytest.raises(OfferGone):
            provider.create(order)
        assert len(market.alive()) == 1

    def test_an_empty_account(self, market: SandboxProcess, provider: Provider, order: LaunchOrder) -> None:
        market.credit(0)
        with pytest.raises(InsufficientCredit):
            provider.create(order)
        assert market.alive() == []

    # Listings

    def test_an_empty_listing(self, provider: Provider) -> None:
        assert provider.list_instances().instances == ()
        assert list(provider.find_by_label(new_label())) == []

    def test_long_listings_are_complete(self, market: SandboxProcess, provider: Provider) -> None:
        label = new_label()
        ids = {str(market.foreign(label if number % 2 else "somebody else's")) for number in range(62)}
        listed = provider.list_instances().instances
        assert {instance.instance_id for instance in listed} == ids
        assert len(provider.find_by_label(label)) == 31

    def test_a_machine_without_a_label(self, market: SandboxProcess, provider: Provider) -> None:
        market.foreign(None)
        assert [instance.label for instance in provider.list_instances().instances] == [""]

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            ({"kind": "error_5xx"}, Unavailable),
            ({"kind": "rate_limited"}, RateLimited),
            ({"kind": "auth_error"}, AuthError),
            ({"kind": "malformed"}, MalformedAnswer),
            ({"kind": "truncated_json"}, MalformedAnswer),
            ({"kind": "truncated_json", "mid_stream": True}, Unavailable),
            ({"kind": "lost_answer"}, Unavailable),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("which", ["list_instances", "find_by_label"])
    def test_a_bad_listing_is_an_error(
        self, market: SandboxProcess, provider: Provider, which: str, fault: dict[str, Any], kind: type[ProviderError]
    ) -> None:
        label = new_label()
        for _ in range(3):
            market.foreign(label)
        calls: dict[str, Callable[[], Any]] = {
            "list_instances": provider.list_instances,
            "find_by_label": lambda: provider.find_by_label(label),
        }
        market.fault(**{"operation": "list", "times": -1, **fault})
        with pytest.raises(ProviderError) as caught:
            calls[which]()
        assert type(caught.value) is kind

    @pytest.mark.parametrize("which", ["list_instances", "find_by_label"])
    def test_a_partial_listing_is_an_error(self, market: SandboxProcess, provider: Provider, which: str) -> None:
        label = new_label()
        for _ in range(3):
            market.foreign(label)
        calls: dict[str, Callable[[], Any]] = {
            "list_instances": provider.list_instances,
            "find_by_label": lambda: provider.find_by_label(label),
        }
        market.fault("partial_listing", operation="list", times=-1, keep=1)
        with pytest.raises(ListingIncomplete):
            calls[which]()

    def test_a_listing_that_is_partial_once_is_listed_again(self, market: SandboxProcess, provider: Provider) -> None:
        for _ in range(3):
            market.foreign("x")
        market.fault("partial_listing", keep=1)
        assert len(provider.list_instances().instances) == 3

    def test_a_listing_that_hangs(self, market: SandboxProcess) -> None:
        market.fault("slow", operation="list", seconds=1.5)
        before = time.monotonic()
        with pytest.raises(Unavailable):
            self.connect(market, limits=HASTY).list_instances()
        assert time.monotonic() - before < 1.2

    # One machine

    def test_a_machine_boots_and_tells_where_it_is(self, provider: Provider, rented: str) -> None:
        instance = self.wait_for(provider, rented, Phase.RUNNING)
        assert instance.ssh_endpoints
        assert instance.gpu_count > 0
        assert instance.gpu_price_per_hour is not None
        assert instance.gpu_price_per_hour > 0
        assert (instance.created_at is not None) is self.tells_creation

    def test_a_machine_that_dies(self, market: SandboxProcess, provider: Provider, rented: str) -> None:
        self.wait_for(provider, rented, Phase.RUNNING)
        market.machine_dies(rented)
        instance = provider.get_instance(rented)
        assert instance is not None
        assert instance.phase is Phase.FAILED

    def test_a_machine_that_never_was(self, provider: Provider) -> None:
        assert provider.get_instance(self.unknown_id) is None

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            ({"kind": "error_5xx"}, Unavailable),
            ({"kind": "rate_limited"}, RateLimited),
            ({"kind": "auth_error"}, AuthError),
            ({"kind": "malformed"}, MalformedAnswer),
            ({"kind": "truncated_json"}, MalformedAnswer),
        ],
        ids=str,
    )
    def test_a_bad_look_proves_nothing(
        self,
        market: SandboxProcess,
        provider: Provider,
        rented: str,
        fault: dict[str, Any],
        kind: type[ProviderError],
    ) -> None:
        market.fault(**{"operation": "get", **fault})
        with pytest.raises(ProviderError) as caught:
            provider.get_instance(rented)
        assert type(caught.value) is kind

    # Destroy

    def test_destroy(self, market: SandboxProcess, provider: Provider, rented: str) -> None:
        assert provider.destroy(rented)
        assert provider.get_instance(rented) is None
        assert provider.list_instances().instances == ()
        assert market.alive() == []

    def test_destroy_twice_is_success(self, provider: Provider, rented: str) -> None:
        provider.destroy(rented)
        assert provider.destroy(rented) == "already gone"

    def test_destroy_what_never_was_is_success(self, provider: Provider) -> None:
        assert provider.destroy(self.unknown_id) == "already gone"

    @pytest.mark.parametrize(
        ("fault", "kind", "alive"),
        [
            ({"kind": "rate_limited"}, RateLimited, 1),
            ({"kind": "error_5xx"}, OutcomeUnknown, 1),
            ({"kind": "auth_error"}, AuthError, 1),
            ({"kind": "success_false"}, InvalidRequest, 1),
            ({"kind": "refuse_destroy", "mode": "error"}, OutcomeUnknown, 1),
            ({"kind": "lost_answer"}, OutcomeUnknown, 0),
            ({"kind": "error_after"}, OutcomeUnknown, 0),
            ({"kind": "truncated_json"}, OutcomeUnknown, 0),
        ],
        ids=str,
    )
    def test_a_destroy_that_fails_says_so(
        self,
        market: SandboxProcess,
        provider: Provider,
        rented: str,
        fault: dict[str, Any],
        kind: type[ProviderError],
        alive: int,
    ) -> None:
        market.fault(**{"operation": "destroy", **fault})
        with pytest.raises(ProviderError) as caught:
            provider.destroy(rented)
        assert type(caught.value) is kind
        assert len(market.alive()) == alive
        provider.destroy(rented)
        assert market.alive() == []

    def test_a_destroy_that_is_only_said(self, market: SandboxProcess, provider: Provider, rented: str) -> None:
        market.fault("refuse_destroy", mode="silent")
        provider.destroy(rented)
        assert provider.get_instance(rented) is not None

    # Keys, balance, accounts

    def test_a_key_is_attached_once_or_twice(self, provider: Provider, rented: str) -> None:
        provider.attach_ssh_key(rented, PUBLIC_KEY)
        provider.attach_ssh_key(rented, PUBLIC_KEY)

    def test_a_key_for_a_machine_that_is_gone(self, provider: Provider, rented: str) -> None:
        provider.destroy(rented)
        with pytest.raises(NotFound):
            provider.attach_ssh_key(rented, PUBLIC_KEY)

    def test_balance(self, market: SandboxProcess, provider: Provider) -> None:
        market.credit(12.5)
        assert provider.balance().credit == Decimal("12.5")

    def test_an_unknown_key(self, market: SandboxProcess, order: LaunchOrder, rented: str) -> None:
        for call in self.calls(self.connect(market, key="f" * 64), order, rented):
            with pytest.raises(AuthError) as caught:
                call()
            assert "f" * 64 not in str(caught.value)
        assert len(market.alive()) == 1

    def calls(self, provider: Provider, order: LaunchOrder, rented: str) -> list[Callable[[], Any]]:
        """Everything that the provider can be asked."""
        return [
            provider.list_offers,
            provider.list_instances,
            provider.balance,
            lambda: provider.create(order),
            lambda: provider.get_instance(rented),
            lambda: provider.find_by_label(order.label),
            lambda: provider.destroy(rented),
            lambda: provider.attach_ssh_key(rented, PUBLIC_KEY),
        ]

    def test_nobody_is_there(self, market: SandboxProcess) -> None:
        class Nowhere:
            url = tensordock_url = "http://127.0.0.1:9"
            api_key = market.api_key

        with pytest.raises(Unavailable):
            self.connect(Nowhere()).list_instances()  # type: ignore[arg-type]

    @staticmethod
    def wait_for(provider: Provider, instance_id: str, phase: Phase) -> Instance:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            instance = provider.get_instance(instance_id)
            if instance is not None and instance.phase is phase:
                return instance
            time.sleep(0.05)
        raise AssertionError(f"{instance_id} did not become {phase}")
