"""What the supervisor must know of the settings, read by a short-lived child.

Run as ``python -m gpubroker.supervisor.facts`` it loads the settings and prints them as JSON (no secret among them),
or the one sentence of a ``SettingsError``. The libraries that settings need thus never enter the supervisor's memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from gpubroker.failures import SettingsError, StartFailure


@dataclass(frozen=True)
class Facts:
    data_dir: str
    host: str
    port: int
    #: SQLite under the data folder.
    embedded: bool
    #: REDIS_URL names a queue, so none is started.
    has_queue: bool
    sandbox: bool
    provider_pace: float
    api_auth: str
    log_format: str
    #: ``GPUBROKER_*`` names that nothing reads.
    unknown: list[str]
    #: Which of the sandbox's vendors the broker rents from.
    sandbox_provider: str = "all"

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir)

    @property
    def address(self) -> str:
        """Where a person's browser on this machine finds us."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def from_settings() -> Facts:
    from gpubroker import settings

    return Facts(
        data_dir=str(settings.DATA_DIR),
        host=settings.SERVER_HOST,
        port=settings.SERVER_PORT,
        embedded=settings.EMBEDDED,
        has_queue=bool(settings.REDIS_URL),
        sandbox=settings.SANDBOX_ON,
        provider_pace=settings.PROVIDER_PACE,
        api_auth=settings.API_AUTH,
        log_format=settings.LOG_FORMAT,
        unknown=settings.UNKNOWN_SETTINGS,
        sandbox_provider=settings.SANDBOX_PROVIDER,
    )


def read() -> Facts:
    """Ask the child; its sentence becomes ours."""
    done = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"the settings could not be read (exit code {done.returncode})"]
        raise StartFailure(lines[-1], code=2)
    return Facts(**json.loads(done.stdout))


def main() -> int:
    try:
        facts = from_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"GPUBROKER_DATA_DIR: {error.strerror}: {error.filename}.\n")
        return 2
    sys.stdout.write(json.dumps(asdict(facts)))
    sys.stdout.flush()
    # Nothing needs Python's tidy end, and it takes as long as a third of this program.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
