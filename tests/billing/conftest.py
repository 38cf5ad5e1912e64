"""Fixtures of the webhook tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.billing.receiver import Genuine, Receiver, documented_check, receiving


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """A receiver on this machine, which may be told."""
    settings.WEBHOOK_ALLOW_PRIVATE = True
    with receiving() as found:
        yield found


@pytest.fixture
def genuine() -> Genuine:
    return documented_check()
