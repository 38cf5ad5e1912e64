"""``python -m tests.judge`` in the environment of a deployment: do the rules that never bend hold in its books?

Reads the marketplace's contracts from standard input, as JSON: ``{"contracts": [...], "over": true}``, where ``over``
says that everything is meant to have come to its end. Prints every rule that is broken; exit code 1 if there is one.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def broken(contracts: list[dict[str, Any]], over: bool) -> list[str]:
    from tests import invariants

    rules = [
        lambda: invariants.every_machine_has_its_rental(contracts),
        lambda: invariants.no_label_twice(contracts),
        lambda: invariants.one_machine_per_session(contracts),
        lambda: invariants.closed_means_gone(contracts),
        lambda: invariants.every_live_machine_is_owed_or_wanted(contracts),
        lambda: invariants.no_false_end([]),
        invariants.timelines_are_paths,
        invariants.books_are_consistent,
    ]
    if over:
        rules.append(lambda: invariants.nothing_is_left(contracts))
    found = []
    for rule in rules:
        try:
            rule()
        except AssertionError as error:
            found.append(str(error))
    return found


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    import django

    django.setup()
    given = json.load(sys.stdin)
    problems = broken(given["contracts"], given["over"])
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
