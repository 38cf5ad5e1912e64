import pytest

from providers.base import Provider
from providers.http import NullGate, NullObserver
from providers.registry import VastAIConfig, build

KEY = "0a1b2c3d" * 8


def test_what_is_configured_is_built() -> None:
    built = build([VastAIConfig(KEY)], NullGate(), NullObserver())
    assert list(built) == ["vastai"]
    assert isinstance(built["vastai"], Provider)
    assert built["vastai"].name == "vastai"


def test_nothing_configured_nothing_built() -> None:
    assert build([], NullGate(), NullObserver()) == {}


def test_a_provider_is_configured_once() -> None:
    with pytest.raises(ValueError, match="configured twice"):
        build([VastAIConfig(KEY), VastAIConfig(KEY)], NullGate(), NullObserver())


def test_no_credential_shows() -> None:
    config = VastAIConfig(KEY)
    built = build([config], NullGate(), NullObserver())
    assert KEY not in f"{config!r} {config} {built!r} {built['vastai']!r}"


def test_capabilities() -> None:
    capabilities = build([VastAIConfig(KEY)], NullGate(), NullObserver())["vastai"].capabilities
    assert capabilities.templates
    assert capabilities.preserve_disk
    assert capabilities.label_length == 60
