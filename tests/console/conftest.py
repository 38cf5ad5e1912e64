"""Fixtures of the console's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gpubroker.common import providers as configured


@pytest.fixture
def vastai(settings: Any) -> Iterator[None]:
    """Configured, and asked by nobody unless a test has the marketplace."""
    settings.VASTAI_API_KEY = "nobody-asks"
    configured.configured.cache_clear()
    yield
    configured.configured.cache_clear()
