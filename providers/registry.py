"""From configuration to provider objects; the only place that knows which providers there are.

A new provider is a configuration class and one entry in ``_BUILDERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from providers.base import Gate, Observer, Provider
from providers.gates import Clock, SystemClock
from providers.http import HTTPClient, Limits
from providers.tensordock import DEFAULT_IMAGE, PATIENT, TensorDock, Wire
from providers.vastai import LowCodeAPITransport, NativeTransport, OfferSearch, VastAI, VastAIByGateway

VASTAI = "vastai"
TENSORDOCK = "tensordock"


@dataclass(frozen=True, slots=True)
class VastAIConfig:
    """An account at Vast.ai. ``base_url`` is without ``/api/v0``."""

    api_key: str = field(repr=False)
    base_url: str = "https://console.vast.ai"
    search: OfferSearch = field(default_factory=OfferSearch)


@dataclass(frozen=True, slots=True)
class LowCodeAPIConfig:
    """An account at Vast.ai, reached through the LowCodeAPI gateway, which knows its key. The token is ``at_...``."""

    api_token: str = field(repr=False)
    base_url: str = "https://api.lowcodeapi.com/vastai"
    search: OfferSearch = field(default_factory=OfferSearch)


@dataclass(frozen=True, slots=True)
class TensorDockConfig:
    """An organisation at TensorDock. ``api_token`` is all that the v2 API asks for; ``auth_id``, the other half of the
    older API's credentials, is known only so that it shows nowhere. ``base_url`` is with ``/api/v2``."""

    api_token: str = field(repr=False)
    base_url: str = "https://dashboard.tensordock.com/api/v2"
    image: str = DEFAULT_IMAGE
    auth_id: str = field(default="", repr=False)


ProviderConfig = VastAIConfig | LowCodeAPIConfig | TensorDockConfig


@dataclass(frozen=True, slots=True)
class Wiring:
    """What every provider is built with. ``pace`` multiplies all minimum intervals between calls. Without ``limits``
    each provider has its own."""

    gate: Gate
    observer: Observer
    clock: Clock = field(default_factory=SystemClock)
    limits: Limits | None = None
    pace: float = 1.0


def _vastai(config: VastAIConfig, wiring: Wiring) -> Provider:
    http = HTTPClient(
        VASTAI,
        config.base_url,
        config.api_key,
        wiring.gate,
        wiring.observer,
        wiring.clock,
        limits=wiring.limits,
        pace=wiring.pace,
    )
    return VastAI(NativeTransport(http), config.search)


def _lowcodeapi(config: LowCodeAPIConfig, wiring: Wiring) -> Provider:
    token = config.api_token.strip()
    http = HTTPClient(
        VASTAI,
        config.base_url,
        "",
        wiring.gate,
        wiring.observer,
        wiring.clock,
        limits=wiring.limits,
        pace=wiring.pace,
        secrets=(token,),
    )
    return VastAIByGateway(LowCodeAPITransport(http, token), config.search)


def _tensordock(config: TensorDockConfig, wiring: Wiring) -> Provider:
    def client(limits: Limits | None) -> HTTPClient:
        return HTTPClient(
            TENSORDOCK,
            config.base_url,
            config.api_token,
            wiring.gate,
            wiring.observer,
            wiring.clock,
            limits=limits,
            pace=wiring.pace,
            secrets=(config.auth_id.strip(),),
        )

    quick, patient = client(wiring.limits), client(wiring.limits or PATIENT)
    return TensorDock(Wire(quick, patient, wiring.gate), config.image)


_BUILDERS: dict[type[Any], tuple[str, Callable[[Any, Wiring], Provider]]] = {
    VastAIConfig: (VASTAI, _vastai),
    LowCodeAPIConfig: (VASTAI, _lowcodeapi),
    TensorDockConfig: (TENSORDOCK, _tensordock),
}


def build(
    configs: Iterable[ProviderConfig],
    gate: Gate,
    observer: Observer,
    *,
    clock: Clock | None = None,
    limits: Limits | None = None,
    pace: float = 1.0,
) -> dict[str, Provider]:
    """The configured providers by name. ``ValueError`` for a provider given twice or a setting that cannot work."""
    wiring = Wiring(gate, observer, clock or SystemClock(), limits, pace)
    providers: dict[str, Provider] = {}
    for config in configs:
        name, builder = _BUILDERS[type(config)]
        if name in providers:
            raise ValueError(f"{name} is configured twice")
        providers[name] = builder(config, wiring)
    return providers
