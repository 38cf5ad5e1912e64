"""What the supervisor tells the broker's processes of the sandbox marketplace: an account at every provider."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpubroker.supervisor import stack
from gpubroker.supervisor.facts import Facts
from providers.sandbox.__main__ import read_options
from tests.sandbox import TensorDockSandbox

REAL = {
    "VASTAI_API_KEY": "a-real-key",
    "LOWCODEAPI_API_TOKEN": "at_a-real-token",
    "TENSORDOCK_API_TOKEN": "a-real-token",
    "TENSORDOCK_API_TOKEN_FILE": "/run/secrets/token",
    "TENSORDOCK_BASE_URL": "https://dashboard.tensordock.com/api/v2",
}


def facts(data_dir: Path) -> Facts:
    return Facts(
        data_dir=str(data_dir), host="127.0.0.1", port=8080, embedded=True, has_queue=True, sandbox=True,
        provider_pace=0.1, api_auth="open", log_format="text", unknown=[],
    )  # fmt: skip


def test_every_provider_is_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REAL.items():
        monkeypatch.setenv(name, value)
    made = stack.plan(facts(tmp_path))
    (server,) = made.servers
    market = f"http://127.0.0.1:{(tmp_path / 'sandbox' / 'port').read_text().strip()}"
    told = {name: made.environment[name] for name in made.environment if name.split("_")[0] in ("VASTAI", "TENSORDOCK")}
    assert told == {
        "VASTAI_API_KEY": "sandbox-key",
        "VASTAI_API_KEY_FILE": "",
        "VASTAI_BASE_URL": market,
        "VASTAI_BASE_URL_FILE": "",
        "TENSORDOCK_AUTH_ID": "00000000-0000-4000-8000-000000000000",
        "TENSORDOCK_AUTH_ID_FILE": "",
        "TENSORDOCK_API_TOKEN": "sandbox-tensordock-token",
        "TENSORDOCK_API_TOKEN_FILE": "",
        "TENSORDOCK_BASE_URL": f"{market}/tensordock/api/v2",
        "TENSORDOCK_BASE_URL_FILE": "",
    }
    assert made.environment["LOWCODEAPI_API_TOKEN"] == "at_sandbox-key"
    assert made.environment["LOWCODEAPI_BASE_URL"] == f"{market}/lowcodeapi/vastai"
    assert all(spec.environment == made.environment for spec in made.roles)
    options = read_options(server.command[server.command.index("sandbox") + 1 :])
    assert (options.api_keys, options.tensordock_tokens) == (("sandbox-key",), ("sandbox-tensordock-token",))
    assert (options.pace, f"http://127.0.0.1:{options.port}") == (0.05, market)


def test_without_the_sandbox_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REAL.items():
        monkeypatch.setenv(name, value)
    made = stack.plan(replace(facts(tmp_path), sandbox=False))
    assert made.servers == []
    assert {name: made.environment[name] for name in REAL} == REAL
    assert not (tmp_path / "sandbox").exists()


def test_the_accounts_open_the_sandbox(tmp_path: Path) -> None:
    with TensorDockSandbox(tmp_path) as market:
        made = stack._accounts(market.url)
        assert made["TENSORDOCK_BASE_URL"] == market.tensordock_url
        assert market.api("GET", "/instances", key=made["TENSORDOCK_API_TOKEN"]) == (200, {"data": []})
        token, gateway = made["LOWCODEAPI_API_TOKEN"], made["LOWCODEAPI_BASE_URL"].removeprefix(market.url)
        assert market.raw("GET", f"{gateway}/users/me?api_token={token}")[0] == 200
