"""One sandbox process, seen from TensorDock's side, for all tests of this folder; emptied before each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox import TensorDockSandbox

#: Machines with an address of their own listen here: 22 is for root.
DEDICATED_PORT = 22_022


@pytest.fixture(scope="session")
def dock_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TensorDockSandbox]:
    folder = tmp_path_factory.mktemp("dock")
    tokens = ["dock-token", "other-token"]
    with TensorDockSandbox(folder, tensordock_token=tokens, dedicated_port=DEDICATED_PORT) as running:
        yield running


@pytest.fixture
def dock(dock_process: TensorDockSandbox) -> TensorDockSandbox:
    dock_process.reset()
    return dock_process
