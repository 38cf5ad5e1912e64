"""A defect of others by name: a deploy that ends users' sessions. On the running stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures import WithSchema
from tests.sandbox import SandboxProcess
from tests.stack import running
from tests.test_crash import QUICK, call, offers, order, status_of, until


@pytest.mark.timeout(300)
def test_a_deploy_that_ends_users_sessions(tmp_path: Path, with_schema: WithSchema) -> None:
    """SIGTERM to everything and a new start, with one session running and one booting: both go on, where they are."""
    with SandboxProcess(tmp_path / "market", boot_seconds=1.0, offers=90) as market:
        settings = {**QUICK, "VASTAI_API_KEY": "sandbox-key", "VASTAI_BASE_URL": market.url}
        with running(with_schema(tmp_path / "data"), 0, **settings) as first:
            first.wait_ready()
            chosen = offers(first)[:2]
            at_work = call(first, "POST", "/sessions", order(chosen[0]))[1]["session"]["id"]
            until(lambda: status_of(first, at_work) == "running", "one session runs")
            market.settings(boot_seconds=4.0)
            booting = call(first, "POST", "/sessions", order(chosen[1]))[1]["session"]["id"]
            before = [contract["id"] for contract in market.alive()]
            assert len(before) == 2
            assert first.stop() == 0
        assert [contract["id"] for contract in market.alive()] == before
        with running(tmp_path / "data", 0, **settings) as second:
            second.wait_ready()
            until(lambda: status_of(second, booting) == "running", "the booting one runs")
            assert status_of(second, at_work) == "running"
            assert [contract["id"] for contract in market.ledger()] == before
            for session_id in (at_work, booting):
                assert call(second, "DELETE", f"/sessions/{session_id}")[0] == 200
        assert market.alive() == []
