"""Numbers, spans and dollars as the console says them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from gpubroker.common import wording


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h 00 min"), (7500, "2 h 05 min"),
        (86_399, "23 h 59 min"), (86_400, "1 d 0 h"), (100_000, "1 d 3 h"), (-90, "-1 min"), (-0.4, "0 s"),
    ],
)  # fmt: skip
def test_spans(seconds: float, said: str) -> None:
    assert wording.span(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("0", "$0.00"), ("0.0004", "$0.00"), ("0.0126", "$0.013"), ("0.0994", "$0.099"), ("0.1", "$0.10"),
        ("1234567.891", "$1,234,567.89"), ("-3.5", "-$3.50"), ("-0.02", "-$0.020"),
    ],
)  # fmt: skip
def test_dollars(amount: str, said: str) -> None:
    assert wording.dollars(Decimal(amount)) == said


def test_counts_and_rates() -> None:
    assert (wording.count(1, "session"), wording.count(0, "session")) == ("1 session", "0 sessions")
    assert wording.rate(Decimal("0.4")) == "$0.40/h"
