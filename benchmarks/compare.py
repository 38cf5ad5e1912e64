"""``python -m benchmarks compare before.json after.json``: what became faster or slower between two runs of read."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Runs of the same code differ by so much on a machine that does other things as well.
NOISE = 0.15
Rows = Mapping[tuple[str, str], Mapping[str, Any]]


def read(path: Path) -> Rows:
    """The rows by name and kind of authentication."""
    return {(row["name"], row["auth"]): row for row in json.loads(path.read_text())}


def verdict(before: float, after: float) -> str:
    if not before:
        return ""
    change = after / before - 1
    word = "same" if abs(change) < NOISE else "FASTER" if change > 0 else "SLOWER"
    return f"{change:+7.0%} {word}"


def compared(before: Rows, after: Rows) -> list[str]:
    """A line for each row of either run, in the order of the second."""
    lines = []
    for key in [*after, *(key for key in before if key not in after)]:
        old, new = before.get(key), after.get(key)
        rates = [f"{row['requests_per_second']:>9,.0f}/s" if row else f"{'-':>11}" for row in (old, new)]
        change = verdict(old["requests_per_second"], new["requests_per_second"]) if old and new else "only in one"
        loads = " ".join(f"{row['load']:.1f}" if row else "-" for row in (old, new))
        lines.append(f"  {key[0]:<40} {key[1]:<4} {rates[0]} {rates[1]}  {change:<16} load {loads}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    paths = [Path(each) for each in arguments or []]
    if len(paths) != 2:
        print("usage: python -m benchmarks compare BEFORE.json AFTER.json", file=sys.stderr)
        raise SystemExit(2)
    print("\n".join(compared(read(paths[0]), read(paths[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
