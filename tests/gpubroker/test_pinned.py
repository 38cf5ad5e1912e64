"""As many web processes as cores: each on a core of its own, a replaced one on the one that became free."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from gpubroker import pinned
from tests.stack import ROOT

CORES = sorted(os.sched_getaffinity(0))
#: A parent whose children say where they are; the first is killed and replaced.
PARENT = """
    import json, os, subprocess, sys
    child = "from gpubroker import pinned; import os, sys, threading; core = pinned.keep_to_one_core(); found = []; " \\
            "thread = threading.Thread(target=lambda: found.append(sorted(os.sched_getaffinity(0)))); " \\
            "thread.start(); thread.join(); print(core, found[0], flush=True); sys.stdin.read()"
    def start():
        return subprocess.Popen([sys.executable, "-c", child], stdin=-1, stdout=-1, text=True)
    children = [start() for _ in range(int(sys.argv[1]))]
    said = [each.stdout.readline().strip() for each in children]
    children[0].kill()
    children[0].wait()
    children[0] = start()
    said.append(children[0].stdout.readline().strip())
    for each in children:
        each.stdin.close()
        each.wait()
    print(json.dumps(said))
"""


def told(processes: int, said: str) -> Any:
    environment = {**os.environ, pinned.PROCESSES: said}
    words = [sys.executable, "-c", textwrap.dedent(PARENT), str(processes)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_each_has_a_core_and_whoever_follows_takes_the_free_one() -> None:
    told_by = told(len(CORES), str(len(CORES)))
    if len(CORES) == 1:
        assert told_by == [f"None {CORES}"] * 2
        return
    assert sorted(told_by[:-1]) == sorted(f"{core} [{core}]" for core in CORES)
    assert told_by[-1] == told_by[0]


@pytest.mark.parametrize("said", ["1", str(len(CORES) + 1), "", "many"])
def test_with_more_or_fewer_processes_than_cores_the_kernel_decides(said: str) -> None:
    if said == str(len(CORES)):  # one process on one core has all there is
        assert told(1, said) == [f"None {CORES}"] * 2
    else:
        assert told(2, said) == [f"None {CORES}"] * 3


def test_more_processes_than_announced_share() -> None:
    if len(CORES) > 1:
        told_by = told(len(CORES) + 1, str(len(CORES)))
        assert sum(each == f"None {CORES}" for each in told_by[:-1]) == 1
