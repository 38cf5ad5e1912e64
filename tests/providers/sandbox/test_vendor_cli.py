"""The vendor's own command line works against the sandbox: what it accepts is the wire as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.providers.sandbox.helpers import KeyPair, boot, execute, login
from tests.sandbox import SandboxProcess

VASTAI = Path(sys.executable).parent / "vastai"


class Cli:
    """``vastai --raw`` with a home of its own."""

    def __init__(self, sandbox: SandboxProcess, home: Path) -> None:
        self._sandbox = sandbox
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "VASTAI_NO_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
        }

    def text(self, *words: str) -> str:
        url = ["--url", self._sandbox.url, "--api-key", self._sandbox.api_key]
        command = [str(VASTAI), *words, *url, "--raw"]
        done = subprocess.run(
            command, env=self._env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout.strip()

    def json(self, *words: str) -> Any:
        return json.loads(self.text(*words))


@pytest.fixture
def cli(sandbox: SandboxProcess, tmp_path: Path) -> Cli:
    return Cli(sandbox, tmp_path)


def test_from_search_to_destroy(cli: Cli, sandbox: SandboxProcess, keypair: KeyPair) -> None:
    sandbox.api("POST", "/api/v0/ssh/", {"ssh_key": keypair.public})
    offers = cli.json("search", "offers", "gpu_name=RTX_4090 num_gpus=1 direct_port_count>1", "-o", "dph")
    assert {offer["gpu_name"] for offer in offers} == {"RTX 4090"}
    prices = [offer["dph_total"] for offer in offers]
    assert prices == sorted(prices)

    made = cli.json(
        "create", "instance", str(offers[0]["id"]), "--image", "pytorch/pytorch:latest", "--disk", "20", "--ssh",
        "--direct", "--label", "from-cli", "--env", "-e A=1 -p 8000:8000",
    )  # fmt: skip
    assert made["success"] is True
    instance_id = str(made["new_contract"])
    boot(sandbox)

    shown = cli.json("show", "instances")
    assert [(str(i["id"]), i["label"], i["extra_env"]) for i in shown] == [
        (instance_id, "from-cli", {"A": "1", "-p 8000:8000": "1"})
    ]
    one = cli.json("show", "instance", instance_id)
    assert (str(one["id"]), one["actual_status"]) == (instance_id, "running")

    url = cli.text("ssh-url", instance_id)
    port = int(url.strip('"').rsplit(":", 1)[1])
    assert "root@127.0.0.1:" in url
    with login(port, keypair) as client:
        assert execute(client, "echo ok") == ("ok\n", "", 0)

    cli.text("label", "instance", instance_id, "renamed")
    assert sandbox.alive()[0]["label"] == "renamed"
    cli.text("destroy", "instance", instance_id, "--yes")
    assert sandbox.alive() == []


def test_templates_and_account(cli: Cli) -> None:
    templates = cli.json("search", "templates")
    assert {"Ollama", "vLLM"} <= {template["name"] for template in templates}
    assert cli.json("show", "user")["credit"] == 100.0


def test_stop_and_logs(cli: Cli, sandbox: SandboxProcess) -> None:
    instance_id = str(sandbox.foreign("x"))
    boot(sandbox)
    cli.text("stop", "instance", instance_id)
    assert sandbox.alive()[0]["state"] == "stopped"
    assert "ubuntu:22.04" in cli.text("logs", instance_id)
