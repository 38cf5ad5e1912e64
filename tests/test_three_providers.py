"""The main job on every provider and way, each by one setting: ``SANDBOX_PROVIDER``, and nothing else."""

from __future__ import annotations

import http.client
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import WithSchema
from tests.smoke import MUST_SAY, first_session
from tests.stack import Stack, gpubroker, running


def told(port: int | str, path: str) -> Any:
    """What a GET on this machine answers."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def market(stack: Stack, what: str) -> Any:
    """What the sandbox itself knows."""
    port = (stack.data_dir / "sandbox" / "port").read_text().strip()
    return told(port, f"/_sandbox/{what}")


@pytest.mark.parametrize(
    ("setting", "provider", "user"),
    [("vastai", "vastai", "root"), ("lowcodeapi", "vastai", "root"), ("tensordock", "tensordock", "user")],
)
def test_the_readmes_first_session_by_one_setting(
    tmp_path: Path, with_schema: WithSchema, setting: str, provider: str, user: str
) -> None:
    with running(with_schema(tmp_path / "data"), SANDBOX_PROVIDER=setting) as stack:
        stack.wait_ready()
        words = ["bash", "-e", "-c", first_session(stack.port)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr + stack.output()
        assert [text for text in MUST_SAY if text not in done.stdout] == []

        offers = told(stack.port, "/api/v1/inventory?limit=200")["offers"]
        assert {each["provider"] for each in offers} == {provider}
        (session,) = told(stack.port, "/api/v1/sessions")["sessions"]
        assert (session["status"], session["provider"], session["ssh_user"]) == ("stopped", provider, user)
        (machine,) = market(stack, "ledger")["contracts"]
        assert (machine["vendor"], machine["alive"]) == (provider, False)
        costs = told(stack.port, f"/api/v1/costs?session_id={session['id']}")
        assert costs["total_cost"] == pytest.approx(machine["total_dollars"], rel=0.01, abs=0.0001)
        assert {call.split()[0] for call in market(stack, "health")["calls"]} == {setting}
        assert stack.stop() == 0


def test_without_the_sandbox_it_is_refused_by_name(tmp_path: Path) -> None:
    done = gpubroker("run", data_dir=tmp_path / "data", VASTAI_API_KEY="a-real-key", SANDBOX_PROVIDER="tensordock")
    assert done.returncode == 2
    assert done.stderr == (
        "SANDBOX_PROVIDER=tensordock chooses among the sandbox's vendors, and the sandbox is off: set SANDBOX=on, "
        "or leave it out.\n"
    )
