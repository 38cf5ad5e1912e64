"""How many examples a property is tried on: fewer in CI, ten times as many where ``HYPOTHESIS_PROFILE=long`` asks."""

from __future__ import annotations

import os

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


def examples(count: int) -> int:
    return count * 10 if LONG else count
