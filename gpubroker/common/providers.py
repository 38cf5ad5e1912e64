"""The configured providers, built once per process from settings, behind the shared gate."""

from __future__ import annotations

import functools
import logging

from django.conf import settings
from django.db import Error as DatabaseFault

from gpubroker.common import breaker, counters, gathered
from gpubroker.common.clock import BrokerClock
from gpubroker.common.errors import ApiError
from gpubroker.common.gate import DatabaseGate
from gpubroker.common.lanes import lanes
from providers import registry
from providers.base import Provider

log = logging.getLogger(__name__)
#: Refusals that are our own or the market's normal course, not the provider's failing.
NOT_FAULTS = {"", "gate_closed", "offer_gone", "not_found", "not_supported"}
KNOWN = ("vastai", "tensordock")


class CountingObserver:
    """Counts every call and how long its answer took, failed ones durably (``gpu_provider_api_errors_total``), and
    tells the breaker how each call went. What cannot be written down is told in the log only: the call's answer
    matters more, and must reach whoever made it."""

    def observe(self, provider: str, operation: str, seconds: float, error: str) -> None:
        lanes.leave()
        log.debug("%s %s took %.3f s%s", provider, operation, seconds, f": {error}" if error else "")
        try:
            breaker.note(provider, operation, error)
            if error not in NOT_FAULTS:
                counters.increment("gpu_provider_api_errors_total", provider=provider, operation=operation)
        except DatabaseFault as fault:
            log.warning("how %s %s went is not written down: %s", provider, operation, type(fault).__name__)
        where = {"provider": provider, "operation": operation}
        gathered.count("gpu_provider_calls_total", outcome=error or "ok", **where)
        if error != "gate_closed":  # nothing was sent
            gathered.observe("gpu_provider_call_duration_seconds", seconds, **where)


@functools.cache
def configured() -> dict[str, Provider]:
    """By name, e.g. ``{"vastai": ...}``; empty when none is configured."""
    configs: list[registry.ProviderConfig] = []
    if settings.VASTAI_TRANSPORT == "lowcodeapi":
        configs.append(registry.LowCodeAPIConfig(settings.LOWCODEAPI_API_TOKEN, settings.LOWCODEAPI_BASE_URL))
    elif settings.VASTAI_API_KEY:
        configs.append(registry.VastAIConfig(api_key=settings.VASTAI_API_KEY, base_url=settings.VASTAI_BASE_URL))
    if settings.TENSORDOCK_API_TOKEN:
        configs.append(
            registry.TensorDockConfig(
                settings.TENSORDOCK_API_TOKEN,
                settings.TENSORDOCK_BASE_URL,
                settings.TENSORDOCK_DEFAULT_IMAGE,
                settings.TENSORDOCK_AUTH_ID,
            )
        )
    return registry.build(configs, DatabaseGate(), CountingObserver(), clock=BrokerClock(), pace=settings.PROVIDER_PACE)


def get(name: str) -> Provider:
    """The provider, or a typed refusal when it is not configured (any more)."""
    provider = configured().get(name)
    if provider is None:
        raise NotConfigured(name)
    return provider


class NotConfigured(ApiError):
    def __init__(self, name: str) -> None:
        super().__init__(503, f"provider {name} is not configured on this broker", provider=name)
