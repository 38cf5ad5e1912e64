"""Every setting that comes from the environment or ``.env``: read once, validated, refused by name.

``NAME_FILE`` may stand for any ``NAME`` and names a file to read the value from. The table with
defaults and meanings is in the README; a test compares it with :data:`KNOWN`.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from environs import EnvError, FileAwareEnv

from gpubroker.failures import SettingsError as SettingsError

T = TypeVar("T")

BASE_DIR = Path(__file__).resolve().parent.parent.parent

#: Names with our prefix that mean something; any other ``GPUBROKER_*`` is reported as a likely typo.
KNOWN_PREFIXED = {
    "GPUBROKER_DATA_DIR",
    "GPUBROKER_ENV_FILE",
    "GPUBROKER_SUPERVISOR_PID",
    "GPUBROKER_WEB_THREADS",
}


class Reader:
    """Reads one setting at a time and turns every failure into a :class:`SettingsError` by name."""

    def __init__(self) -> None:
        self.env = FileAwareEnv()
        env_file = os.environ.get("GPUBROKER_ENV_FILE", str(BASE_DIR / ".env"))
        if env_file and Path(env_file).is_file():
            self.env.read_env(env_file, recurse=False)

    def _read(self, name: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except (EnvError, ValueError, OSError) as error:
            got = os.environ.get(name)
            shown = "" if got is None or _is_secret(name) else f" (got {got!r})"
            reason = str(error).replace(f'Environment variable "{name}" ', "")
            raise SettingsError(f"{name}{shown}: {reason}") from None

    def text(self, name: str, default: str = "") -> str:
        return self._read(name, lambda: str(self.env.str(name, default))).strip()

    def boolean(self, name: str, default: bool) -> bool:
        return self._read(name, lambda: bool(self.env.bool(name, default)))

    def number(self, name: str, default: float, *, least: float, most: float) -> float:
        value = self._read(name, lambda: float(self.env.float(name, default)))
        if not least <= value <= most:
            raise SettingsError(f"{name} must lie between {least:g} and {most:g}, not {value:g}.")
        return value

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        value = self._read(name, lambda: int(self.env.int(name, default)))
        if not least <= value <= most:
            raise SettingsError(f"{name} must lie between {least} and {most}, not {value}.")
        return value

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = self.text(name, default).lower() or default
        if value not in allowed:
            raise SettingsError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.")
        return value

    def url(self, name: str, default: str = "") -> str:
        value = self.text(name, default).rstrip("/")
        if value and not re.fullmatch(r"https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*)?", value):
            raise SettingsError(f"{name} must be a URL such as https://host:port/path, not {value!r}.")
        return value

    def token(self, name: str) -> str:
        """A credential that goes into an HTTP header."""
        value = self.text(name)
        if not re.fullmatch(r"[\x21-\x7e]*", value):
            raise SettingsError(f"{name} holds spaces or characters that no HTTP header can carry; copy it again.")
        return value

    def texts(self, name: str, default: str = "") -> list[str]:
        return [part.strip() for part in self.text(name, default).split(",") if part.strip()]


def _is_secret(name: str) -> bool:
    return any(word in name for word in ("KEY", "TOKEN", "SECRET", "PASSWORD", "DATABASE_URL", "REDIS_URL"))


def unknown_names() -> list[str]:
    """``GPUBROKER_*`` names in the environment that nothing reads: probably misspelt."""
    known = KNOWN_PREFIXED | {f"{name}_FILE" for name in KNOWN_PREFIXED}
    return sorted(name for name in os.environ if name.startswith("GPUBROKER_") and name not in known)


def data_dir(reader: Reader) -> Path:
    path = Path(reader.text("GPUBROKER_DATA_DIR", "") or BASE_DIR / "var").expanduser().absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"GPUBROKER_DATA_DIR: cannot make {path}: {error.strerror}.") from None
    return path


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """A secret made once and kept in a file that only its owner can read."""
    try:
        with contextlib.suppress(FileNotFoundError):
            return path.read_text().strip()
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            # Complete or absent, also on a full disk; of two makers the first one wins.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            os.unlink(draft)
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"GPUBROKER_DATA_DIR: cannot write {path}: {error.strerror}.") from None


def new_secret_key() -> str:
    return secrets.token_urlsafe(48)
