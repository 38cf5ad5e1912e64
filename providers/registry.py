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
from providers.vastai import NativeTransport, OfferSearch, VastAI

VASTAI = "vastai"


@dataclass(frozen=True, slots=True)
class VastAIConfig:
    """An account at Vast.ai. ``base_url`` is without ``/api/v0``."""

    api_key: str = field(repr=False)
    base_url: str = "https://console.vast.ai"
    search: OfferSearch = field(default_factory=OfferSearch)


ProviderConfig = VastAIConfig


@dataclass(frozen=True, slots=True)
class Wiring:
    """What every provider is built with. ``pace`` multiplies all minimum intervals between calls."""

    gate: Gate
    observer: Observer
    clock: Clock = field(default_factory=SystemClock)
    limits: Limits = field(default_factory=Limits)
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


_BUILDERS: dict[type[Any], tuple[str, Callable[[Any, Wiring], Provider]]] = {
    VastAIConfig: (VASTAI, _vastai),
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
    wiring = Wiring(gate, observer, clock or SystemClock(), limits or Limits(), pace)
    providers: dict[str, Provider] = {}
    for config in configs:
        name, builder = _BUILDERS[type(config)]
        if name in providers:
            raise ValueError(f"{name} is configured twice")
        providers[name] = builder(config, wiring)
    return providers
