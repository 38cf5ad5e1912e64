"""compose.yaml without Docker: read as Compose reads it, and its services started as processes of this machine.

What a container has by itself is put in: the names of other services become 127.0.0.1, ``/data`` and ``/run/secrets``
folders of the test. Commands and environment are otherwise those of the file.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gpubroker.supervisor import ports
from tests import servers
from tests.stack import INHERITED, ROOT

FILE = ROOT / "compose.yaml"
#: ``$$``, ``${NAME:-default}`` and ``${NAME}``: all that our file uses.
_VARIABLE = re.compile(r"\$\$|\$\{([A-Z_]+)(?::-([^}]*))?\}")
#: The image's own environment: what Docker adds to that of compose.yaml.
IMAGE_ENVIRONMENT = {"GPUBROKER_ENV_FILE": "", "SERVER_HOST": "0.0.0.0", "DJANGO_SETTINGS_MODULE": "gpubroker.settings"}


def _filled(text: str, variables: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else variables.get(found[1]) or found[2] or ""

    return _VARIABLE.sub(value, text)


def _walked(node: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _walked(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_walked(value, variables) for value in node]
    return _filled(node, variables) if isinstance(node, str) else node


def read(**variables: str) -> dict[str, Any]:
    """The whole file, anchors merged and variables filled in."""
    found: dict[str, Any] = _walked(yaml.safe_load(FILE.read_text()), variables)
    return found


def env_file(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


class Deployment:
    """The broker's services of compose.yaml over servers of the test's own."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        redis_url: str,
        variables: Mapping[str, str] | None = None,
        root: Path = ROOT,
        secrets: Path | None = None,
    ) -> None:
        """``root`` holds the code that runs; ``secrets``, which may hold some already, those that are missing."""
        self.folder, self.root = folder, root
        self.ports = {"web": ports.free_port(), "sandbox": ports.free_port()}
        self.secrets = secrets or folder / "secrets"
        subprocess.run(["sh", ROOT / "deploy/docker/make-secrets.sh", self.secrets], check=True, capture_output=True)
        for name, url in (("database_url", database_url), ("redis_url", redis_url)):
            (self.secrets / name).chmod(0o600)
            (self.secrets / name).write_text(url)
        own = {"SECRETS": str(self.secrets), "VASTAI_API_KEY_FILE": str(self.secrets / "vastai_api_key")}
        self.file = read(**{**own, **(variables or {})})
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        #: Settings beside those of the file: quicker clocks.
        self.more: dict[str, str] = {}

    def use_database(self, url: str) -> None:
        (self.secrets / "database_url").write_text(url)

    def environment(self, service: str) -> dict[str, str]:
        given = self.file["services"][service].get("environment") or {}
        kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
        data = self.folder / "data" / service
        data.mkdir(parents=True, exist_ok=True)
        own = {**IMAGE_ENVIRONMENT, "GPUBROKER_DATA_DIR": str(data), "SERVER_PORT": str(self.ports["web"])}
        return {**kept, **own, **{name: self._here(str(value)) for name, value in given.items()}, **self.more}

    def _here(self, text: str) -> str:
        """What only a container knows, as it is here."""
        for name, secret in self.file["secrets"].items():
            path = Path(secret["file"])
            text = text.replace(f"/run/secrets/{name}", str(path if path.is_absolute() else ROOT / path))
        return (
            text.replace("http://sandbox:8900", f"http://127.0.0.1:{self.ports['sandbox']}")
            .replace("/data/", f"{self.folder}/data/")
            .replace("'false'", "false")
        )

    def command(self, service: str) -> list[str]:
        words = [self._here(str(word)) for word in self.file["services"][service]["command"]]
        if service == "sandbox":
            words[words.index("--port") + 1] = str(self.ports["sandbox"])
            # A name that this machine resolves, as Docker's DNS resolves the service's.
            words[words.index("--public-host") + 1] = "localhost"
        return [sys.executable, "-m", "gpubroker", *words]

    def run(self, service: str, *words: str) -> subprocess.CompletedProcess[str]:
        """To its end: a one-shot service, or other words in its place (as ``docker compose run``)."""
        command = [sys.executable, "-m", "gpubroker", *words] if words else self.command(service)
        return subprocess.run(
            command,
            env=self.environment(service),
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def start(self, service: str) -> None:
        with (self.folder / f"{service}.log").open("ab") as log:
            assert service not in self.processes
            self.processes[service] = subprocess.Popen(
                self.command(service), env=self.environment(service), cwd=self.root, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def well(self, service: str) -> bool:
        """By the service's own health check; the image's where it names none."""
        check = self.file["services"][service].get("healthcheck", {}).get("test", ["CMD", "python", "-m",
            "gpubroker.healthy", "web"])  # fmt: skip
        command = [sys.executable if word == "python" else word for word in check[1:]]
        command = [word.replace(":8900/", f":{self.ports['sandbox']}/") for word in command]
        environment = self.environment(service)
        return subprocess.run(command, env=environment, cwd=self.root, capture_output=True).returncode == 0

    def wait_well(self, service: str, seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while not self.well(service):
            assert self.processes[service].poll() is None, self.log(service)
            assert time.monotonic() < until, f"{service} is not well: {self.log(service)}"
            # Each look is a process of its own, which takes its time from what it waits for.
            time.sleep(1)

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(errors="replace")

    def stop(self, service: str) -> int:
        """As ``docker stop``: SIGTERM, and its exit code."""
        process = self.processes.pop(service)
        process.terminate()
        return process.wait(30)

    def destroy(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def deployed(folder: Path, **variables: str) -> Iterator[Deployment]:
    """PostgreSQL and Valkey of its own, and nothing of the broker started yet."""
    with servers.postgres() as database_url, servers.valkey() as redis_url:
        deployment = Deployment(folder, database_url, redis_url, variables)
        try:
            yield deployment
        finally:
            deployment.destroy()
