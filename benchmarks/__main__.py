"""``python -m benchmarks [NAME...]``: run the named benchmarks, or all of them.

Those of ``WITH_ARGUMENTS`` take arguments of their own: ``python -m benchmarks scaleout --help``.
"""

from __future__ import annotations

import importlib
import sys

#: Modules of this package with a ``main() -> None``, in the order in which they run.
ALL = ("startup_memory", "lifecycle", "scale", "scrape", "read", "money")
#: ``main(arguments)``.
WITH_ARGUMENTS = ("read", "compare", "webserver", "pools", "scaleout", "memory", "scaleplan")


def main(names: list[str]) -> int:
    if names and names[0] in WITH_ARGUMENTS:
        importlib.import_module(f"benchmarks.{names[0]}").main(names[1:])
        return 0
    unknown = sorted(set(names) - set(ALL))
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(ALL)}", file=sys.stderr)
        return 2
    for name in names or ALL:
        print(f"== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
