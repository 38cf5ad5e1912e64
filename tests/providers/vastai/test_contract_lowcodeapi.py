"""Vast.ai through the LowCodeAPI gateway under the suite of all providers, and with what the gateway lacks."""

from typing import cast

import pytest

from providers.http import Limits, NullGate, NullObserver
from providers.registry import LowCodeAPIConfig, build
from providers.vastai import VastAIByGateway
from tests.providers.contract import PATIENT, ProviderContract
from tests.sandbox import SandboxProcess


@pytest.fixture(scope="module")
def sandbox_process(sandbox_of_pages: SandboxProcess) -> SandboxProcess:
    return sandbox_of_pages


class TestLowCodeAPI(ProviderContract):
    def connect(self, market: SandboxProcess, *, key: str | None = None, limits: Limits = PATIENT) -> VastAIByGateway:
        config = LowCodeAPIConfig(f"at_{key or market.api_key}", f"{market.url}/lowcodeapi/vastai")
        built = build([config], NullGate(), NullObserver(), limits=limits, pace=0.0)
        return cast(VastAIByGateway, built["vastai"])
