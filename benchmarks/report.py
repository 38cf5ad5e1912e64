"""How results are shown: a table for people, then one JSON object per line for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    name: str
    value: float
    unit: str
    #: What was promised; the value must not exceed it. None where nothing was.
    budget: float | None = None

    @property
    def verdict(self) -> str:
        if self.budget is None:
            return ""
        return "ok" if self.value <= self.budget else "OVER"


def show(benchmark: str, results: Sequence[Result]) -> None:
    width = max(len(result.name) for result in results)
    for result in results:
        budget = "" if result.budget is None else f"  (budget {result.budget:g} {result.unit}: {result.verdict})"
        print(f"  {result.name:<{width}}  {result.value:>10.3f} {result.unit}{budget}")
    for result in results:
        line = {"benchmark": benchmark, "name": result.name, "value": round(result.value, 3), "unit": result.unit}
        print(json.dumps(line if result.budget is None else {**line, "budget": result.budget}))
