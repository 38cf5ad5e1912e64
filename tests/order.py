"""The order in which the tests run, made for more workers than cores: most tests wait more than they work.

Those that start a whole stack are spread evenly over the run, so that few of them are up at a time, and none is left to
the end, where the other workers would wait for it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

#: Whoever imports from these starts processes by the handful.
STACKS = ("tests.stack", "tests.fleet", "tests.deploy.composed")
#: The last part of the run, by work, has none of them.
TAIL = 0.1
#: What a test with a marketplace takes, counted in tests without.
MARKET = 10
SERVED = {"sandbox_process", "process", "markets"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = spread(items)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: it need not be searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Tests of a group stay together, as one worker runs them one after the other; the largest group comes first."""
    units: dict[str, list[pytest.Item]] = {}
    light = []
    for item in items:
        group = item.get_closest_marker("xdist_group")
        if group is not None:
            units.setdefault(str(group.args[0]), []).append(item)
        elif starts_a_stack(item):
            units[item.nodeid] = [item]
        else:
            light.append(item)
    return list(_merged(light, sorted(units.values(), key=len, reverse=True)))


def starts_a_stack(item: pytest.Item) -> bool:
    module = item.getparent(pytest.Module)
    used = vars(module.obj).values() if module is not None else ()
    return any(getattr(each, "__module__", "") in STACKS for each in used)


def work_of(item: pytest.Item) -> int:
    return MARKET if SERVED & set(getattr(item, "fixturenames", ())) else 1


def _merged(light: list[pytest.Item], units: list[list[pytest.Item]]) -> Iterator[pytest.Item]:
    whole = sum(map(work_of, light)) * (1 - TAIL)
    done, given = 0, 0
    for item in light:
        while given < len(units) and done >= whole * given / len(units):
            yield from units[given]
            given += 1
        yield item
        done += work_of(item)
    for unit in units[given:]:
        yield from unit
