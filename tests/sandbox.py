"""A sandbox marketplace for tests: a real process, told what to do through its admin endpoint."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_KEY = "sandbox-key"
DEFAULT_TENSORDOCK_TOKEN = "sandbox-tensordock-token"
TENSORDOCK_PATH = "/tensordock/api/v2"


class SandboxProcess:
    """One ``python -m providers.sandbox`` over ``data_dir``. Options are named as on its command line.

    ``api_key`` and ``tensordock_token`` may be lists. After a ``kill`` or ``stop``, ``start`` brings it back on the
    same port with the same ledger. What it logs is in ``sandbox.log`` in the data directory.
    """

    def __init__(self, data_dir: Path | str, **options: Any) -> None:
        self.data_dir = Path(data_dir)
        self.options = {"boot_seconds": 0.3, "pace": 0, "key_delay": 0, "delete_seconds": 0, **options}
        self.api_keys = self._one_or_more("api_key", DEFAULT_KEY)
        self.tensordock_tokens = self._one_or_more("tensordock_token", DEFAULT_TENSORDOCK_TOKEN)
        self.port = int(self.options.pop("port", 0)) or _free_port()
        self._process: subprocess.Popen[str] | None = None

    def _one_or_more(self, option: str, default: str) -> list[str]:
        given = self.options.pop(option, default)
        return [given] if isinstance(given, str) else list(given)

    @property
    def tensordock_url(self) -> str:
        return f"{self.url}{TENSORDOCK_PATH}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_key(self) -> str:
        return self.api_keys[0]

    @property
    def pid(self) -> int:
        assert self._process is not None, "the sandbox is not started"
        return self._process.pid

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- the process ---------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it and wait until it answers."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "providers.sandbox", "--port", str(self.port), "--data-dir", str(self.data_dir)]
        for name, value in self.options.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        for key in self.api_keys:
            words += ["--api-key", key]
        for token in self.tensordock_tokens:
            words += ["--tensordock-token", token]
        with (self.data_dir / "sandbox.log").open("a") as log:
            self._process = subprocess.Popen(
                words,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        assert self._process.stdout is not None
        announcement = self._process.stdout.readline()
        if self.url not in announcement:
            raise RuntimeError(f"the sandbox did not start:\n{(self.data_dir / 'sandbox.log').read_text()}")
        return self

    def kill(self) -> None:
        """As a power cut would: SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> float:
        """SIGTERM; the seconds that it took to go."""
        before = time.monotonic()
        self._end(signal.SIGTERM)
        return time.monotonic() - before

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(timeout=10)
        if self._process.stdout:
            self._process.stdout.close()
        self._process = None

    # -- the admin endpoint --------------------------------------------------------------------------

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call to ``/_sandbox/<path>``; a refusal is a ``ValueError`` with its text."""
        status, _, text = self.raw(method, f"/_sandbox/{path}", body)
        answer: dict[str, Any] = json.loads(text)
        if status != 200:
            raise ValueError(answer.get("error", text))
        return answer

    def ledger(self) -> list[dict[str, Any]]:
        """Every contract ever made, oldest first: the truth."""
        contracts: list[dict[str, Any]] = self.admin("GET", "ledger")["contracts"]
        return contracts

    def alive(self) -> list[dict[str, Any]]:
        """The contracts that are not destroyed, i.e. that somebody pays for."""
        return [contract for contract in self.ledger() if contract["alive"]]

    def fault(self, kind: str, **params: Any) -> dict[str, Any]:
        """Arm a fault: see ``providers.sandbox.faults``."""
        return self.admin("POST", "faults", {"kind": kind, **params})

    def faults(self) -> dict[str, Any]:
        """``armed`` and ``spent`` faults with their hits."""
        return self.admin("GET", "faults")

    def clear_faults(self) -> None:
        self.admin("DELETE", "faults")

    def calls(self) -> dict[str, int]:
        """Calls that were answered, by vendor and operation."""
        answered: dict[str, int] = self.admin("GET", "health")["calls"]
        return answered

    def too_many(self) -> dict[str, int]:
        """Calls that came earlier than the vendor allows, by vendor and operation; faults do not count."""
        refused: dict[str, int] = self.admin("GET", "health")["too_many"]
        return refused

    def settings(self, **changes: Any) -> dict[str, Any]:
        return self.admin("POST", "settings", changes)

    def advance(self, seconds: float) -> float:
        """Let sandbox time jump; the new time."""
        return float(self.admin("POST", "time", {"advance_seconds": seconds})["now"])

    def credit(self, dollars: float, api_key: str | None = None) -> None:
        """Set what an account can spend."""
        self.admin("POST", "credit", {"credit": dollars, "api_key": api_key or self.api_key})

    def foreign(self, label: str | None, **more: Any) -> Any:
        """Make a machine that no broker asked for; its id, as its vendor writes it."""
        return self.admin("POST", "instances", {"label": label, "api_key": self.api_key, **more})["id"]

    def foreign_all(self, labels: Sequence[str]) -> list[dict[str, Any]]:
        """So many machines at once, reached through the proxy only: there are 12,000 ports for all."""
        made: list[dict[str, Any]] = self.admin(
            "POST", "instances", {"labels": labels, "api_key": self.api_key, "direct": False}
        )["instances"]
        return made

    def machine_dies(self, instance_id: int | str, status: str = "offline", message: str | None = None) -> None:
        self.admin("POST", f"instances/{instance_id}/kill", {"status": status, "message": message})

    def take_offer(self, offer_id: int | str) -> bool:
        """Somebody else rents it."""
        return bool(self.admin("POST", f"offers/{quote(str(offer_id), safe='')}/take")["taken"])

    def reset(self) -> None:
        """An empty marketplace with fresh accounts and the settings of the start."""
        self.admin("POST", "reset")

    # -- the vendor's wire -----------------------------------------------------------------------------

    def api(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """One call on the vendor's wire as the (first) account: status and JSON."""
        sent = {"Accept": "application/json", "Authorization": f"Bearer {key or self.api_key}", **headers}
        status, _, text = self.raw(method, path, body, sent)
        return status, json.loads(text)

    def raw(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of one request. ``body`` is sent as JSON unless it is a string."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            payload = body if isinstance(body, str) or body is None else json.dumps(body)
            connection.request(method, path, payload, headers or {})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, dict(answer.getheaders()), text
        finally:
            connection.close()


class TensorDockSandbox(SandboxProcess):
    """The same process from TensorDock's side: ``api_key`` is a token there, and what tests arrange happens there."""

    @property
    def api_key(self) -> str:
        return self.tensordock_tokens[0]

    def api(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """One call below the API's base as the (first) account: status and JSON."""
        return super().api(method, f"{TENSORDOCK_PATH}{path}", body, key=key, **headers)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
