"""A session's whole life with the gateway between the broker and the marketplace, and the settings that choose it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpubroker.common import providers as configured
from offers import snapshot
from providers.vastai import VastAIByGateway
from sessions_app.models import Rental
from tests.harness import Api, Driver, refresh_offers
from tests.sandbox import ROOT, SandboxProcess

TOKEN = "at_sandbox-key"


@pytest.fixture
def market(sandbox: SandboxProcess, db: None, settings: Any) -> Iterator[SandboxProcess]:
    settings.VASTAI_API_KEY = ""
    settings.VASTAI_TRANSPORT = "lowcodeapi"
    settings.LOWCODEAPI_API_TOKEN = TOKEN
    settings.LOWCODEAPI_BASE_URL = f"{sandbox.url}/lowcodeapi/vastai"
    configured.configured.cache_clear()
    snapshot.forget()
    refresh_offers()
    yield sandbox
    configured.configured.cache_clear()


def test_rented_verified_over_ssh_given_back(
    market: SandboxProcess, api: Api, driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(configured.get("vastai"), VastAIByGateway)
    session_id = api.create()["session"]["id"]
    session = driver.until_status(session_id, "running")
    (machine,) = market.alive()
    rental = Rental.objects.get(session_id=session_id)
    assert (str(machine["id"]), machine["label"]) == (rental.instance_id, rental.label)
    assert {" ".join(key.split()[:2]) for key in machine["keys"]} == {
        " ".join(key.split()[:2]) for key in (session.ssh_public_key, rental.broker_public_key)
    }
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    assert market.alive() == []
    proof = Rental.objects.get(session_id=session_id).proof
    assert proof is not None
    assert proof["answer"] == "the provider has no such machine"
    assert TOKEN not in caplog.text


def test_an_orphan_is_found_and_ended(market: SandboxProcess, driver: Driver, settings: Any) -> None:
    settings.ORPHAN_GRACE_SECONDS = 0
    market.foreign("gpb-testdep-abcdefghijklmn27-1")
    market.foreign("somebody else's")
    driver.sweep_now()
    driver.until(lambda: [each["label"] for each in market.alive()] == ["somebody else's"])


def test_a_lost_answer_is_looked_up_by_its_label(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("lost_answer", operation="create")
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    assert len(market.ledger()) == 1


def read_settings(data_dir: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    own = {"PATH": os.environ["PATH"], "GPUBROKER_ENV_FILE": "", "GPUBROKER_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", "gpubroker.supervisor.facts"]
    return subprocess.run(command, env=own | settings, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"VASTAI_TRANSPORT": "carrier-pigeon"}, "VASTAI_TRANSPORT must be one of native, lowcodeapi, not 'carrier-p"),
        ({"VASTAI_TRANSPORT": "lowcodeapi"}, "VASTAI_TRANSPORT=lowcodeapi needs LOWCODEAPI_API_TOKEN, the token that"),
        ({"LOWCODEAPI_BASE_URL": "api.lowcodeapi.com"}, "LOWCODEAPI_BASE_URL must be a URL such as https"),
        ({"LOWCODEAPI_API_TOKEN": "at_ hunter2"}, "LOWCODEAPI_API_TOKEN holds spaces or characters that no HTTP head"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, str], sentence: str) -> None:
    done = read_settings(tmp_path, **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(sentence), done.stderr
    assert "hunter2" not in done.stderr


def test_the_token_may_come_from_a_file_and_replaces_the_sandbox(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    done = read_settings(tmp_path / "data", VASTAI_TRANSPORT="lowcodeapi", LOWCODEAPI_API_TOKEN_FILE=str(file))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sandbox"] is False
    assert TOKEN not in done.stdout + done.stderr


def test_the_sandbox_brings_a_gateway_with_a_token_of_its_own(tmp_path: Path) -> None:
    done = read_settings(tmp_path, VASTAI_TRANSPORT="lowcodeapi", SANDBOX="on")
    assert (done.returncode, json.loads(done.stdout)["sandbox"]) == (0, True)
